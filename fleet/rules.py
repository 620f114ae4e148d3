"""Checks that the parts of a fleet file fit together: strategies, isolation, devices, sizes. Pure.

`references` checks that names are declared; names that are not are skipped here.
"""

from __future__ import annotations

import re
from collections import defaultdict

from fleet.fields import ReplicasSection
from fleet.problems import Findings, KeyPath
from fleet.schema import BaseModelSection, FleetFile, PoolSection
from fleet.slice_rules import check_slices
from fleet.types import Band, Isolation, MetricsAccess, Strategy

_DEFAULT_UTILIZATION = 0.9  # about vLLM's own; only for a warning


def check_rules(file: FleetFile, findings: Findings) -> None:
    """Check every rule beyond names."""
    for name, model in file.base_models.items():
        _check_base_model(name, model, findings)
    for name, pool in file.pools.items():
        _check_strategy(file, name, pool, findings)
        _check_isolation(file, name, pool, findings)
        _check_devices(file, name, pool, findings)
        _check_hedging(name, pool, findings)
        _check_range(name, pool, findings)
    check_slices(file, findings)
    _check_pool_names(file, findings)
    _check_shared_devices(file, findings)
    _check_dedicated_devices(file, findings)
    _check_caps(file, findings)
    _check_metrics_access(file, findings)
    _check_guards(file, findings)
    _check_trusted_proxies(file, findings)
    _check_scheduler(file, findings)
    _check_state(file, findings)


def _check_base_model(name: str, model: BaseModelSection, findings: Findings) -> None:
    if model.max_cpu_loras is not None and model.max_cpu_loras < model.max_loras:
        findings.error(
            ("base_models", name, "max_cpu_loras"),
            f"{model.max_cpu_loras} is less than max_loras ({model.max_loras}); slots are filled from there",
            f"set it to {model.max_loras} or more, or leave it out",
        )


def _check_strategy(file: FleetFile, name: str, pool: PoolSection, findings: Findings) -> None:
    if pool.strategy is Strategy.MIG:
        return  # adapters are taken where the base model has slots
    models = {n: file.base_models[n] for n in pool.base_models if n in file.base_models}
    if pool.strategy is Strategy.MULTI_LORA:
        if len(pool.base_models) != 1:
            findings.error(
                ("pools", name, "base_models"),
                f"a multi-lora pool has exactly one base model, not {len(pool.base_models)}",
                "make one pool for each base model",
            )
        for index, base_model in enumerate(pool.base_models):
            if base_model in models and not models[base_model].max_loras:
                findings.error(
                    ("pools", name, "base_models", index),
                    f"base model `{base_model}` has no adapter slots, and the strategy is multi-lora",
                    f"set base_models.{base_model}.max_loras to 1 or more, or use strategy replica-per-model",
                )
        return
    if pool.strategy.shares_hosts:
        return  # an awake model takes adapters where it has slots
    for index, base_model in enumerate(pool.base_models):
        if base_model in models and models[base_model].max_loras:
            findings.warn(
                ("pools", name, "base_models", index),
                f"engines of `{base_model}` set memory aside for adapters, and this pool serves none",
                "declare the base model a second time without max_loras",
            )


def _check_range(name: str, pool: PoolSection, findings: Findings) -> None:
    """A range of replicas is for pools whose replicas are alike, and whose last ones can go; not slices."""
    if not isinstance(pool.replicas, ReplicasSection):
        return
    path: KeyPath = ("pools", name, "replicas")
    if pool.strategy.shares_hosts:
        findings.error(
            path,
            f"a range, and hosts of strategy {pool.strategy} do not come and go: models do",
            "write one number of hosts",
        )
    elif len(pool.base_models) > 1:
        findings.error(
            path,
            "a range, and replicas are numbered model by model: the last ones are those of the last model",
            "make one pool for each base model, or write one number",
        )


def _check_isolation(file: FleetFile, name: str, pool: PoolSection, findings: Findings) -> None:
    """A dedicated tenant is alone on each of its pools."""
    for index, tenant in enumerate(pool.tenants):
        section = file.tenants.get(tenant)
        if section is None or section.isolation is not Isolation.DEDICATED:
            continue
        others = ", ".join(f"`{other}`" for other in sorted(set(pool.tenants) - {tenant}))
        if others:
            findings.error(
                ("pools", name, "tenants", index),
                f"tenant `{tenant}` is dedicated and shares this pool with {others}",
                "give it a pool of its own, or set its isolation to shared",
            )


def _check_devices(file: FleetFile, name: str, pool: PoolSection, findings: Findings) -> None:
    if pool.strategy is Strategy.MIG:
        return  # one slice each, which `slice_rules` checks
    if pool.devices and len(pool.devices) != pool.hosts:
        shared = pool.strategy.shares_hosts
        findings.error(
            ("pools", name, "devices"),
            f"{len(pool.devices)} for {pool.hosts} hosts, which have all base models"
            if shared
            else f"{len(pool.devices)} for {pool.hosts} replicas ({pool.engines} for each of "
            f"{len(pool.base_models)} base models)",
            f"list one for each {'host' if shared else 'replica'} (several GPUs of one "
            f"{'host' if shared else 'replica'} as `0,1`), or leave devices out",
        )
        return
    for index, devices in enumerate(pool.devices):
        names = devices.split(",")
        twice = next((device for at, device in enumerate(names) if device in names[:at]), None)
        if twice is not None:
            findings.error(
                ("pools", name, "devices", index),
                f"`{devices}` names device {twice} twice",
                "name each GPU once",
            )
            continue
        sizes = [model.tensor_parallel_size for model in _models_at(file, pool, index)]
        count = len(names)
        if count < max(sizes, default=0):
            findings.error(
                ("pools", name, "devices", index),
                f"`{devices}` is {count} for an engine of tensor_parallel_size {max(sizes)}",
                "name as many GPUs, joined by commas",
            )


def _models_at(file: FleetFile, pool: PoolSection, host: int) -> list[BaseModelSection]:
    return [file.base_models[name] for name in pool.models_at(host) if name in file.base_models]


def _check_hedging(name: str, pool: PoolSection, findings: Findings) -> None:
    if pool.hedge_after_s is not None and pool.engines == 1:
        of_slices = pool.strategy is Strategy.MIG
        findings.warn(
            ("pools", name, "hedge_after_s"),
            f"there is no second replica to ask: {'there is one slice' if of_slices else 'replicas is 1'}",
            "remove it, or add a slice" if of_slices else "remove it, or add a replica",
        )


def _check_pool_names(file: FleetFile, findings: Findings) -> None:
    """Services are named after pools, and BentoML treats `.`, `-` and `_` in a service's name alike."""
    seen: dict[str, str] = {}
    for name in file.pools:
        first = seen.setdefault(re.sub(r"[.-]", "_", name), name)
        if first != name:
            findings.error(
                ("pools", name),
                f"too much like pool `{first}`: services of both would be called the same",
                "rename one",
            )


def _check_shared_devices(file: FleetFile, findings: Findings) -> None:
    """Warn where the engines on one device take more than all of its memory."""
    wanted: dict[str, float] = defaultdict(float)
    for name, pool in file.pools.items():
        if len(pool.devices) != pool.hosts:
            continue
        for index, devices in enumerate(pool.devices):
            taken = _memory_part(pool, _models_at(file, pool, index))
            for device in devices.split(",") if taken else ():
                before = wanted[device]
                wanted[device] += taken
                if before <= 1 < wanted[device]:
                    findings.warn(
                        ("pools", name, "devices", index),
                        f"the engines on device {device} take {wanted[device]:.2f} of its memory together",
                        "lower gpu_memory_utilization of their base models, or use another device",
                    )


def _memory_part(pool: PoolSection, models: list[BaseModelSection]) -> float:
    """Part of a device's memory that those of a host take which may be awake at once, at the worst."""
    parts = sorted(
        model.gpu_memory_utilization or _DEFAULT_UTILIZATION for model in models if model.kv_cache_gib is None
    )
    return sum(parts[-(pool.awake or 1) :])


def _check_dedicated_devices(file: FleetFile, findings: Findings) -> None:
    """A dedicated tenant's engines share no device on which models take turns, and another not unawares."""
    pools_on: dict[str, dict[str, PoolSection]] = defaultdict(dict)
    for name, pool in file.pools.items():
        for device in (device for devices in pool.devices for device in devices.split(",")):
            pools_on[device][name] = pool
    dedicated = [name for name, tenant in file.tenants.items() if tenant.isolation is Isolation.DEDICATED]
    for device, pools in pools_on.items():
        for tenant in dedicated:
            _check_dedicated_device(tenant, device, pools, findings)


def _check_dedicated_device(
    tenant: str, device: str, pools: dict[str, PoolSection], findings: Findings
) -> None:
    others = [f"`{name}`" for name, pool in pools.items() if tenant not in pool.tenants]
    if not others or len(others) == len(pools):
        return
    path = ("tenants", tenant, "isolation")
    message = f"its engines are its own, but device {device} also serves {', '.join(others)}"
    if any(pool.strategy.shares_hosts for pool in pools.values()):
        findings.error(path, message, "give it a device of its own: models take turns on this one")
    else:
        findings.warn(path, message, "give it a device of its own, unless that is meant")


def _check_caps(file: FleetFile, findings: Findings) -> None:
    for name, tenant in file.tenants.items():
        caps = tenant.caps
        if (
            caps.max_concurrency_per_model is not None
            and caps.max_concurrency_per_model > caps.max_concurrency
        ):
            findings.warn(
                ("tenants", name, "caps", "max_concurrency_per_model"),
                f"never reached: max_concurrency is {caps.max_concurrency}",
                "lower it, or remove it",
            )


def _check_metrics_access(file: FleetFile, findings: Findings) -> None:
    if file.gateway.metrics_access is MetricsAccess.OPERATOR and not file.gateway.operator_keys:
        findings.warn(
            ("gateway", "operator_keys"),
            "nobody can read the metrics: metrics_access is operator, and there is no operator key",
            "add one (`tenantry new-key`), or set metrics_access to loopback",
        )


def _check_guards(file: FleetFile, findings: Findings) -> None:
    for name, guard in file.gateway.guards.items():
        path = ("gateway", "guards", name)
        if (guard.url is None) == (guard.plugin is None):
            findings.error(path, "wants either a url or a plugin", "name one of the two")
        if not guard.prompts and not guard.answers:
            findings.error(path, "looks at nothing", "set prompts or answers to true, or remove it")
        if guard.url is None and (guard.key_variable is not None or guard.model is not None):
            findings.error(
                path, "key_variable and model are of an endpoint, and no url is given", "remove them"
            )


def _check_trusted_proxies(file: FleetFile, findings: Findings) -> None:
    proxies, path = file.gateway.trusted_proxies, ("gateway", "trusted_proxies")
    if proxies is None:
        return
    seen: set[str] = set()
    lists: list[tuple[KeyPath, tuple[str, ...]]] = [((*path, "operators"), proxies.operators)]
    lists += [((*path, "tenants", name), users) for name, users in proxies.tenants.items()]
    for where, users in lists:
        for index, user in enumerate(users):
            if user in seen:
                findings.error((*where, index), f"`{user}` is listed twice", "give each user one role")
            if user.startswith("group:") and proxies.groups_header is None:
                findings.error(
                    (*where, index), f"`{user}` is a group, and none are read", "set groups_header"
                )
            seen.add(user)
    if not seen:
        findings.error(path, "nobody is listed, so that nobody can sign in", "list operators or tenants")


def _check_scheduler(file: FleetFile, findings: Findings) -> None:
    scheduler, lower_bands = file.gateway.scheduler, len(Band) - 1
    kept = scheduler.lower_band_share * lower_bands
    if kept >= 0.5:  # the highest is to have most
        findings.error(
            ("gateway", "scheduler", "lower_band_share"),
            f"the {lower_bands} lower bands would take {kept:.0%} of the grants from the highest",
            f"set it below {0.5 / lower_bands:g}",
        )
    if scheduler.max_queued_mib < file.gateway.max_body_mib:
        findings.warn(
            ("gateway", "scheduler", "max_queued_mib"),
            f"a body of max_body_mib ({file.gateway.max_body_mib:g}) could never wait",
            "raise it, or lower gateway.max_body_mib",
        )


def _check_state(file: FleetFile, findings: Findings) -> None:
    store_gib, adapter_mib = file.state.store_gib, file.state.max_adapter_mib
    if store_gib is not None and adapter_mib > store_gib * 1024:
        findings.error(
            ("state", "max_adapter_mib"),
            f"one adapter of {adapter_mib:g} MiB is more than the whole store takes ({store_gib:g} GiB)",
            "lower it, or raise state.store_gib",
        )
    if file.state.model_store_gib is not None and file.state.max_model_gib > file.state.model_store_gib:
        findings.warn(
            ("state", "max_model_gib"),
            f"one model of {file.state.max_model_gib:g} GiB is more than their whole store takes "
            f"({file.state.model_store_gib:g} GiB)",
            "lower it, or raise state.model_store_gib",
        )
