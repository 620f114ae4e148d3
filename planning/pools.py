"""A division as pools of a fleet: base models with their engines' settings, pools, and who is where. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fleet.pool_settings import ResidencySettings
from fleet.types import BaseModel, Pool, Slo, Strategy
from planning.loads import HOST_PLACES, MOST_SEQUENCES, Load
from planning.sharing import Sharing

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as --max-lora-rank
QUARTER_GIB = 2**28


def base_models_of(
    sharings: Iterable[Sharing], today: Mapping[str, BaseModel] | None = None
) -> dict[str, BaseModel]:
    """Return a division's base models, with what all its engines need; today's other settings stay."""
    loads: dict[str, list[tuple[Load, Sharing]]] = defaultdict(list)
    for sharing in sharings:
        for load in sharing.loads:
            loads[load.unit.base.name].append((load, sharing))
    return {name: _base_model(name, found, (today or {}).get(name)) for name, found in sorted(loads.items())}


def _base_model(name: str, found: Sequence[tuple[Load, Sharing]], today: BaseModel | None) -> BaseModel:
    model = found[0][0].unit.base
    made = today or BaseModel(name, model.source, max_model_len=model.max_model_len)
    slots = max(load.slots for load, _ in found)
    rank = max(load.unit.most_rank for load, _ in found)
    places = max(min(HOST_PLACES, len(load.unit.adapters)) for load, _ in found)
    return replace(
        made,
        max_loras=slots,
        max_lora_rank=rank_for(rank) if slots else made.max_lora_rank,
        max_cpu_loras=max(slots, places) if slots else 0,
        max_num_seqs=min(made.max_num_seqs, MOST_SEQUENCES),
        tensor_parallel_size=model.tensor_parallel,
        # Beside others each engine takes its part; alone, vLLM uses what the device has.
        kv_cache_bytes=_cache_bytes(found) or made.kv_cache_bytes,
    )


def _cache_bytes(found: Sequence[tuple[Load, Sharing]]) -> int:
    """Return a model's cache on each of its devices: what fits wherever it shares one; 0: it never does."""
    room = [sharing.cache_tokens(load) for load, sharing in found if len(sharing.loads) > 1]
    if not room:
        return 0
    per_token = found[0][0].unit.base.kv_bytes_per_token / found[0][0].devices
    need = math.ceil(max(load.kv_tokens for load, _ in found) * per_token / QUARTER_GIB)
    return max(need, int(min(room) * per_token / QUARTER_GIB)) * QUARTER_GIB


def rank_for(rank: int) -> int:
    """Return the least `max_lora_rank` for adapters of this rank."""
    return next((allowed for allowed in RANKS if allowed >= rank), RANKS[-1])


def pool_of(sharing: Sharing, name: str, tenants: Sequence[str]) -> Pool:
    """Return the pool of a sharing, its devices still to be said."""
    models = tuple(sorted(load.unit.base.name for load in sharing.loads))
    turns = sharing.strategy is Strategy.MODEL_MESH
    return Pool(
        name,
        sharing.strategy,
        models,
        sharing.hosts,
        (),
        tuple(tenants),
        Slo(ttft_s=objective_of(sharing)),
        awake=sharing.awake if turns else None,
        residency=residency_of(sharing),
        sleep=sharing.takes_turns and sharing.switches.sleeps,
    )


def objective_of(sharing: Sharing) -> float | None:
    """Return the objective of a pool: the loosest of its models', where all have one.

    A pool has one objective, and what would miss it is refused: the tightest would refuse too much.
    """
    found = [demand.ttft_s for load in sharing.loads for demand in load.unit.demands]
    return None if None in found else max((s for s in found if s is not None), default=None)


def residency_of(sharing: Sharing) -> ResidencySettings:
    """Return who is awake always and first."""
    if not sharing.strategy.shares_hosts:
        return ResidencySettings()
    free = sorted(
        (load for load in sharing.loads if load.unit.base.name not in sharing.pinned),
        key=lambda load: load.rate_per_s,
        reverse=True,
    )
    room = sharing.awake - len(sharing.pinned)
    first = tuple(load.unit.base.name for load in free[:room])
    return ResidencySettings(preload=first, pinned=sharing.pinned)
