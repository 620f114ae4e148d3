"""Hashes the declared API keys. Reads keys from the environment; keeps and shows none."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from fleet.fields import KeySection
from fleet.key_hash import hash_key
from fleet.problems import Findings, KeyPath
from fleet.schema import FleetFile

KEY_PREFIX = "tnt_"
_SHORT = 20  # characters; anything shorter may be guessed


def new_key() -> str:
    """Make a key: 256 random bits behind a prefix that secret scanners can look for."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def declared_keys(file: FleetFile) -> dict[KeyPath, KeySection]:
    """List every key entry of the file by its path."""
    keys: dict[KeyPath, KeySection] = {
        ("tenants", name, "api_keys", index): key
        for name, tenant in file.tenants.items()
        for index, key in enumerate(tenant.api_keys)
    }
    return keys | {
        ("gateway", "operator_keys", index): key for index, key in enumerate(file.gateway.operator_keys)
    }


def with_stand_ins(file: FleetFile, env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that hold keys; one that is not set holds a key that nobody knows."""
    return {key.env: env.get(key.env) or new_key() for key in declared_keys(file).values() if key.env}


def hash_keys(file: FleetFile, env: Mapping[str, str], findings: Findings) -> dict[KeyPath, str]:
    """Map the path of each key entry to its hash; an entry with a finding is left out."""
    hashes: dict[KeyPath, str] = {}
    owners: dict[str, KeyPath] = {}
    for path, key in declared_keys(file).items():
        digest = key.sha256.lower() if key.sha256 else _hash_variable(str(key.env), env, path, findings)
        if digest is None:
            continue
        first = owners.setdefault(digest, path)
        if first is not path:
            findings.error(
                path, f"the same key as {_owner(first)}", "a key belongs to one owner, once; make a new one"
            )
        hashes[path] = digest
    return hashes


def _owner(path: KeyPath) -> str:
    return "an operator key" if path[0] == "gateway" else f"a key of tenant `{path[1]}`"


def _hash_variable(name: str, env: Mapping[str, str], path: KeyPath, findings: Findings) -> str | None:
    """Hash the key in an environment variable; None, with a finding, when it holds none."""
    key = env.get(name)
    if not key:
        state = "not set" if key is None else "empty"
        findings.error(path, f"the environment variable {name} is {state}", "set it to the key")
    elif not key.isascii() or not key.isprintable() or " " in key:
        findings.error(
            path,
            f"the environment variable {name} holds white space or characters no HTTP header can carry",
            "a trailing line break is the usual reason; remove it",
        )
    else:
        if len(key) < _SHORT:
            findings.warn(
                path,
                f"the key in {name} has fewer than {_SHORT} characters and can be guessed",
                "`tenantry new-key` makes a good one",
            )
        return hash_key(key)
    return None
