"""What differs between two fleets, and what does it take to change that? `fleet.wording` says it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fleet.types import Fleet, Pool
from fleet.values import (
    ENGINE_SETTINGS,
    adapter_values,
    base_model_values,
    gateway_values,
    pool_values,
    price_values,
    state_values,
    tenant_values,
)
from fleet.wording import subject_of, words_of

ADDED, REMOVED = "added", "removed"  # of a whole pool, tenant, ...


class Needs(StrEnum):
    """What it takes until a change counts."""

    NOTHING = "nothing"  # it counts from the next request on
    ENGINES = "engines"  # engines of the pools that hold the base model start again, one after the other
    RESTART = "restart"  # of the service: engines, or parts of the gateway, are made with it


# What is read when the service starts, by section of the file; all else counts at once. Whether replicas can
# join and leave depends on where their engines come from, which the gateway's replicas know.
RESTART: dict[str, frozenset[str]] = {
    "base_models": frozenset({"source", "revision"}),
    "pools": frozenset({"strategy", "devices", "mig", "awake", "fork_server", "sleep"}),
    "gateway": frozenset({"shutdown_grace_s", "metrics", "tracing", "batches"}),
    "state": frozenset(
        {"folder", "database", "store_gib", "max_adapter_mib", "model_store_gib", "max_model_gib"}
    ),
}
# What engines are started with.
ENGINES: dict[str, frozenset[str]] = {"base_models": ENGINE_SETTINGS}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    section: str  # of the file
    name: str  # of the tenant, pool, ...; empty for a section that has no names
    text: str  # what changes, in words
    needs: Needs

    def __str__(self) -> str:
        return f"{subject_of(self.section, self.name)}: {self.text}"


def differences(before: Fleet, after: Fleet) -> list[Change]:
    """List what differs, in the order of the file's sections, then by name as declared."""
    return [
        *_base_models(before, after),
        *_named("adapters", before.adapters, after.adapters, adapter_values),
        *_named("tenants", before.tenants, after.tenants, lambda tenant: tenant_values(tenant, {})),
        *_pools(before.pools, after.pools),
        *_fields("gateway", "", gateway_values(before, {}), gateway_values(after, {})),
        *_fields("state", "", state_values(before.state), state_values(after.state)),
        *_fields("usage", "", _usage(before), _usage(after)),
        *_fields("prices", "", _currency(before), _currency(after)),
        *_named("prices", _prices(before), _prices(after), price_values),
    ]


def _base_models(before: Fleet, after: Fleet) -> Iterator[Change]:
    """Compare base models; where they take turns, hosts are told with each start where their weights are."""
    pools = (*before.pools.values(), *after.pools.values())
    lasting = {model for pool in pools if not pool.strategy.shares_hosts for model in pool.base_models}
    for change in _named("base_models", before.base_models, after.base_models, base_model_values):
        told = change.needs is Needs.RESTART and change.name not in lasting
        yield replace(change, needs=Needs.NOTHING) if told else change


def _pools(before: Mapping[str, Pool], after: Mapping[str, Pool]) -> Iterator[Change]:
    """Compare pools; one with shared hosts is made at the start, and its base models come and go."""
    shared = {pool.name for pool in (*before.values(), *after.values()) if pool.strategy.shares_hosts}
    for change in _named("pools", before, after, _pool):
        is_made = change.text in (ADDED, REMOVED)
        yield replace(change, needs=Needs.RESTART) if is_made and change.name in shared else change


def _pool(pool: Pool) -> dict[str, Any]:
    values, names = pool_values(pool), [name for name, _ in pool.replica_models]
    scaling = {} if pool.scaling is None else {k: v for k, v in values["replicas"].items() if k != "max"}
    return values | {"replicas": names, "scaling": scaling}


def _usage(fleet: Fleet) -> dict[str, Any]:
    usage = fleet.usage
    return {"keep_records_days": usage.keep_records_days, "keep_sums_days": usage.keep_sums_days}


def _currency(fleet: Fleet) -> dict[str, Any]:
    return {} if fleet.prices is None else {"currency": fleet.prices.currency}


def _prices(fleet: Fleet) -> Mapping[str, Any]:
    return {} if fleet.prices is None else fleet.prices.models


def _named(
    section: str, before: Mapping[str, Any], after: Mapping[str, Any], values: Any
) -> Iterator[Change]:
    for name in {**before, **after}:
        if name not in after:
            yield Change(section, name, REMOVED, Needs.NOTHING)
        elif name not in before:
            yield Change(section, name, ADDED, Needs.NOTHING)
        elif before[name] != after[name]:
            yield from _fields(section, name, values(before[name]), values(after[name]))


def _fields(section: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old != new:
            needs = _needs(section, key)
            if key == "devices" and _begins_with(old or [], new or []):
                needs = Needs.NOTHING  # those of replicas that join, or leave
            for text in words_of(key, old, new):
                yield Change(section, name, text, needs)


def _needs(section: str, key: str) -> Needs:
    if key in RESTART.get(section, ()):
        return Needs.RESTART
    return Needs.ENGINES if key in ENGINES.get(section, ()) else Needs.NOTHING


def _begins_with(old: list[str], new: list[str]) -> bool:
    """Whether one list is the beginning of the other, and neither is empty."""
    common = min(len(old), len(new))
    return common > 0 and old[:common] == new[:common]
