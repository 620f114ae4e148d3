"""Which adapters would engines with other settings hold no more? Pure.

Where its base model or its pool goes, an adapter is kept and answers nothing: `consequences` tells that.
"""

from __future__ import annotations

from collections.abc import Iterable

from adapters.states import VersionState
from fleet.types import Fleet
from routing.catalog.entries import AdapterEntry, AdapterKey


def misfits(entries: Iterable[AdapterEntry], before: Fleet, after: Fleet) -> dict[AdapterKey, str]:
    """Say of each adapter that engines hold with one fleet why they would not with the other."""
    found = {entry.key: _why(entry, after) for entry in entries if not _why(entry, before)}
    return {key: f"adapter {key}: {why}" for key, why in found.items() if why}


def _why(entry: AdapterEntry, fleet: Fleet) -> str:
    name = entry.base_model
    if entry.declared:
        declared = fleet.adapters.get(entry.key.name)
        if declared is None:
            return ""  # it is retired together with the declaration
        name = declared.base_model
    model = fleet.base_models.get(name)
    ranks = (version.rank or 0 for version in entry.versions if version.state is VersionState.READY)
    rank = max(ranks, default=0)
    if model is None or entry.is_retired or not rank:
        return ""
    if not model.serves_adapters:
        return f"base model `{name}` would have no slots, and its requests would wait in vain"
    if rank > model.max_lora_rank:
        return f"it has rank {rank}, and max_lora_rank of `{name}` would be {model.max_lora_rank}"
    return ""
