"""Checks what a fleet file says of base models that share hosts: how many are awake, for how long. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.problems import Findings, KeyPath
from fleet.schema import FleetFile, PoolSection, ResidencySection
from fleet.sources import is_url
from fleet.types import Strategy

_SHARED = "use strategy model-mesh or swap, or remove it"


def check_residency(file: FleetFile, findings: Findings) -> None:
    """Check what every pool says of models that share hosts, and that no two replicas have one name."""
    for name, pool in file.pools.items():
        _check_awake(name, pool, findings)
        for key in ("fork_server", "sleep"):
            if getattr(pool, key) is not None and not pool.strategy.shares_hosts:
                said = f"strategy {pool.strategy} has every base model awake all the time"
                findings.error(("pools", name, key), said, _SHARED)
        if pool.residency is not None:
            _check_pool(name, pool, pool.residency, findings)
    _check_replica_names(file, findings)


def check_model_sources(file: FleetFile, sources: Mapping[KeyPath, str], findings: Findings) -> None:
    """Check that only base models which take turns come from URLs; `sources` has the resolved ones."""
    for name, section in file.base_models.items():
        path, source = ("base_models", name), sources.get(("base_models", name))
        if source is None:
            continue
        if not is_url(source):
            if section.sha256 is not None:
                findings.error(
                    (*path, "sha256"), "is compared with what is fetched from a URL alone", "remove it"
                )
            continue
        if section.revision is not None:
            findings.error(
                (*path, "revision"),
                "a URL has none of its own",
                "write it into the source: hf://org/name@revision",
            )
        others = [pool for pool, held in file.pools.items() if name in held.base_models]
        others = [pool for pool in others if not file.pools[pool].strategy.shares_hosts]
        if others:
            findings.error(
                (*path, "source"),
                "the gateway fetches models of strategy model-mesh and swap only, and pool "
                f"`{others[0]}` holds it",
                "name a folder or a hub id (org/name)",
            )


def _check_awake(name: str, pool: PoolSection, findings: Findings) -> None:
    path, count = ("pools", name, "awake"), len(pool.base_models)
    if pool.awake is not None and pool.strategy is not Strategy.MODEL_MESH:
        said = "one is awake at a time with strategy swap" if pool.strategy is Strategy.SWAP else ""
        findings.error(
            path,
            said or f"strategy {pool.strategy} has every base model awake on replicas of its own",
            "use strategy model-mesh, or remove it",
        )
    elif pool.strategy.shares_hosts and count == 1:
        findings.warn(
            ("pools", name, "base_models"),
            f"strategy {pool.strategy}, and no other base model to share a host with",
            "use strategy replica-per-model or multi-lora",
        )
    elif pool.awake is not None and pool.awake > count:
        findings.warn(path, f"{pool.awake} awake of {count} base models", f"set it to {count} at most")


def _check_pool(name: str, pool: PoolSection, residency: ResidencySection, findings: Findings) -> None:
    path: KeyPath = ("pools", name, "residency")
    if not pool.strategy.shares_hosts:
        findings.error(path, f"strategy {pool.strategy} has every base model awake all the time", _SHARED)
        return
    for key in ("preload", "pinned"):
        _check_names((*path, key), getattr(residency, key), pool, findings)
    _check_room(path, pool, residency, findings)
    _check_times(path, pool, residency, findings)


def _check_names(path: KeyPath, models: tuple[str, ...], pool: PoolSection, findings: Findings) -> None:
    for index, model in enumerate(models):
        if model not in pool.base_models:
            findings.error(
                (*path, index),
                f"`{model}` is no base model of this pool",
                f"name one of {', '.join(pool.base_models)}",
            )
        elif model in models[:index]:
            findings.error((*path, index), f"`{model}` is listed twice", "remove one")


def _check_room(path: KeyPath, pool: PoolSection, residency: ResidencySection, findings: Findings) -> None:
    """A host has room for what is pinned, and for one more where others are to come."""
    awake = 1 if pool.strategy is Strategy.SWAP else pool.awake
    pinned, first = set(residency.pinned), {*residency.pinned, *residency.preload}
    if awake is None:
        return
    if len(pinned) > awake:
        findings.error((*path, "pinned"), f"{len(pinned)} always awake of {awake} at once", "pin fewer")
    elif len(pinned) == awake and set(pool.base_models) - pinned:
        findings.error(
            (*path, "pinned"),
            "what is pinned takes every place, so that no other base model ever comes",
            "pin fewer, or raise awake",
        )
    elif len(first) > awake:
        findings.error(
            (*path, "preload"), f"{len(first)} awake after a start, and {awake} at once", "preload fewer"
        )


def _check_times(path: KeyPath, pool: PoolSection, residency: ResidencySection, findings: Findings) -> None:
    if residency.min_s is not None and residency.min_s > residency.max_turn_s:
        findings.error(
            (*path, "min_s"),
            f"longer than max_turn_s ({residency.max_turn_s:g})",
            "lower it, or raise max_turn_s",
        )
    ttft_s = pool.slo.ttft_s
    if ttft_s is not None and residency.min_s is not None and residency.min_s > ttft_s:
        findings.warn(
            (*path, "min_s"),
            f"a request may wait this long for its model alone, and slo.ttft_s is {ttft_s:g}",
            "lower it to less than slo.ttft_s, or leave it to auto",
        )


def _check_replica_names(file: FleetFile, findings: Findings) -> None:
    """A replica at a shared host is called after its base model too, so it may be like another pool's."""
    seen: dict[str, str] = {}
    for name, pool in file.pools.items():
        hosts = [f"{name}-{index}" for index in range(pool.hosts)]
        shared = pool.strategy.shares_hosts
        names = [f"{host}.{model}" for host in hosts for model in pool.base_models] if shared else hosts
        first = next((seen[replica] for replica in names if replica in seen), None)
        if first is not None:
            findings.error(
                ("pools", name),
                f"replicas of it and of pool `{first}` would be called the same",
                "rename one",
            )
        seen |= dict.fromkeys(names, name)
