"""The calls behind the admin API: operations on adapters, keys and replicas at run time.

`lifecycle` implements them. Every change to adapters and keys is on disk in the state database when a call
returns. Calls raise `RequestError`: `NotFound` (404) for a thing that does not exist or is another tenant's,
`Conflict` (409) where the current state forbids the call, `InvalidRequest` (400) for a call that is wrong in
itself, `StateUnavailable` (503) while the database does not answer; serving goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from engines.residency import Residency
from fleet.diff import Change
from fleet.problems import Problem
from fleet.types import KeyLimits, Tenant
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    ApiKey,
    DeclaredKey,
    Event,
    KeyRole,
    RolloutPlan,
    Version,
)
from routing.catalog.models import ModelEntry
from routing.catalog.plans import PlanDocument, PlanFigures, PlanKind
from routing.lifecycle.tenant_ports import AliasManagement, TenantManagement
from routing.scheduling.decisions import KEPT
from routing.scheduling.replica_figures import ReplicaFigures
from routing.scheduling.report import SchedulerReport
from routing.turns.report import TurnsReport, WakeForecast


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The request to register a version. Exactly one of `source` and `upload` is given."""

    source: str | None = None  # URL or, for operators, a folder of the gateway's machine
    upload: Path | None = None  # a received archive; the call takes it over and removes it
    sha256: str | None = None  # promised, in hex
    rollout: RolloutPlan | None = None  # None: takes over all traffic as soon as it is ready
    trusted: bool = False  # requested by an operator: any source is allowed


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where a whole model is to serve, and how; of a known one nothing is said."""

    pool: str | None = None  # None: the only one whose models take turns
    like: str | None = None  # a base model of the fleet, whose settings it gets where `values` has none
    values: Mapping[str, Any] = field(default_factory=dict)  # settings, as an entry of `base_models` has them


@dataclass(frozen=True, slots=True)
class VersionProgress:
    """The progress of a version's fetch."""

    done_bytes: int
    total_bytes: int | None  # None: the source does not tell


@dataclass(frozen=True, slots=True)
class FleetState:
    """The fleet that counts, and where it comes from."""

    revision: int
    at_s: float  # Unix time at which it came into force
    actor: str
    document: str


@dataclass(frozen=True, slots=True)
class FleetChange:
    """What applying a document has done, or would do."""

    state: FleetState
    changes: Sequence[Change]
    reasons: Sequence[str]  # why it would be refused; only of a dry run
    warnings: Sequence[Problem]
    applied: bool
    restarts: Sequence[str] = ()  # pools that restart, or would, one after the other
    consequences: Sequence[str] = ()  # for what was made at run time


@dataclass(frozen=True, slots=True)
class ReplicaResidency:
    """One replica, and the adapters in it."""

    pool: str
    figures: ReplicaFigures
    leases: dict[str, int]  # adapter id -> sequences in flight
    residency: Residency | None  # None: it has not answered yet


class StepState(StrEnum):
    """How far the restart of one replica is."""

    WAITING = "waiting"  # for its turn
    DRAINING = "draining"  # what it runs ends
    RESTARTING = "restarting"  # its engine ends, and another one starts
    DONE = "done"
    KEPT = "kept"  # it ran with the wanted settings already
    FAILED = "failed"
    LEFT = "left"  # it takes part no more


class RestartState(StrEnum):
    """How the restart of a pool stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # a replica did not come back; those after it were not touched
    CANCELLED = "cancelled"  # the gateway shut down, or a pool before it failed


@dataclass(slots=True)
class RestartStep:
    """The restart of one replica."""

    replica: str
    state: StepState = StepState.WAITING
    in_flight: int = 0  # sequences that it still runs
    reason: str = ""  # why it failed


@dataclass(slots=True)
class PoolRestart:
    """The restart of a pool's replicas, one after the other."""

    pool: str
    actor: str
    steps: Sequence[RestartStep]
    began_s: float  # Unix time
    state: RestartState = RestartState.RUNNING
    ended_s: float | None = None


class Restarts(Protocol):
    """Restarts engines pool by pool."""

    def begin(self, pool: str, *, replica: str | None, drain_s: float | None) -> PoolRestart:
        """Begin to restart a pool's replicas, or one of them. Raises `NotFound` and `Conflict`."""

    def of(self, pool: str) -> PoolRestart:
        """Return a pool's last restart. Raises `NotFound` where there was none since the gateway started."""


class Fleets(Protocol):
    """The fleet that counts, and the way to replace it."""

    state: FleetState

    async def apply(
        self, document: bytes, *, actor: str, expected: int | None, dry_run: bool, restart: bool
    ) -> FleetChange:
        """Replace the fleet by a document's. Raises `Conflict` and `InvalidRequest` with every reason.

        With `restart`, pools whose engines run with other settings restart once the fleet counts.
        """

    async def export(self) -> str:
        """Write the present fleet as a fleet file."""


class ModelManagement(Protocol):
    """The calls on whole models that take turns. Each raises `NotFound` where a model takes none."""

    def report(self) -> TurnsReport:
        """Copy the state of every model at every host, and the timeline."""

    def forecast(self, model: str) -> Sequence[WakeForecast]:
        """Say what waking a model would do, pool by pool. Raises as `wake` does."""

    async def wake(self, model: str) -> Sequence[WakeForecast]:
        """Have a model come awake, before those that only wait. Raises `Conflict` where all is drained."""

    async def sleep(self, model: str) -> None:
        """Have a model go to disk once what it runs has ended. Raises `Conflict` for a pinned one."""

    async def pin(self, model: str, pinned: bool) -> None:
        """Keep a model awake, or let it take turns. Raises `Conflict` where the others had no place then."""


class WholeManagement(Protocol):
    """Whole models that the gateway fetches. Each call raises `NotFound` for one that it does not fetch."""

    def entries(self) -> Sequence[ModelEntry]:
        """List them by name."""

    def entry(self, name: str) -> ModelEntry:
        """Return one model."""

    def progress(self, model: str, number: int) -> VersionProgress | None:
        """Return how far the fetch of a version is; None: none is running."""

    async def add(self, name: str, place: ModelPlace, new: NewVersion) -> ModelEntry:
        """Add a version, and the model if it is new; returns at once, the work goes on after.

        Raises `Conflict`, `Forbidden` and `InvalidRequest`.
        """

    async def retry(self, name: str, number: int) -> ModelEntry:
        """Fetch, check and try a quarantined version again. Raises `Conflict`."""

    async def promote(self, name: str, number: int) -> ModelEntry:
        """Have engines start with a version from now on. Raises `Conflict`."""

    async def rollback(self, name: str) -> ModelEntry:
        """Go back to the version before the live one. Raises `Conflict`."""

    async def retire(self, name: str, number: int | None) -> None:
        """Retire a version that does not serve, or a model with all of them. Raises `Conflict`."""


class PlanManagement(Protocol):
    """Plans that were made elsewhere. Each call raises `StateUnavailable`."""

    async def kept(self) -> Mapping[PlanKind, PlanDocument]:
        """Return the plan that was published last, and the last look at it, where they are there."""

    async def publish(self, text: str, said: str) -> None:
        """Keep a plan, JSON, in the place of the one before; `said` is what the event says."""

    async def look(self, text: str, figures: PlanFigures, said: str) -> None:
        """Keep a look, JSON, in the place of the one before; where its advice changes, `said` is an event."""


class Management(Protocol):
    """The fleet, adapters, keys and replicas, as the admin API works on them; tenants and aliases beside."""

    @property
    def fleets(self) -> Fleets:
        """What replaces the fleet."""

    @property
    def restarts(self) -> Restarts:
        """What restarts engines."""

    @property
    def models(self) -> ModelManagement:
        """The calls on whole models that take turns."""

    @property
    def whole(self) -> WholeManagement:
        """The calls on whole models that the gateway fetches."""

    @property
    def plans(self) -> PlanManagement:
        """What was planned for this fleet."""

    @property
    def tenancy(self) -> TenantManagement:
        """The calls on tenants."""

    @property
    def aliases(self) -> AliasManagement:
        """The calls on tenants' own aliases."""

    def adapters(self) -> Sequence[AdapterEntry]:
        """List every adapter, by key."""

    def adapter(self, key: AdapterKey) -> AdapterEntry:
        """Return one adapter. Raises `NotFound`."""

    def progress(self, version: Version) -> VersionProgress | None:
        """Return the progress of the fetch; None if none is running."""

    async def add(self, key: AdapterKey, base_model: str | None, new: NewVersion) -> Version:
        """Register a version, and the adapter if it is new; returns at once, the work goes on after.

        `base_model` may be left out for a known adapter, or where the tenant has only one with slots.
        """

    async def promote(self, key: AdapterKey, number: int | None) -> AdapterEntry:
        """Let a version answer all requests; without a number the rollout's candidate."""

    async def rollback(self, key: AdapterKey) -> AdapterEntry:
        """End a rollout in favour of the live version; without one, go back to the previous version."""

    async def rollout(self, key: AdapterKey, number: int, plan: RolloutPlan) -> AdapterEntry:
        """Send a part of the traffic to a ready version."""

    async def pin(self, key: AdapterKey, pinned: bool) -> AdapterEntry:
        """Keep the live version in a slot of every replica of its pools, or stop doing so."""

    async def verify(self, key: AdapterKey, number: int) -> Version:
        """Verify a quarantined version again, from the beginning."""

    async def retire(self, key: AdapterKey, number: int | None) -> AdapterEntry:
        """Take a version, or all of an adapter, out of traffic; running requests end on their version."""

    def tenants(self) -> Sequence[Tenant]:
        """List the fleet's tenants."""

    def replicas(self) -> Sequence[ReplicaResidency]:
        """List every replica with its resident adapters."""

    async def set_draining(self, name: str, draining: bool) -> ReplicaResidency:
        """Give a replica no new work, or work again; running requests continue. Raises `NotFound`.

        Not kept in the database: a gateway that starts anew gives work to every replica.
        """

    def scheduler(self, decisions: int = KEPT) -> SchedulerReport:
        """Copy the scheduler's state, with its last decisions, at most this number."""

    async def events(
        self,
        limit: int,
        before: int | None,
        *,
        tenant: str | None = None,
        since_s: float | None = None,
        former: bool = False,
    ) -> Sequence[Event]:
        """List events, the newest first; `before` is the id of the last one seen.

        Of a tenant they are those of the present one; `former`: of all that had its name.
        """

    def declared_keys(self) -> Sequence[DeclaredKey]:
        """List the keys of fleet.yaml: operators' first, then by tenant."""

    def keys(self) -> Sequence[ApiKey]:
        """List the keys made at run time, revoked and expired ones too."""

    async def create_key(
        self,
        role: KeyRole,
        tenant: str | None,
        *,
        note: str,
        expires_s: float | None,
        limits: KeyLimits | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key; returns it, for the only time, with its record. `expires_s` is Unix time."""

    async def set_key_limits(self, key_id: str, limits: Mapping[str, int | None]) -> ApiKey:
        """Replace limits of a key, by their names; None takes one away. Raises `NotFound` and `Conflict`."""

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key at once. Raises `NotFound`."""
