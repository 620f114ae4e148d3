"""The admin API's answers about adapters, versions, replicas, keys and events; pure.

No key and no hash of one, no folder of any machine, nothing of a URL that could be a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, Field

from adapters.states import VersionState
from engines.residency import Residency
from routing.catalog.entries import (
    AdapterEntry,
    Event,
    Rollout,
    Version,
    without_folders,
)
from routing.catalog.sources import Remote, Source, Upload
from routing.lifecycle.ports import Management, ReplicaResidency
from routing.scheduling.figure import figure, same_as
from routing.scheduling.replica_figures import ReplicaFigures, ReplicaState


class Progress(BaseModel):
    """How far the fetch is."""

    done_bytes: int
    total_bytes: int | None = Field(description="null: the source does not say.")


class Resident(BaseModel):
    """Where a version is held now."""

    replica: str = Field(examples=["shared-0"])
    place: Literal["slot", "host"] = Field(description="A slot of the GPU, or the host's memory.")
    pinned: bool
    draining: bool = Field(description="On its way out; running requests end first.")
    in_flight: int = Field(description="Sequences it generates there.")


class VersionAnswer(BaseModel):
    """One immutable content of an adapter."""

    tenant: str | None = Field(description="null: declared in fleet.yaml.", examples=["example"])
    adapter: str = Field(examples=["support"])
    number: int = Field(examples=[2])
    state: VersionState
    reason: str = Field(description="Why it is quarantined, or what the last attempt met.")
    source: str = Field(
        description="A URL, or `upload`, or `folder`.", examples=["hf://example/support-lora"]
    )
    sha256: str | None = Field(description="What was promised when it was registered.")
    digest: str | None = Field(description="sha256 over its files, once they are here.")
    rank: int | None
    size_bytes: int
    created_at: int = Field(description="Unix time.")
    traffic: float = Field(description="Part of the adapter's requests it answers, 0..1.", examples=[0.1])
    progress: Progress | None = Field(description="How far the fetch is, while there is one.")


class VersionDetail(VersionAnswer):
    """One version, and where it is."""

    resident: list[Resident]


class RolloutAnswer(BaseModel):
    """A split of the traffic between the live version and a candidate."""

    candidate: int = Field(description="Number of the version that is tried.", examples=[2])
    weight: float = Field(examples=[0.1])
    min_requests: int
    promote_after: int | None
    max_error_rise: float
    max_empty_rise: float
    max_latency_ratio: float


class AdapterSummary(BaseModel):
    """An adapter, as lists show it."""

    tenant: str | None = Field(description="null: declared in fleet.yaml.", examples=["example"])
    name: str = Field(examples=["support"])
    base_model: str = Field(examples=["llama-3-8b"])
    declared: bool = Field(description="In fleet.yaml, and changed there.")
    pinned: bool = Field(description="Holds a slot of every replica it may be on.")
    state: VersionState | None = Field(
        description="ready where a version answers, else the newest version's; null without versions."
    )
    live: int | None = Field(description="Number of the version that answers.", examples=[1])
    previous: int | None = Field(description="Where a rollback goes.")
    rollout: RolloutAnswer | None
    newest: int | None = Field(description="Number of the newest version.", examples=[2])
    newest_state: VersionState | None = Field(
        description="State of that one, whichever answers; null without versions."
    )


class AdapterAnswer(AdapterSummary):
    """An adapter with all its versions."""

    versions: list[VersionDetail]


class AdapterList(BaseModel):
    """A page of adapters."""

    object: Literal["list"] = "list"
    data: list[AdapterSummary]
    next: str | None = Field(description="`after` of the next page; null: this is the last.")


class Fault(BaseModel):
    """How an adapter failed in an engine."""

    adapter: str
    kind: str = Field(description="load or crash.")
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaAnswer:
    """One replica, and what is resident in it. Adapters are named as engines know them."""

    name: str = same_as(ReplicaFigures, "name")
    pool: str = figure(example="shared")
    base_model: str = same_as(ReplicaFigures, "base_model")
    ready: bool = same_as(ReplicaFigures, "ready")
    state: ReplicaState = same_as(ReplicaFigures, "state")
    reason: str = same_as(ReplicaFigures, "reason")
    outdated: bool = same_as(ReplicaFigures, "outdated")
    slots: int = same_as(ReplicaFigures, "slots")
    in_flight: int = same_as(ReplicaFigures, "sequences")
    leases: dict[str, int] = figure("Sequences in flight, by adapter.")
    answered: bool = figure("Whether its engine has said what it holds.")
    engine_starts: int = figure("Engines its worker has started.")
    in_slots: tuple[str, ...] = figure("In the engine's slots.")
    in_host: tuple[str, ...] = figure("In host memory, those in slots included.")
    pinned: tuple[str, ...] = figure("Adapters that hold a slot whether they run or not.")
    draining: tuple[str, ...] = figure("Adapters on their way out; running requests end first.")
    faults: list[Fault] = figure("How adapters failed in its engine.")


class ReplicaList(BaseModel):
    """Every replica."""

    object: Literal["list"] = "list"
    data: list[ReplicaAnswer]


class EventAnswer(BaseModel):
    """Something that happened."""

    id: int = Field(description="Grows with time.")
    at: float = Field(description="Unix time, s.")
    actor: str
    subject: str = Field(
        description="A tenant, an adapter, a version of one, a key, a replica, or `fleet`.",
        examples=["example/support@2"],
    )
    text: str
    tenant: str | None = Field(
        description="Its account: the name, and the generation where others had it before; null: nobody's."
    )
    changes: dict[str, list[Any]] = Field(description="Path -> before, after; of tenants and aliases.")


class EventList(BaseModel):
    """Events, the newest first."""

    object: Literal["list"] = "list"
    data: list[EventAnswer]


def version_answer(entry: AdapterEntry, version: Version, management: Management) -> VersionAnswer:
    """Describe a version."""
    progress = management.progress(version)
    return VersionAnswer(
        tenant=version.adapter.tenant,
        adapter=version.adapter.name,
        number=version.number,
        state=version.state,
        reason=without_folders(version.reason),
        source=shown_source(version.source),
        sha256=version.sha256,
        digest=version.digest,
        rank=version.rank,
        size_bytes=version.size_bytes,
        created_at=int(version.created_s),
        traffic=_traffic(entry, version),
        progress=progress and Progress(done_bytes=progress.done_bytes, total_bytes=progress.total_bytes),
    )


def version_detail(
    entry: AdapterEntry, version: Version, management: Management, replicas: Sequence[ReplicaResidency]
) -> VersionDetail:
    """Describe a version and where it is resident."""
    answer = version_answer(entry, version, management)
    places = (_resident(version, replica) for replica in replicas)
    return VersionDetail(**answer.model_dump(), resident=[place for place in places if place is not None])


def adapter_summary(entry: AdapterEntry) -> AdapterSummary:
    """Describe an adapter in short."""
    newest = entry.versions[-1] if entry.versions else None
    answers = any(version.number == entry.live for version in entry.serving)
    return AdapterSummary(
        tenant=entry.key.tenant,
        name=entry.key.name,
        base_model=entry.base_model,
        declared=entry.declared,
        pinned=entry.pinned,
        state=VersionState.READY if answers else newest and newest.state,
        live=entry.live,
        previous=entry.previous,
        rollout=entry.rollout and _rollout(entry.rollout),
        newest=newest and newest.number,
        newest_state=newest and newest.state,
    )


def adapter_answer(entry: AdapterEntry, management: Management) -> AdapterAnswer:
    """Describe an adapter with all its versions."""
    replicas = management.replicas()
    versions = [version_detail(entry, version, management, replicas) for version in entry.versions]
    return AdapterAnswer(**adapter_summary(entry).model_dump(), versions=versions)


_SHOWN = ("name", "base_model", "ready", "state", "reason", "outdated", "slots")


def replica_answer(report: ReplicaResidency) -> ReplicaAnswer:
    """Describe a replica."""
    figures, residency = report.figures.by_name(), report.residency or Residency("", 0, 0)
    return ReplicaAnswer(
        **{name: figures[name] for name in _SHOWN},
        pool=report.pool,
        in_flight=report.figures.sequences,
        leases=report.leases,
        answered=report.residency is not None,
        engine_starts=residency.engine_starts,
        in_slots=residency.slots,
        in_host=residency.host,
        pinned=residency.pinned,
        draining=residency.draining,
        faults=[
            Fault(adapter=name, kind=fault.kind, count=fault.count, reason=without_folders(fault.reason))
            for name, fault in residency.faults
        ],
    )


def shown_source(source: Source) -> str:
    """Say where a version came from, without user, password, signature or folder."""
    if not isinstance(source, Remote):
        return "upload" if isinstance(source, Upload) else "folder"
    parts = urlsplit(source.url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _resident(version: Version, replica: ReplicaResidency) -> Resident | None:
    residency = replica.residency
    if version.digest is None or residency is None:
        return None
    name = version.engine_id
    if name not in residency.slots and name not in residency.host:
        return None
    return Resident(
        replica=replica.figures.name,
        place="slot" if name in residency.slots else "host",
        pinned=name in residency.pinned,
        draining=name in residency.draining,
        in_flight=replica.leases.get(name, 0),
    )


def _traffic(entry: AdapterEntry, version: Version) -> float:
    """Part of the requests that the version answers; as `AdapterEntry.choose` splits them."""
    serving = {v.number for v in entry.serving}
    rollout = entry.rollout if entry.rollout and entry.rollout.candidate in serving else None
    if version.number not in serving:
        return 0.0
    if rollout is not None and version.number == rollout.candidate:
        return rollout.plan.weight
    return 1.0 - (rollout.plan.weight if rollout else 0.0)


def _rollout(rollout: Rollout) -> RolloutAnswer:
    plan = rollout.plan
    return RolloutAnswer(
        candidate=rollout.candidate,
        weight=plan.weight,
        min_requests=plan.min_requests,
        promote_after=plan.promote_after,
        max_error_rise=plan.max_error_rise,
        max_empty_rise=plan.max_empty_rise,
        max_latency_ratio=plan.max_latency_ratio,
    )


def event_answer(event: Event) -> EventAnswer:
    """Show an event, with its text cut as reasons are."""
    return EventAnswer(
        id=event.id,
        at=event.at_s,
        actor=event.actor,
        subject=event.subject,
        text=without_folders(event.text),
        tenant=event.tenant,
        changes={path: list(pair) for path, pair in event.changes.items()},
    )
