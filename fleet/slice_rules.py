"""Checks of pools of MIG slices: that each replica has one slice, no slice has two, and models fit. Pure.

What a GPU really has is known on its machine alone: `tenantry devices` shows it, and engines check it.
"""

from __future__ import annotations

from fleet.mig import MAX_COMPUTE_SLICES, UUID_PREFIX, compute_slices, is_slice, most_memory_bytes
from fleet.problems import Findings, KeyPath
from fleet.schema import FleetFile, PoolSection
from fleet.types import Isolation, Strategy
from fleet.vllm_flags import has_flag

_OVER_SEVERAL = frozenset(  # vLLM's flags that spread one engine over several devices
    {"--pipeline-parallel-size", "--decode-context-parallel-size", "--prefill-context-parallel-size"}
)
_LIST = "list the slices' UUIDs under `devices` (`tenantry devices` shows them)"


def check_slices(file: FleetFile, findings: Findings) -> None:
    """Check every pool of slices, and that no two pools mean the same slice."""
    for name, pool in file.pools.items():
        if pool.strategy is Strategy.MIG:
            _check_what_is_named(name, pool, findings)
            _check_models(file, name, pool, findings)
            continue
        if pool.mig is not None:
            findings.error(
                ("pools", name, "mig"),
                f"the strategy of this pool is {pool.strategy.value}",
                "set `strategy: mig`, or remove it",
            )
        for index, device in enumerate(pool.devices):
            if "," in device and UUID_PREFIX in device:
                findings.error(
                    ("pools", name, "devices", index),
                    f"`{device}`: an engine sees one MIG slice and nothing beside it",
                    "name one slice, or whole GPUs",
                )
    _check_slices_once(file, findings)
    _check_profiles_once(file, findings)
    _check_compute(file, findings)
    _check_whole_gpus(file, findings)
    _check_dedicated(file, findings)


def _check_what_is_named(name: str, pool: PoolSection, findings: Findings) -> None:
    path: KeyPath = ("pools", name)
    if (pool.mig is None) == (not pool.devices):
        message = "both `devices` and `mig` name slices" if pool.devices else "no slice is named"
        remedy = "keep one of them" if pool.devices else f"{_LIST}, or set `mig: {{gpu, profile, count}}`"
        findings.error((*path, "strategy"), message, remedy)
    for index, device in enumerate(pool.devices):
        if not is_slice(device):
            several = "," in device
            findings.error(
                (*path, "devices", index),
                f"`{device}` is {'several devices' if several else 'no MIG slice'}; a replica of this pool "
                "has one slice",
                "name each slice by itself: engines cannot spread over slices"
                if several
                else "name a slice by its UUID (MIG-...), as `tenantry devices` shows it",
            )
    if "replicas" in pool.model_fields_set and pool.replicas != pool.engines:
        findings.error(
            (*path, "replicas"),
            f"{_said(pool)}, for {pool.engines} slice{'' if pool.engines == 1 else 's'}: "
            "there is a replica on each",
            "remove it",
        )
    if pool.mig is not None and compute_slices(pool.mig.profile) * pool.mig.count > MAX_COMPUTE_SLICES:
        findings.error(
            (*path, "mig", "count"),
            f"{pool.mig.count} slices of {pool.mig.profile} need more than the {MAX_COMPUTE_SLICES} compute "
            "slices of a GPU",
            "lower it, or make a pool for each GPU",
        )


def _said(pool: PoolSection) -> str:
    return str(pool.replicas) if isinstance(pool.replicas, int) else "a range"


def _check_models(file: FleetFile, name: str, pool: PoolSection, findings: Findings) -> None:
    if len(pool.base_models) != 1:
        findings.error(
            ("pools", name, "base_models"),
            f"a mig pool has exactly one base model, not {len(pool.base_models)}",
            "make one pool for each base model",
        )
    for base_model in (b for b in pool.base_models if b in file.base_models):
        model, path = file.base_models[base_model], ("base_models", base_model)
        if model.tensor_parallel_size > 1:
            findings.error(
                (*path, "tensor_parallel_size"),
                f"pool `{name}` runs it on MIG slices, and engines cannot spread over slices",
                "set it to 1, or use whole GPUs with another strategy",
            )
        spread = has_flag(model.vllm_args, _OVER_SEVERAL)
        if spread is not None:
            findings.error(
                (*path, "vllm_args"),
                f"`{spread}`: pool `{name}` runs it on MIG slices, and engines cannot spread over slices",
                "remove it",
            )
        wanted_gib = model.kv_cache_gib
        if pool.mig is not None and wanted_gib is not None:
            most_gib = most_memory_bytes(pool.mig.profile) / 2**30
            if wanted_gib >= most_gib:
                findings.error(
                    (*path, "kv_cache_gib"),
                    f"{wanted_gib:g} GiB leave no room for weights in a slice {pool.mig.profile} of "
                    f"pool `{name}`, which has less than {most_gib:g} GiB",
                    "lower it, or use a larger profile",
                )


def _check_slices_once(file: FleetFile, findings: Findings) -> None:
    """No slice has two engines: of one pool of slices, or of such a pool and any other."""
    first: dict[str, tuple[str, bool]] = {}
    for name, pool in file.pools.items():
        of_slices = pool.strategy is Strategy.MIG
        for index, device in enumerate(pool.devices):
            before = first.setdefault(device, (name, of_slices)) if is_slice(device) else None
            if before is None or (before == (name, of_slices) and pool.devices.index(device) == index):
                continue
            if of_slices or before[1]:
                where = "in this pool" if before[0] == name else f"in pool `{before[0]}`"
                findings.error(
                    ("pools", name, "devices", index),
                    f"slice {device} has an engine already, {where}",
                    "name another slice: a slice has one engine",
                )


def _check_profiles_once(file: FleetFile, findings: Findings) -> None:
    """Slices named by GPU and profile are counted from the first one, so two pools would get the same."""
    first: dict[tuple[str, str], str] = {}
    uuids = [name for name, pool in file.pools.items() if any(map(is_slice, pool.devices))]
    for name, pool in file.pools.items():
        if pool.mig is None:
            continue
        before = first.setdefault((pool.mig.gpu, pool.mig.profile), name)
        if before != name:
            findings.error(
                ("pools", name, "mig"),
                f"pool `{before}` takes slices {pool.mig.profile} of GPU {pool.mig.gpu} too, and both would "
                "get the same",
                f"{_LIST} in both pools",
            )
        others = ", ".join(f"`{other}`" for other in uuids)
        if others:
            findings.warn(
                ("pools", name, "mig"),
                f"slices of {others} are named by UUID: they may be the ones that this pool finds",
                f"{_LIST} in all pools of slices",
            )


def _check_compute(file: FleetFile, findings: Findings) -> None:
    """All pools together ask a GPU for no more compute slices than it has."""
    wanted: dict[str, int] = {}
    for name, pool in file.pools.items():
        if pool.mig is None:
            continue
        before = wanted.get(pool.mig.gpu, 0)
        wanted[pool.mig.gpu] = before + compute_slices(pool.mig.profile) * pool.mig.count
        if before and before <= MAX_COMPUTE_SLICES < wanted[pool.mig.gpu]:
            findings.error(
                ("pools", name, "mig"),
                f"{wanted[pool.mig.gpu]} compute slices of GPU {pool.mig.gpu} are asked for together, and it "
                f"has {MAX_COMPUTE_SLICES}",
                "ask for fewer, or use another GPU; `tenantry mig plan` says what fits",
            )


def _check_whole_gpus(file: FleetFile, findings: Findings) -> None:
    """A GPU that is divided has no whole to run an engine on."""
    divided = {pool.mig.gpu: name for name, pool in file.pools.items() if pool.mig is not None}
    for name, pool in file.pools.items():
        for index, devices in enumerate(pool.devices):
            for gpu in (device for device in devices.split(",") if device in divided):
                findings.error(
                    ("pools", name, "devices", index),
                    f"GPU {gpu} is divided into slices for pool `{divided[gpu]}`: its whole cannot be used",
                    "use another GPU, or slices of this one",
                )


def _check_dedicated(file: FleetFile, findings: Findings) -> None:
    """A dedicated tenant's slice isolates memory and compute; what else its GPU does is not its own."""
    pools = {name: pool for name, pool in file.pools.items() if pool.strategy is Strategy.MIG}
    for name, pool in pools.items():
        for tenant in pool.tenants:
            section = file.tenants.get(tenant)
            if section is None or section.isolation is not Isolation.DEDICATED:
                continue
            others = [
                f"`{other}`"
                for other, one in pools.items()
                if tenant not in one.tenants and _may_share_gpu(one, pool)
            ]
            if others:
                findings.warn(
                    ("tenants", tenant, "isolation"),
                    f"its MIG slices in pool `{name}` are its own, and their GPU may also serve "
                    f"{', '.join(others)}: memory and compute are isolated; power, clock and PCIe are shared",
                    "give it a GPU of its own, unless that is meant",
                )


def _may_share_gpu(one: PoolSection, other: PoolSection) -> bool:
    """Whose GPU a slice named by its UUID has, no file says."""
    return one.mig is None or other.mig is None or one.mig.gpu == other.mig.gpu
