"""Loads a fleet file: reads it, checks it whole, and returns the values that routing works with.

Raises `FleetError` with every fault, and whether these may hide others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.errors import AdapterError
from adapters.sources import check_source
from fleet import schema, settings, sources
from fleet.api_keys import declared_keys, hash_keys, with_stand_ins
from fleet.batch_settings import BatchSettings
from fleet.content import Guard
from fleet.document import Document, read_document
from fleet.entries import base_model_from, tenant_of
from fleet.explain import explain, without_echoes
from fleet.fields import ReplicasSection
from fleet.files import check_folders, check_slice_sizes
from fleet.mig import Mig
from fleet.pool_settings import ResidencySettings, Scaling
from fleet.price_entries import prices_of
from fleet.price_rules import check_prices
from fleet.problems import Findings, KeyPath, Problem
from fleet.references import Known, check_left_out, check_references
from fleet.residency_rules import check_model_sources, check_residency
from fleet.rules import check_rules
from fleet.salvage import PARTS, Salvage, salvage
from fleet.state import database_stand_in, resolve_state
from fleet.types import (
    Adapter,
    Fleet,
    GatewaySettings,
    MetricsSettings,
    Pool,
    SchedulerSettings,
    Slo,
    Strategy,
    TracingSettings,
    TrustedProxies,
    UsageSettings,
)


@dataclass(frozen=True, slots=True)
class LoadedFleet:
    """A fleet, with the lines and variables of its file."""

    fleet: Fleet
    warnings: tuple[Problem, ...]
    lines: dict[KeyPath, int]  # line of each key
    key_variables: dict[str, str]  # hash of a key -> its environment variable

    @property
    def secret_variables(self) -> frozenset[str]:
        """Environment variables that hold a secret of the gateway's: keys, and the database's address."""
        database = self.fleet.state.database_variable
        return frozenset(self.key_variables.values()) | ({database} if database else set())


def load_fleet(path: Path) -> Fleet:
    """Load and check a fleet file. Raises `FleetError` with every problem."""
    return read_fleet(path).fleet


def load_fleet_with_warnings(path: Path) -> tuple[Fleet, tuple[Problem, ...]]:
    """Load and check a fleet file; return warnings as well. Raises `FleetError`."""
    loaded = read_fleet(path)
    return loaded.fleet, loaded.warnings


def read_fleet(
    path: Path,
    env: Mapping[str, str] | None = None,
    *,
    keys_needed: bool = True,
    files: bool = False,
    raw: bytes | None = None,
) -> LoadedFleet:
    """Load and check a fleet file under an environment (default: the process's). Raises `FleetError`.

    With `keys_needed=False`, since nothing is served, a key or a database whose variable is not set is
    made up. With `files` the folders that it names are checked as well. `raw` is read in place of what the
    file holds.
    """
    env = os.environ if env is None else env
    document, findings = _read(path, raw)
    found = _validate(document, findings)
    names = {section: list(_mapping(document.data.get(section))) for section in PARTS}
    known = Known(names, found.unknown)
    check_references(found.file, known, findings)
    check_left_out(found.texts(), known, findings)
    check_rules(found.file, findings)
    check_residency(found.file, findings)
    if not found.is_wrong("prices"):
        check_prices(found.file, known, findings)
    if not keys_needed:
        env = {**env, **with_stand_ins(found.file, env), **database_stand_in(found.file.state, env)}
    folder = _folder_of(path, findings)
    hashes = hash_keys(found.file, env, findings)
    resolved = _resolve_sources(found, folder, env, findings)
    check_model_sources(found.file, resolved, findings)
    state = resolve_state(found.file.state, folder, env, findings)
    if files:
        check_folders(resolved, _ranks(found.file), findings)
        check_slice_sizes(found.file, resolved, findings)
    findings.raise_errors()
    variables = {hashes[at]: key.env for at, key in declared_keys(found.file).items() if key.env}
    fleet = replace(_build(found.file, hashes, resolved), state=state)
    return LoadedFleet(fleet, tuple(findings.warnings), document.lines, variables)


def _read(path: Path, raw: bytes | None) -> tuple[Document, Findings]:
    """Read the file's values. Raises `FleetError` where there are none."""
    before = Findings(str(path))
    document = read_document(path, before, raw)
    if document is None:
        before.raise_errors()
        raise AssertionError("a file that cannot be read has a finding")
    findings = Findings(str(path), document.lines)
    findings.take(before)
    return document, findings


def _folder_of(path: Path, findings: Findings) -> Path:
    try:
        return Path(os.path.abspath(path)).parent
    except OSError:  # of the folder the command runs in
        findings.error((), "the current folder is gone", "change into one that is there", hides=True)
        return path.parent


def _validate(document: Document, findings: Findings) -> Salvage:
    """Validate the values; where some are refused, return the rest. Raises `FleetError` if there is none."""
    try:
        return Salvage(schema.FleetFile.model_validate(document.data), frozenset(), (), frozenset())
    except ValidationError as error:
        errors = without_echoes(error.errors(include_url=False))
    for detail in errors:
        explain(detail, findings)
    findings.may_be_more = True
    if not isinstance(document.data, dict):
        findings.raise_errors()
    return salvage(document.data, errors)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _ranks(file: schema.FleetFile) -> dict[str, tuple[str, int]]:
    """Map each adapter to its base model, and to that model's largest rank."""
    return {
        name: (section.base_model, file.base_models[section.base_model].max_lora_rank)
        for name, section in file.adapters.items()
        if section.base_model in file.base_models
    }


def _resolve_sources(
    found: Salvage, folder: Path, env: Mapping[str, str], findings: Findings
) -> dict[KeyPath, str]:
    """Map the path of each section with a valid source to the resolved source."""
    file = found.file
    declared: dict[KeyPath, str] = {
        **{("base_models", name): section.source for name, section in file.base_models.items()},
        **{("adapters", name): section.source for name, section in file.adapters.items()},
        **{path[:2]: text for path, text in found.texts() if _is_source(path)},
    }
    resolved: dict[KeyPath, str] = {}
    for path, text in declared.items():
        section = file.base_models.get(str(path[1])) if path[0] == "base_models" else None
        try:
            source = sources.resolve(text, folder=folder, env=env)
            if path[0] == "adapters":
                resolved[path] = _adapter_source(source)
            else:
                resolved[path] = _base_model_source(source)
        except sources.SourceError as error:
            findings.error((*path, "source"), str(error), error.remedy, hides=True)
            continue
        if section is not None and source.is_folder and section.revision:
            findings.error(
                (*path, "revision"), "a folder has no revision", "remove it, or name a hub id as the source"
            )
    return resolved


def _is_source(path: KeyPath) -> bool:
    return len(path) == 3 and path[0] in ("base_models", "adapters") and path[2] == "source"


def _base_model_source(source: sources.Source) -> str:
    """Return the one spelling of a base model's source. Raises `SourceError`."""
    return _fetchable(source.text) if sources.is_url(source.text) else source.text


def _adapter_source(source: sources.Source) -> str:
    """Return the one spelling of an adapter's source: a folder, or a URL that can be fetched.

    Raises `SourceError`.
    """
    if sources.is_url(source.text):
        return _fetchable(source.text)
    if not source.is_folder:
        name = source.text
        raise sources.SourceError(f"`{name}` is neither a folder nor a URL", f"write hf://{name}")
    return source.text


def _fetchable(url: str) -> str:
    try:
        return check_source(url)
    except (AdapterError, ValueError) as error:
        raise sources.SourceError(sources.shortened(str(error)), "") from None


def _build(file: schema.FleetFile, hashes: Mapping[KeyPath, str], resolved: Mapping[KeyPath, str]) -> Fleet:
    """Turn a checked file into the fleet."""
    return Fleet(
        base_models={
            name: base_model_from(name, section, resolved["base_models", name])
            for name, section in file.base_models.items()
        },
        adapters={
            name: Adapter(name, resolved["adapters", name], section.base_model, section.max_concurrency)
            for name, section in file.adapters.items()
        },
        tenants={
            name: tenant_of(
                name, section, (hashes["tenants", name, "api_keys", i] for i in range(len(section.api_keys)))
            )
            for name, section in file.tenants.items()
        },
        pools={name: _pool(name, section) for name, section in file.pools.items()},
        gateway=_gateway(file.gateway, hashes),
        usage=UsageSettings(**file.usage.model_dump()),
        prices=prices_of(file.prices),
    )


def _pool(name: str, section: schema.PoolSection) -> Pool:
    return Pool(
        name=name,
        strategy=section.strategy,
        base_models=section.base_models,
        replicas=section.engines,
        scaling=_scaling(section),
        devices=section.devices,
        mig=None if section.mig is None else Mig(**section.mig.model_dump()),
        tenants=section.tenants,
        slo=Slo(**section.slo.model_dump()),
        hedge_after_s=section.hedge_after_s,
        sleep=bool(section.sleep),
        fork_server=section.fork_server is not False,
        awake=1 if section.strategy is Strategy.SWAP else section.awake,
        residency=ResidencySettings(**(section.residency or schema.ResidencySection()).model_dump()),
    )


def _scaling(section: schema.PoolSection) -> Scaling | None:
    given = section.replicas
    return Scaling(given.min, given.hold_s) if isinstance(given, ReplicasSection) else None


def _gateway(section: settings.GatewaySection, hashes: Mapping[KeyPath, str]) -> GatewaySettings:
    keys, proxies = range(len(section.operator_keys)), section.trusted_proxies
    return GatewaySettings(
        operator_key_hashes=frozenset(hashes["gateway", "operator_keys", i] for i in keys),
        metrics_access=section.metrics_access,
        max_body_bytes=round(section.max_body_mib * 2**20),
        body_timeout_s=section.body_timeout_s,
        stall_timeout_s=section.stall_timeout_s,
        heartbeat_s=section.heartbeat_s,
        request_timeout_s=section.request_timeout_s,
        shutdown_grace_s=section.shutdown_grace_s,
        log_requests=section.log_requests,
        scheduler=_scheduler(section.scheduler),
        metrics=MetricsSettings(**section.metrics.model_dump()),
        tracing=TracingSettings(**section.tracing.model_dump()),
        batches=_batches(section.batches),
        guards={name: Guard(**guard.model_dump()) for name, guard in section.guards.items()},
        trusted_proxies=None if proxies is None else TrustedProxies(**proxies.model_dump()),
    )


def _batches(section: settings.BatchesSection) -> BatchSettings:
    return BatchSettings(
        max_file_bytes=round(section.max_file_mib * 2**20),
        max_files=section.max_files,
        max_tenant_bytes=round(section.max_tenant_gib * 2**30),
        max_unfinished=section.max_unfinished,
        keep_days=section.keep_days,
        folder=section.folder,
        key_variable=None if section.key is None else section.key.env,
    )


def _scheduler(section: settings.SchedulerSection) -> SchedulerSettings:
    values = section.model_dump()
    return SchedulerSettings(max_queued_bytes=round(values.pop("max_queued_mib") * 2**20), **values)
