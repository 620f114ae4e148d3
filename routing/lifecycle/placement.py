"""Which versions should an engine be able to serve, and which files may be deleted? Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from adapters.states import VersionState
from engines.residency import EngineAdapter
from routing.catalog.entries import AdapterEntry, Version


@dataclass(frozen=True, slots=True)
class Wanted:
    """Inputs of placement beyond the catalog itself."""

    on_trial: Collection[int]  # database ids of stored versions that an engine has to try
    in_use: Callable[[str], bool]  # adapter id -> a request for it waits or runs
    last_used_s: Mapping[str, float]  # adapter id -> its last use


def desired_adapters(entries: Iterable[AdapterEntry], wanted: Wanted) -> tuple[EngineAdapter, ...]:
    """List the adapters for the engines of one pool and base model; pinned first, then by last use.

    `entries` are the adapters of that pool and base model. A retired version stays while requests use it.
    """
    places: dict[str, tuple[bool, float, EngineAdapter]] = {}
    for entry in entries:
        for version in entry.versions:
            if not should_serve(version, wanted):
                continue
            live = version.number == entry.live
            adapter = EngineAdapter(
                version.engine_id,
                version.digest or "",
                pinned=live and entry.pinned,
                size_bytes=version.size_bytes,
            )
            used_s = wanted.last_used_s.get(adapter.id, 1.0 if live else 0.0)
            before = places.get(adapter.id)
            if before is None or adapter.pinned > before[0]:  # the same content under two numbers
                places[adapter.id] = adapter.pinned, used_s, adapter
    ranked = sorted(places.values(), key=lambda place: (not place[0], -place[1], place[2].id))
    return tuple(adapter for _, _, adapter in ranked)


def should_serve(version: Version, wanted: Wanted) -> bool:
    """Whether engines must be able to serve a version."""
    if version.digest is None:
        return False
    if version.state is VersionState.READY or version.id in wanted.on_trial:
        return True
    return version.state is VersionState.RETIRED and wanted.in_use(version.engine_id)


def surplus_versions(entry: AdapterEntry, keep: int) -> list[Version]:
    """List ready versions that do not answer, beyond the `keep` newest; oldest first."""
    used = {entry.live, entry.previous} | ({entry.rollout.candidate} if entry.rollout else set())
    idle = [v for v in entry.versions if v.state is VersionState.READY and v.number not in used]
    return idle[: max(0, len(idle) - keep)]


def kept_digests(entries: Iterable[AdapterEntry], *, quarantined: bool = True) -> set[str]:
    """Digests whose files must stay: those of every version that is not retired.

    Those of quarantined versions are only kept so that they can be verified again, and may make room.
    """
    gone = {VersionState.RETIRED} if quarantined else {VersionState.RETIRED, VersionState.QUARANTINED}
    return {
        version.digest
        for entry in entries
        for version in entry.versions
        if version.digest is not None and version.state not in gone
    }
