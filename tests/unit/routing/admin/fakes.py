"""A management without database, store or engines, and the admin API in front of it."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from adapters.states import VersionState
from engines.residency import Fault, FaultKind, Residency
from fleet.diff import Change, Needs
from fleet.tenant_change import TenantChange
from fleet.types import NO_LIMITS, Budget, KeyLimits, Tenant
from fleet.writer import write_fleet
from routing.admin import Books, LiveFeed, admin_app
from routing.admin.uploads import Uploads
from routing.catalog.declared import Identity
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    Alias,
    ApiKey,
    DeclaredKey,
    Event,
    KeyRole,
    Rollout,
    RolloutPlan,
    Version,
)
from routing.catalog.models import ModelEntry, ModelVersion
from routing.catalog.plans import PlanDocument, PlanFigures, PlanKind
from routing.catalog.sources import Remote, Upload, parse_source
from routing.errors import Conflict, NotFound, RequestError, StateUnavailable
from routing.lifecycle.ports import (
    FleetChange,
    FleetState,
    ModelPlace,
    NewVersion,
    PoolRestart,
    ReplicaResidency,
    RestartStep,
    StepState,
    VersionProgress,
)
from routing.lifecycle.tenant_ports import TenantChanged, TenantView, ToldValue, ValueSource
from routing.observing.live import Figures, LiveView
from routing.observing.live.verdict import usual_limit_s
from routing.scheduling.decisions import KEPT
from routing.scheduling.replica_figures import ReplicaFigures, ReplicaState, replica_figures
from routing.scheduling.report import SchedulerReport
from routing.scheduling.state import Engine, Replica
from routing.turns.report import ModelAtHost, ModelState, TurnEvent, TurnsReport, WakeForecast
from routing.types import Request
from routing.usage.budget import Budgets
from routing.usage.query import UsageLine, UsageQuery, line
from tests.fakes import FakeClock, small_fleet

DIGEST = "ab" * 32
READY, QUARANTINED = VersionState.READY, VersionState.QUARANTINED
IDENTITIES = {
    "operator-key": Identity(KeyRole.OPERATOR, None),
    "acme-key": Identity(KeyRole.ADAPTERS, "acme"),
    "globex-key": Identity(KeyRole.ADAPTERS, "globex"),
    "calls-key": Identity(KeyRole.INFERENCE, "acme"),
}


class FakeTenancy:
    """Knows one tenant, and notes what it is asked to do."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self.suspended: set[str] = set()
        self.present = small_fleet()

    def account(self, name: str) -> str:
        return name

    def is_suspended(self, name: str) -> bool:
        return name in self.suspended

    def show(self, name: str) -> TenantView:
        if name != "a":
            raise NotFound(f"There is no tenant `{name}`.", code="tenant_not_found", param="tenant")
        tenant = self.present.tenants[name]
        values = [ToldValue("weight", 2.0, ValueSource.RUN_TIME, 1.0, "key id1", 1.0)]
        return TenantView(name, tenant, True, TenantChange(name, revision=3), values, (), ())

    async def create(self, name: str, values: Mapping[str, Any], **options: Any) -> TenantChanged:
        self._note("create_tenant", name, dict(values), options)
        secret, key = "tnt_secret-key", ApiKey("id1", "tnt_", "5" * 64, KeyRole.INFERENCE, name)
        return self._changed((secret, key) if options["key"] else None)

    async def set(self, name: str, values: Mapping[str, Any], **options: Any) -> TenantChanged:
        self._note("set_tenant", name, dict(values), options)
        return self._changed()

    async def suspend(self, name: str, *, dry_run: bool) -> TenantChanged:
        self._note("suspend_tenant", name, dry_run)
        return self._changed()

    async def resume(self, name: str, *, dry_run: bool) -> TenantChanged:
        self._note("resume_tenant", name, dry_run)
        return self._changed()

    async def remove(self, name: str, **options: Any) -> TenantChanged:
        self._note("remove_tenant", name, options)
        return self._changed()

    def _changed(self, key: tuple[str, ApiKey] | None = None) -> TenantChanged:
        return TenantChanged(self.show("a"), {"weight": (1.0, 2.0)}, ["weight 1 -> 2"], key)


class FakeAliases:
    """Notes what it is asked to do."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note

    def list(self, tenant: str) -> Sequence[Alias]:
        return [Alias(tenant, "chat", "support", 1.0, "key id1")]

    async def put(self, tenant: str, alias: str, model: str) -> Alias:
        self._note("put_alias", tenant, alias, model)
        return Alias(tenant, alias, model, 1.0, "key id1")

    async def remove(self, tenant: str, alias: str) -> Alias:
        self._note("remove_alias", tenant, alias)
        return Alias(tenant, alias, "support", 1.0, "key id1")


class FakeFleets:
    """Takes every document, and remembers what it was asked."""

    def __init__(self) -> None:
        self.state = FleetState(3, 1_700_000_000.0, "key 12345678", "tenants: {}")
        self.asked: list[tuple[Any, ...]] = []
        self.error: RequestError | None = None
        self.changes = [Change("tenants", "acme", "requests_per_minute 60 -> 120", Needs.NOTHING)]
        self.consequences: list[str] = []

    async def apply(
        self, document: bytes, *, actor: str, expected: int | None, dry_run: bool, restart: bool
    ) -> FleetChange:
        """Note it; do it, or raise what it should. With `restart` pool `shared` does."""
        self.asked.append((document, actor, expected, dry_run))
        if self.error is not None:
            raise self.error
        pools = ["shared"] if restart else []
        told = self.consequences
        return FleetChange(self.state, self.changes, (), (), not dry_run, restarts=pools, consequences=told)

    async def export(self) -> str:
        """Write a fleet."""
        return write_fleet(small_fleet(), key_variables={})


class FakePlans:
    """Keeps what it is given, and the words of its events."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self.documents: dict[PlanKind, PlanDocument] = {}
        self.said: list[str] = []

    async def kept(self) -> Mapping[PlanKind, PlanDocument]:
        return self.documents

    async def publish(self, text: str, said: str) -> None:
        self._keep(PlanKind.PLAN, text, said)

    async def look(self, text: str, figures: PlanFigures, said: str) -> None:
        self._keep(PlanKind.LOOK, text, said)

    def _keep(self, kind: PlanKind, text: str, said: str) -> None:
        self._note("keep_plan", kind)
        self.documents[kind] = PlanDocument(kind, 1_700_000_000.0, "key 12345678", text)
        self.said.append(said)


class FakeRestarts:
    """Restarts one pool, `shared`, and tells how that goes."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        steps = [RestartStep("shared-0", StepState.DRAINING, 2), RestartStep("shared-1")]
        self.restart = PoolRestart("shared", "key 12345678", steps, 1_700_000_000.0)
        self.error: RequestError | None = None

    def begin(self, pool: str, *, replica: str | None, drain_s: float | None) -> PoolRestart:
        self.asked.append((pool, replica, drain_s))
        return self.of(pool)

    def of(self, pool: str) -> PoolRestart:
        if self.error is not None:
            raise self.error
        if pool != "shared":
            raise NotFound(f"There is no pool `{pool}`.", code="pool_not_found")
        return self.restart


class FakeWhole:
    """One model that is fetched, `one`, with a version that serves and one that was refused."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self.sent: list[bytes] = []
        self.fetching: VersionProgress | None = None
        source = Remote("https://user:pass@example.com/one.tar?signature=secret")
        self.one = ModelEntry(
            "one",
            "mesh",
            {"max_model_len": 512},
            live=1,
            versions=(
                ModelVersion(1, source, READY, digest=DIGEST, size_bytes=2**20, proven=True),
                ModelVersion(2, source, QUARANTINED, reason="/srv/x/config.json names no architecture"),
            ),
        )

        self.known = {"one": self.one}
        self.becomes = READY  # what is added, at once

    def entries(self) -> Sequence[ModelEntry]:
        return list(self.known.values())

    def entry(self, name: str) -> ModelEntry:
        if name not in self.known:
            raise NotFound(f"The gateway fetches no model `{name}`.", code="model_not_found")
        return self.known[name]

    def progress(self, model: str, number: int) -> VersionProgress | None:
        return self.fetching

    async def add(self, name: str, place: ModelPlace, new: NewVersion) -> ModelEntry:
        if new.upload is not None:
            self.sent.append(await asyncio.to_thread(new.upload.read_bytes))
        self._note("add", name, place, new.source, new.sha256, new.trusted)
        entry = self.known.get(name) or replace(self.one, name=name, versions=())
        reason = "" if self.becomes is READY else "model.safetensors is cut short"
        added = ModelVersion(entry.next_number, Remote("hf://example/new"), self.becomes, reason)
        self.known[name] = entry.with_version(added)
        return self.known[name]

    async def retry(self, name: str, number: int) -> ModelEntry:
        return self._done("retry", name, number)

    async def promote(self, name: str, number: int) -> ModelEntry:
        return self._done("promote", name, number)

    async def rollback(self, name: str) -> ModelEntry:
        return self._done("rollback", name)

    async def retire(self, name: str, number: int | None) -> None:
        self._done("retire", name, number)

    def _done(self, what: str, name: str, *about: Any) -> ModelEntry:
        entry = self.entry(name)
        self._note(what, name, *about)
        return entry


class FakeModels:
    """One model, `one`, awake at one host; what it is told it notes."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: RequestError | None = None
        self.at_host = ModelAtHost(
            *("mesh", "mesh-0", "one", ModelState.AWAKE, 12.34567, 2, 3, 1.5, False, "", 21.5, "cold"),
            took_s={"cold": 21.5},
            memory_bytes=2**30,
            awake_s=60.0,
            reason="",
            resting={"put": "shape mismatch (1x after two)"},
        )
        self.turn = TurnEvent(1_700_000_000.0, "mesh", "mesh-0", "one", "two", "awake", "worth", 21.5, "cold")

    def report(self) -> TurnsReport:
        return TurnsReport((self.at_host,), (self.turn,))

    def forecast(self, model: str) -> list[WakeForecast]:
        self._require(model)
        affected = {"running": 2, "waiting": 0}
        return [WakeForecast(model, "mesh", "mesh-0", "two", 4.0, "it would come now", affected)]

    async def wake(self, model: str) -> list[WakeForecast]:
        self.asked.append(("wake", model))
        return self.forecast(model)

    async def sleep(self, model: str) -> None:
        self._require(model)
        self.asked.append(("sleep", model))

    async def pin(self, model: str, pinned: bool) -> None:
        self._require(model)
        self.asked.append(("pin", model, pinned))

    def _require(self, model: str) -> None:
        if self.error is not None:
            raise self.error
        if model != "one":
            raise NotFound(f"No model `{model}` takes turns.", code="model_not_found")


class FakeManagement:
    """Does at once, in memory, what the real one does over time; knows one base model."""

    def __init__(self) -> None:
        self.entries: dict[AdapterKey, AdapterEntry] = {}
        self.made_keys: list[ApiKey] = []
        self.file_keys: list[DeclaredKey] = []
        self.happened: list[Event] = []  # the newest first
        self.calls: list[tuple[Any, ...]] = []
        self.uploads: list[bytes] = []
        self.steps: deque[tuple[VersionState, str]] = (
            deque()
        )  # of the newest version, one each time it is seen
        self.gone = False  # the database
        self.fetching: VersionProgress | None = None
        self.held = asyncio.Event()  # `add` waits for it
        self.held.set()
        self.asked = asyncio.Event()  # `add` was called
        self.reports: list[ReplicaResidency] = []
        self.scheduled = SchedulerReport(0.0, (), ())
        self.reported = 0  # times it was asked what the scheduler holds
        self.known_tenants: list[Tenant] = []
        self.wanted_events: dict[str, Any] = {}
        self.fleets = FakeFleets()
        self.restarts = FakeRestarts()
        self.models = FakeModels()
        self.whole = FakeWhole(self._note)
        self.plans = FakePlans(self._note)
        self.tenancy = FakeTenancy(self._note)
        self.aliases = FakeAliases(self._note)

    def put(
        self, name: str, tenant: str | None = "acme", *states: VersionState, **changes: Any
    ) -> AdapterKey:
        """Have an adapter with versions in these states; the first one is live."""
        key = AdapterKey(tenant, name)
        versions = tuple(
            Version(i, key, i, Remote("hf://org/x"), state, digest=DIGEST)
            for i, state in enumerate(states or (READY,), start=1)
        )
        settings = {"live": 1, "versions": versions, "declared": tenant is None, **changes}
        self.entries[key] = AdapterEntry(key, "base", **settings)
        return key

    def adapters(self) -> Sequence[AdapterEntry]:
        return list(self.entries.values())

    def adapter(self, key: AdapterKey) -> AdapterEntry:
        entry = self.entries.get(key)
        if entry is None:
            raise NotFound(f"There is no adapter `{key.name}`.", code="adapter_not_found")
        if self.steps:
            state, reason = self.steps.popleft()
            newest = replace(entry.versions[-1], state=state, reason=reason)
            live = newest.number if state is READY and entry.live is None else entry.live
            entry = replace(entry, versions=(*entry.versions[:-1], newest), live=live)
            self.entries[key] = entry
        return entry

    def progress(self, version: Version) -> VersionProgress | None:
        return self.fetching

    async def add(self, key: AdapterKey, base_model: str | None, new: NewVersion) -> Version:
        self._note("add", key, base_model, new)
        self.asked.set()
        await self.held.wait()
        if new.upload is not None:
            self.uploads.append(new.upload.read_bytes())
            new.upload.unlink()
        entry = self.entries.get(key) or AdapterEntry(key, base_model or "base", declared=False)
        number = len(entry.versions) + 1
        source = parse_source(new.source) if new.source else Upload("0123")
        version = Version(number, key, number, source, VersionState.REGISTERED, sha256=new.sha256)
        self.entries[key] = replace(entry, versions=(*entry.versions, version))
        return version

    async def promote(self, key: AdapterKey, number: int | None) -> AdapterEntry:
        self._note("promote", key, number)
        return self._change(key, live=number or 1, rollout=None)

    async def rollback(self, key: AdapterKey) -> AdapterEntry:
        self._note("rollback", key)
        if self.adapter(key).previous is None:
            raise Conflict("There is no version to go back to.", code="no_previous_version")
        return self._change(key, live=self.adapter(key).previous)

    async def rollout(self, key: AdapterKey, number: int, plan: RolloutPlan) -> AdapterEntry:
        self._note("rollout", key, number, plan)
        return self._change(key, rollout=Rollout(number, plan))

    async def pin(self, key: AdapterKey, pinned: bool) -> AdapterEntry:
        self._note("pin", key, pinned)
        return self._change(key, pinned=pinned)

    async def verify(self, key: AdapterKey, number: int) -> Version:
        self._note("verify", key, number)
        version = self.adapter(key).version(number)
        if version is None:
            raise NotFound(f"`{key.name}` has no version {number}.", code="version_not_found")
        return replace(version, state=VersionState.REGISTERED)

    async def retire(self, key: AdapterKey, number: int | None) -> AdapterEntry:
        self._note("retire", key, number)
        versions = tuple(
            replace(v, state=VersionState.RETIRED) if number in (None, v.number) else v
            for v in self.adapter(key).versions
        )
        return self._change(key, versions=versions, live=None if number is None else self.adapter(key).live)

    def tenants(self) -> Sequence[Tenant]:
        return self.known_tenants

    def replicas(self) -> Sequence[ReplicaResidency]:
        return self.reports

    async def set_draining(self, name: str, draining: bool) -> ReplicaResidency:
        for number, known in enumerate(self.reports):
            if known.figures.name == name:
                self._note("set_draining", name, draining)
                state = ReplicaState.DRAINING if draining else ReplicaState.READY
                changed = replace(known.figures, draining=draining, state=state)
                self.reports[number] = replace(known, figures=changed)
                return self.reports[number]
        raise NotFound(f"There is no replica `{name}`.", code="replica_not_found")

    def scheduler(self, decisions: int = KEPT) -> SchedulerReport:
        self.reported += 1
        return replace(self.scheduled, decisions=self.scheduled.decisions[:decisions])

    async def events(self, limit: int, before: int | None, **wanted: Any) -> Sequence[Event]:
        self.wanted_events = wanted
        return [event for event in self.happened if before is None or event.id < before][:limit]

    def declared_keys(self) -> Sequence[DeclaredKey]:
        return self.file_keys

    def keys(self) -> Sequence[ApiKey]:
        return self.made_keys

    async def create_key(
        self,
        role: KeyRole,
        tenant: str | None,
        *,
        note: str,
        expires_s: float | None,
        limits: KeyLimits | None = None,
    ) -> tuple[str, ApiKey]:
        self._note("create_key", role, tenant)
        key = ApiKey("id1", "tnt_secret-", "5" * 64, role, tenant, note, 1.0, expires_s, limits=limits)
        self.made_keys.append(key)
        return "tnt_secret-key", key

    async def set_key_limits(self, key_id: str, limits: Mapping[str, int | None]) -> ApiKey:
        self._note("set_key_limits", key_id, limits)
        for index, key in enumerate(self.made_keys):
            if key.id == key_id:
                changed = replace(key.limits or NO_LIMITS, **limits)
                self.made_keys[index] = replace(key, limits=changed)
                return self.made_keys[index]
        raise NotFound("There is no such key.", code="key_not_found")

    async def revoke_key(self, key_id: str) -> ApiKey:
        self._note("revoke_key", key_id)
        for key in self.made_keys:
            if key.id == key_id:
                return replace(key, revoked_s=2.0)
        raise NotFound("There is no such key.", code="key_not_found")

    def _note(self, *call: Any) -> None:
        if self.gone:
            raise StateUnavailable("The state database does not answer.", retry_after_s=5.0)
        self.calls.append(call)

    def _change(self, key: AdapterKey, **changes: Any) -> AdapterEntry:
        self.entries[key] = replace(self.adapter(key), **changes)
        return self.entries[key]


def report(name: str = "shared-0", **residency: Any) -> ReplicaResidency:
    """A replica that holds version 1 of acme's adapter `support` in a slot."""
    held = Residency(
        "w",
        1,
        7,
        slots=("acme/support@" + DIGEST[:16],),
        host=("acme/support@" + DIGEST[:16], "globex/other@0123"),
        faults=(("globex/other@0123", Fault(FaultKind.LOAD, 2, "/srv/state/adapters/01/0123/x: broken")),),
    )
    return ReplicaResidency(
        pool="shared",
        figures=figures(name),
        leases={"acme/support@" + DIGEST[:16]: 3},
        residency=replace(held, **residency),
    )


def figures(name: str = "shared-0", *, draining: bool = False, **engine: Any) -> ReplicaFigures:
    """The figures of a replica whose engine is ready, unless `engine` says otherwise of it."""
    values = {"base_model": "base", "slots": 4, "max_sequences": 8, "sequences": 3, "ready": True, **engine}
    return replica_figures(Replica(name, "shared", Engine(name, **values), draining).engine)


class Watched:
    """A live feed over a management, with a clock and figures of its own."""

    def __init__(self, management: FakeManagement, **options: Any) -> None:
        self.management = management
        self.clock = FakeClock()
        self.figures = Figures(self.clock.now, usual_limit_s)
        self.queue: list[tuple[Request, str | None]] = []
        view = LiveView(
            self.figures,
            scheduler=management.scheduler,
            residencies=lambda: {each.figures.name: each.residency for each in management.replicas()},
            queue=lambda: self.queue,
            clock=self.clock,
        )
        options = {"tick_s": 0.01, **options}
        self.feed = LiveFeed(view, clock=self.clock, unix_time=lambda: 1.0e9 + self.clock.now, **options)


class FakeBook:
    """A usage ledger that says what it was told to say."""

    def __init__(self) -> None:
        self.budgets = Budgets({"acme": Budget(1000)})
        self.key_budgets = Budgets({"limited": Budget(500)})
        self.values: list[tuple[Any, ...]] = []  # of each line: dimensions, then measures
        self.asked: list[UsageQuery] = []
        self.gone = False

    async def sums(self, query: UsageQuery) -> list[UsageLine]:
        if self.gone:
            raise StateUnavailable("gone", retry_after_s=5.0)
        self.asked.append(query)
        return [line(query.group_by, values) for values in self.values]


class FakeBatches:
    """Batches of two tenants."""

    async def progress(self, account: str | None, limit: int) -> list[dict[str, Any]]:
        told = [batch_of(tenant) for tenant in ("acme", "globex") if account in (None, tenant)]
        return told[:limit]


def batch_of(tenant: str) -> dict[str, Any]:
    """A batch, as clients see it, with its tenant."""
    return {
        "id": f"batch_of_{tenant}",
        "tenant": tenant,
        "endpoint": "/v1/chat/completions",
        "status": "in_progress",
        "created_at": 1_000_000_000,
        "expires_at": 1_000_086_400,
        "errors": None,
        "request_counts": {"total": 5, "completed": 2, "failed": 1},
    }


@dataclass
class Desk:
    """The admin API, and whatever is behind it."""

    app: FastAPI
    management: FakeManagement
    folder: Path
    watched: Watched
    book: FakeBook

    async def ask(
        self, method: str, path: str, payload: Any = None, *, key: str | None = "acme-key", **options: Any
    ) -> httpx.Response:
        """Send one request; JSON if there is a payload."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        if payload is not None:
            options["json"] = payload
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, headers=headers, **options)

    async def upload(
        self,
        body: bytes | AsyncIterator[bytes],
        path: str = "/admin/v1/adapters/support/versions",
        **options: Any,
    ) -> httpx.Response:
        """Send an archive."""
        headers = {"content-type": "application/x-tar"} | options.pop("headers", {})
        return await self.ask("POST", path, headers=headers, content=body, **options)

    @property
    def left_over(self) -> list[Path]:
        """Files that lie in the upload folder."""
        return list(self.folder.glob("**/*")) if self.folder.exists() else []


def desk(
    folder: Path,
    *,
    max_upload_bytes: int = 1000,
    read_timeout_s: float = 5.0,
    load_timeout_s: float = 5.0,
    tenants: Collection[str] = ("acme", "globex"),
) -> Desk:
    """An admin API for these tenants."""
    management = FakeManagement()
    app = _app(read_timeout_s)
    watched, book = Watched(management), FakeBook()
    uploads = Uploads(folder / "uploads", max_bytes=max_upload_bytes, read_timeout_s=read_timeout_s)
    app.state.services = replace(
        app.state.services,
        management=management,
        tenants=lambda: tenants,
        uploads=uploads,
        model_uploads=uploads,
        load_timeout_s=load_timeout_s,
        live=watched.feed,
        ledger=book,
        registering=set(),
    )
    return Desk(app, management, folder / "uploads", watched, book)


@functools.cache  # building the routes takes longer than any of the tests
def _app(read_timeout_s: float) -> FastAPI:
    management = FakeManagement()
    return admin_app(
        management,
        lambda key, _: IDENTITIES.get(key or ""),
        uploads=Uploads(Path("replaced"), max_bytes=1),
        model_uploads=Uploads(Path("replaced"), max_bytes=1),
        live_feed=Watched(management).feed,
        books=Books(FakeBook(), FakeBatches()),
        read_timeout_s=read_timeout_s,
    )


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error object of an answer, which must have OpenAI's shape and nothing beside it."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error
