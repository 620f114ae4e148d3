"""What does a fleet file declare? Reads it, checks it whole, and turns it into the values routing works with.

Either all of it is right, or `FleetError` says everything that is not. Model files are not looked at here:
that is `check_files`.
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
from adapters.types import Adapter, BaseModel, MediaTokens
from routing.config import schema, sources
from routing.config.api_keys import declared_keys, hash_keys, with_stand_ins
from routing.config.document import Document, read_document
from routing.config.explain import explain, salvage, without_echoes
from routing.config.problems import Findings, KeyPath, Problem
from routing.config.references import check_references
from routing.config.rules import check_rules
from routing.config.state import database_stand_in, resolve_state
from routing.types import (
    Budget,
    Caps,
    Fleet,
    GatewaySettings,
    MetricsSettings,
    Pool,
    SchedulerSettings,
    Slo,
    StateSettings,
    Tenant,
    TracingSettings,
    UsageSettings,
)

CPU_LORAS_PER_SLOT = 4  # adapters in host memory for each slot, where a fleet file says nothing
_SECTIONS = ("base_models", "adapters", "tenants", "pools")


@dataclass(frozen=True, slots=True)
class LoadedFleet:
    """A fleet, and what only its file says."""

    fleet: Fleet
    warnings: tuple[Problem, ...]
    lines: dict[KeyPath, int]  # line of each key
    key_variables: dict[str, str]  # hash of a key -> environment variable it came from


def load_fleet(path: Path) -> Fleet:
    """Load and check a fleet file. Raises `FleetError` with every problem."""
    return read_fleet(path).fleet


def load_fleet_with_warnings(path: Path) -> tuple[Fleet, tuple[Problem, ...]]:
    """Load and check a fleet file; return what deserves a look as well. Raises `FleetError`."""
    loaded = read_fleet(path)
    return loaded.fleet, loaded.warnings


def read_fleet(path: Path, env: Mapping[str, str] | None = None, *, keys_needed: bool = True) -> LoadedFleet:
    """Load and check a fleet file under an environment (default: the process's). Raises `FleetError`.

    Where keys are not needed, because nobody is served, a key or a database whose variable is not set is
    made up.
    """
    env = os.environ if env is None else env
    findings = Findings(str(path))
    document = read_document(path, findings)
    if document is None:
        findings.raise_errors()
        raise AssertionError("a file that cannot be read has a finding")
    findings = _Located(str(path), document, findings)
    file = _validate(document, findings)
    hashes: dict[KeyPath, str] = {}
    resolved: dict[KeyPath, str] = {}
    state = StateSettings()
    if file is not None:
        names = {section: list(_mapping(document.data.get(section))) for section in _SECTIONS}
        check_references(file, names, findings)
        check_rules(file, findings)
        if not keys_needed:
            env = {**env, **with_stand_ins(file, env), **database_stand_in(file.state, env)}
        folder = Path(os.path.abspath(path)).parent
        hashes = hash_keys(file, env, findings)
        resolved = _resolve_sources(file, folder, env, findings)
        state = resolve_state(file.state, folder, env, findings)
    findings.raise_errors()
    assert file is not None  # noqa: S101 - without a file there is an error
    variables = {hashes[at]: key.env for at, key in declared_keys(file).items() if key.env}
    fleet = replace(_build(file, hashes, resolved), state=state)
    return LoadedFleet(fleet, tuple(findings.warnings), document.lines, variables)


class _Located(Findings):
    """Findings of a document, beginning with those made while it was read."""

    def __init__(self, file: str, document: Document, before: Findings) -> None:
        super().__init__(file, document.lines)
        self.errors += before.errors


def _validate(document: Document, findings: Findings) -> schema.FleetFile | None:
    """Validate the values; where some are refused, return the rest of the file if it stands without them."""
    try:
        return schema.FleetFile.model_validate(document.data)
    except ValidationError as error:
        errors = without_echoes(error.errors(include_url=False))
    for detail in errors:
        explain(detail, findings)
    kept = salvage(document.data, errors) if isinstance(document.data, dict) else None
    try:
        return None if kept is None else schema.FleetFile.model_validate(kept)
    except ValidationError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _resolve_sources(
    file: schema.FleetFile, folder: Path, env: Mapping[str, str], findings: Findings
) -> dict[KeyPath, str]:
    """Map the path of each section with a source to that source, resolved."""
    resolved: dict[KeyPath, str] = {}
    declared = [
        *((("base_models", name), section.source) for name, section in file.base_models.items()),
        *((("adapters", name), section.source) for name, section in file.adapters.items()),
    ]
    for path, text in declared:
        try:
            source = sources.resolve(text, folder=folder, env=env)
        except sources.SourceError as error:
            remedy = "a folder of this machine begins with `/`, `./` or `~`"
            findings.error((*path, "source"), str(error), remedy)
            continue
        resolved[path] = source.text
        if path[0] == "adapters":
            resolved[path] = _adapter_source((*path, "source"), source, findings)
        elif sources.is_url(source.text):
            remedy = "name a folder or a hub id (org/name)"
            findings.error((*path, "source"), "a base model does not come from a URL", remedy)
        elif path[0] == "base_models" and source.is_folder and file.base_models[path[1]].revision:
            findings.error(
                (*path, "revision"), "a folder has no revision", "remove it, or name a hub id as the source"
            )
    return resolved


def _adapter_source(path: KeyPath, source: sources.Source, findings: Findings) -> str:
    """Return the one spelling of an adapter's source: a folder, or a URL that can be fetched."""
    if sources.is_url(source.text):
        try:
            return check_source(source.text)
        except AdapterError as error:
            findings.error(path, str(error))
    elif not source.is_folder:
        findings.error(path, f"`{source.text}` is neither a folder nor a URL", f"write hf://{source.text}")
    return source.text


def _build(file: schema.FleetFile, hashes: Mapping[KeyPath, str], resolved: Mapping[KeyPath, str]) -> Fleet:
    """Turn a checked file into the fleet."""
    return Fleet(
        base_models={
            name: _base_model(name, section, resolved["base_models", name])
            for name, section in file.base_models.items()
        },
        adapters={
            name: Adapter(name, resolved["adapters", name], section.base_model, section.max_concurrency)
            for name, section in file.adapters.items()
        },
        tenants={name: _tenant(name, section, hashes) for name, section in file.tenants.items()},
        pools={name: _pool(name, section) for name, section in file.pools.items()},
        gateway=_gateway(file.gateway, hashes),
        usage=UsageSettings(**file.usage.model_dump()),
    )


def _base_model(name: str, section: schema.BaseModelSection, source: str) -> BaseModel:
    cpu_loras = section.max_cpu_loras
    return BaseModel(
        name=name,
        source=source,
        revision=section.revision,
        dtype=section.dtype,
        max_model_len=section.max_model_len,
        max_num_seqs=section.max_num_seqs,
        max_loras=section.max_loras,
        max_lora_rank=section.max_lora_rank,
        max_cpu_loras=section.max_loras * CPU_LORAS_PER_SLOT if cpu_loras is None else cpu_loras,
        tensor_parallel_size=section.tensor_parallel_size,
        gpu_memory_utilization=section.gpu_memory_utilization,
        kv_cache_bytes=None if section.kv_cache_gib is None else round(section.kv_cache_gib * 2**30),
        media_tokens=MediaTokens(**section.media_tokens.model_dump()),
        vllm_args=section.vllm_args,
    )


def _tenant(name: str, section: schema.TenantSection, hashes: Mapping[KeyPath, str]) -> Tenant:
    default = section.default_model
    if "default_model" not in section.model_fields_set and len(section.models) == 1:
        default = next(iter(section.models))
    return Tenant(
        name=name,
        key_hashes=frozenset(hashes["tenants", name, "api_keys", i] for i in range(len(section.api_keys))),
        models=dict(section.models),
        default_model=default,
        band=section.priority,
        weight=section.weight,
        caps=Caps(**section.caps.model_dump()),
        isolation=section.isolation,
        adapter_sources=section.adapter_sources,
        budget=None if section.budget is None else Budget(**section.budget.model_dump()),
    )


def _pool(name: str, section: schema.PoolSection) -> Pool:
    return Pool(
        name=name,
        strategy=section.strategy,
        base_models=section.base_models,
        replicas=section.replicas,
        devices=section.devices,
        tenants=section.tenants,
        slo=Slo(**section.slo.model_dump()),
        hedge_after_s=section.hedge_after_s,
    )


def _gateway(section: schema.GatewaySection, hashes: Mapping[KeyPath, str]) -> GatewaySettings:
    keys = range(len(section.operator_keys))
    return GatewaySettings(
        operator_key_hashes=frozenset(hashes["gateway", "operator_keys", i] for i in keys),
        metrics_access=section.metrics_access,
        max_body_bytes=round(section.max_body_mib * 2**20),
        body_timeout_s=section.body_timeout_s,
        stall_timeout_s=section.stall_timeout_s,
        request_timeout_s=section.request_timeout_s,
        shutdown_grace_s=section.shutdown_grace_s,
        log_requests=section.log_requests,
        scheduler=_scheduler(section.scheduler),
        metrics=MetricsSettings(**section.metrics.model_dump()),
        tracing=TracingSettings(**section.tracing.model_dump()),
    )


def _scheduler(section: schema.SchedulerSection) -> SchedulerSettings:
    values = section.model_dump()
    return SchedulerSettings(max_queued_bytes=round(values.pop("max_queued_mib") * 2**20), **values)
