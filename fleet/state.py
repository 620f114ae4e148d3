"""Resolves the folder and the database of a fleet file's `state` section.

Connects to nothing. A database's URL may hold a password, so no message shows one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fleet.fields import EnvSection
from fleet.problems import Findings
from fleet.settings import StateSection
from fleet.sources import SourceError, resolve_folder
from fleet.types import StateSettings

STAND_IN_DATABASE = "postgresql+psycopg://nobody@localhost/nothing"  # for commands that keep nothing
_URL = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://(?!.*\$\{)(?=\S+\Z)")
_PASSWORD = re.compile(r"//[^/@]*:[^/@]+@|[?&]password=")
_PATH = ("state", "database")
_REMEDY = "write postgresql+psycopg://user@host/name, or leave it out for SQLite in the folder"


def resolve_state(
    section: StateSection, folder: Path, env: Mapping[str, str], findings: Findings
) -> StateSettings:
    """Turn the section of a fleet file in `folder` into settings; faults become findings."""
    try:
        place = resolve_folder(section.folder, folder=folder, env=env)
    except SourceError as error:
        findings.error(("state", "folder"), str(error), "name a folder on a disk of this machine")
        place = str(folder)
    variable = section.database.env if isinstance(section.database, EnvSection) else None
    return StateSettings(
        folder=place,
        database=_database(section.database, env, findings),
        database_variable=variable,
        store_bytes=None if section.store_gib is None else round(section.store_gib * 2**30),
        max_adapter_bytes=round(section.max_adapter_mib * 2**20),
        model_store_bytes=None if section.model_store_gib is None else round(section.model_store_gib * 2**30),
        max_model_bytes=round(section.max_model_gib * 2**30),
        keep_versions=section.keep_versions,
    )


def database_stand_in(section: StateSection, env: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that holds the database's URL; where it is not set, a stand-in."""
    if not isinstance(section.database, EnvSection):
        return {}
    name = section.database.env
    return {name: env.get(name) or STAND_IN_DATABASE}


def holds_password(url: str) -> bool:
    """Whether the URL of a database holds a password."""
    return _PASSWORD.search(url) is not None


def _database(declared: str | EnvSection | None, env: Mapping[str, str], findings: Findings) -> str | None:
    if declared is None:
        return None
    if isinstance(declared, EnvSection):
        url = env.get(declared.env, "")
        what = f"the environment variable {declared.env}"
        if not url:
            state = "empty" if declared.env in env else "not set"
            findings.error(_PATH, f"{what} is {state}", "set it to the URL of the database")
            return None
        what += " holds no URL of a database that can be used"
    else:
        url, what = declared, "is no URL of a database that can be used"
        if holds_password(url):
            findings.warn(_PATH, "holds a password", "write {env: NAME} and put the URL into that variable")
    scheme = _URL.match(url)
    if scheme is None:
        findings.error(_PATH, what, _REMEDY)
        return None
    return f"postgresql+psycopg://{url[scheme.end() :]}"
