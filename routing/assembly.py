"""The parts of one gateway: built in order, each from those before it; then started, drained and stopped.

Building opens no connection and begins no task: that needs an event loop, and `Gateway.start` does it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from engines import secrets
from fleet.current import CurrentFleet
from fleet.types import Fleet, Slo
from routing import console, gc_tuning
from routing.admin import Books, LiveFeed, Uploads, admin_app, authentication, is_admin_path
from routing.batches.opening import Batching
from routing.catalog.directory import Directory
from routing.flights.running import RunningFlights
from routing.http import docs
from routing.http.admission import Admission
from routing.http.app import GatewayApp
from routing.http.batch_lines import BatchLines
from routing.http.batches import Batches
from routing.http.callers import Callers
from routing.http.files import Files
from routing.http.inference import Inference
from routing.http.metrics_pages import MetricsPages
from routing.http.models import Models
from routing.http.own_document import OwnDocument
from routing.http.own_usage import OwnUsage
from routing.http.probes import Probes
from routing.http.stored_responses import StoredResponses
from routing.http.sweeper import Sweeper
from routing.http.version_files import VersionFiles
from routing.lifecycle import FleetChanges, Lifecycle, Manager, RollingRestarts
from routing.observing.ended import EndedRequests
from routing.observing.live import Figures, LiveView
from routing.observing.live.verdict import usual_limit_s
from routing.observing.metrics import GatewayMetrics
from routing.observing.request_log import RequestLog
from routing.observing.tracing import Tracer
from routing.replicas.client import ReplicaClient
from routing.replicas.discovery import Discovery
from routing.replicas.registry import ReplicaRegistry
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Engine, Replica
from routing.site import Site
from routing.turns.driver import Turns
from routing.usage import Ledger


@dataclass(frozen=True, slots=True)
class Gateway:
    """Serves a fleet to its tenants, from `start` to `stop`. `assemble` makes one."""

    app: GatewayApp  # what clients talk to
    fleet: CurrentFleet
    fleets: FleetChanges
    restarts: RollingRestarts
    directory: Directory
    dispatcher: Dispatcher
    flights: RunningFlights
    replicas: ReplicaRegistry
    lifecycle: Lifecycle
    turns: Turns
    ledger: Ledger
    batching: Batching
    ended: EndedRequests
    metrics: GatewayMetrics
    figures: Figures
    live: LiveFeed
    tracer: Tracer | None  # None: tracing is off
    sweeper: Sweeper

    async def start(self) -> None:
        """Begin what needs an event loop: connections, probes, and the tasks of each part; returns at once.

        Raises `RuntimeError` where a replica is nowhere and cannot come, `ValueError` where its address is
        none.
        """
        self.lifecycle.start()
        try:
            await self.replicas.start(self.fleet.now)
        except (RuntimeError, ValueError):
            await self.replicas.stop()
            await self.lifecycle.stop()
            await self.replicas.close()
            raise
        self.turns.start()
        self.ledger.start()
        self.batching.runner.start()
        self.sweeper.start()
        gc_tuning.rest()

    def known_as(self, address: str) -> None:
        """Have engines' hosts on other machines get versions' files at this gateway's address, a URL."""
        self.lifecycle.engines.files_at = self.turns.switching.files_at = address

    async def drain(self) -> None:
        """Refuse what is queued or new; return once what runs has ended, or the grace period has ended it."""
        self.batching.runner.drain()
        self.dispatcher.drain()
        await asyncio.gather(self.restarts.stop(), self.turns.stop(), self.flights.drain())
        self.live.close()  # operators have seen the drain to its end

    async def stop(self) -> None:
        """Stop probing and close the connections; requests have ended by now."""
        await self.batching.runner.stop()
        await self.restarts.stop()
        await self.turns.stop()
        await self.sweeper.stop()
        await self.replicas.stop()
        await self.ledger.stop()
        await self.lifecycle.stop()  # it may be in mid-talk with an engine
        await self.replicas.close()
        await self.app.inference.guards.close()
        if self.tracer is not None:
            await self.tracer.close()

    def is_ready(self) -> bool:
        """Whether everybody's models can be answered: in every pool each base model. Never raises.

        An engine that restarts by an operator's order counts as ready, and so does one that is on disk at a
        host which takes orders: their requests come, and wait. A pool that joins while the gateway serves
        counts once an engine of it was ready; one that may have no replica holds requests for the first.
        """
        if self.flights.draining or not self.lifecycle.is_settled() or not self.ledger.was_known():
            return False
        groups = self.dispatcher.groups.values()
        asked = (group for group in groups if not (group.is_new or group.scale.may_be_empty))
        return all(any(map(_is_ready, group.engines)) for group in asked)


def assemble(
    fleet: CurrentFleet,
    discovery: Discovery,
    *,
    secret: bytes,
    local_only: frozenset[str] = frozenset(),
    ledger: Ledger | None = None,
    lifecycle_class: type[Lifecycle] = Lifecycle,
    clock: Callable[[], float] = time.monotonic,
) -> Gateway:
    """Build the gateway of a fleet. `discovery` is followed from its start on.

    `local_only` are hashes of keys that count on this machine alone. Raises `OSError` where the files of the
    console or of the documentation cannot be read.
    """
    settings = fleet.now.gateway
    directory = Directory(fleet, local_only=local_only)
    dispatcher = Dispatcher(fleet, clock=clock)
    flights = RunningFlights(fleet)
    clients: dict[Replica, ReplicaClient] = {}
    lifecycle = lifecycle_class(fleet, directory, dispatcher, clients)
    token = secrets.internal_token(secret)
    replicas = ReplicaRegistry(discovery, dispatcher, lifecycle, flights, clients, token)
    fleet.follow(replicas.take_fleet)
    ledger = ledger or Ledger.of(fleet)
    fleet.follow(ledger.take_fleet)
    ledger.follow_keys(directory.key_budgets)
    turns = Turns(
        fleet, dispatcher, clients, lifecycle.engines.look_at, clock, memory=lifecycle.registry.turns
    )
    manager = Manager(fleet, directory, lifecycle, turns)
    manager.fleets.why_not = replicas.why_not

    figures = Figures(clock(), usual_limit_s)
    view = LiveView(
        figures,
        scheduler=dispatcher.report,
        residencies=lambda: {each.figures.name: each.residency for each in manager.replicas()},
        queue=lambda: ((ticket.request, ticket.waits_for) for ticket in dispatcher.waiting()),
        clock=clock,
    )
    live = LiveFeed(view, clock=clock)
    metrics = GatewayMetrics(
        dispatcher,
        clock=clock,
        slos=_slos(fleet.now),
        serves=directory.serves,
        settings=settings.metrics,
        ledger=ledger,
        turns=turns.pools,
    )
    fleet.follow(lambda now: metrics.take_slos(_slos(now)))
    tracer = Tracer.of(settings.tracing)

    ended = EndedRequests(
        at_once=[ledger.count, lifecycle.observe],
        batched=[
            ledger.note,
            metrics.settled,
            lambda records: figures.observe_all(records, clock()),
            RequestLog(lambda: fleet.now.gateway.log_requests).write,
            turns.observe,
        ],
    )

    pages = console.pages() | docs.pages()

    def take_sign_in(now: Fleet) -> None:
        pages.update(console.sign_in(by_proxy=now.gateway.trusted_proxies is not None))

    take_sign_in(fleet.now)
    fleet.follow(take_sign_in)

    callers = Callers(directory)
    inference = Inference(
        fleet,
        secret,
        callers,
        directory,
        dispatcher,
        Admission(dispatcher, ledger.budgets, ledger.key_budgets),
        clients,
        flights,
        ended,
        tracer,
        clock,
    )
    batch_lines = BatchLines(inference, directory, dispatcher, ledger, turns.wake_if_idle)
    batching = Batching.of(fleet, batch_lines, ledger)
    metrics.batches, metrics.plans = batching.runner, manager.plans
    app = GatewayApp(
        fleet=fleet,
        callers=callers,
        inference=inference,
        models=Models(fleet, directory, callers, dispatcher),
        usage=OwnUsage(callers, ledger, ended),
        metrics_pages=MetricsPages(fleet, callers, metrics, ended, dispatcher.replicas, clients),
        probes=Probes(callers, dispatcher, lambda: gateway.is_ready()),
        files=Files(fleet, callers, batching.desk),
        batches=Batches(fleet, callers, batching.desk),
        responses=StoredResponses(callers),
        is_admin=is_admin_path,
        adapter_files=VersionFiles(lifecycle.store, token),
        model_files=VersionFiles(lifecycle.whole.shelf.store, token),
        admin=admin_app(
            manager,
            authentication(callers.identify, fleet),
            uploads=Uploads(lifecycle.uploads, max_bytes=fleet.now.state.max_adapter_bytes),
            model_uploads=Uploads(lifecycle.whole.shelf.uploads, max_bytes=fleet.now.state.max_model_bytes),
            live_feed=live,
            books=Books(ledger, batching.desk),
        ),
        site=OwnDocument(callers, directory, Site(pages, console.FOR_BROWSERS)),
        metrics=metrics,
        ended=ended,
    )
    sweeper = Sweeper(dispatcher, flights, ended, metrics, ledger, lifecycle.note_event, clock)
    gateway = Gateway(
        app,
        fleet,
        manager.fleets,
        manager.restarts,
        directory,
        dispatcher,
        flights,
        replicas,
        lifecycle,
        turns,
        ledger,
        batching,
        ended,
        metrics,
        figures,
        live,
        tracer,
        sweeper,
    )
    return gateway


def _is_ready(engine: Engine) -> bool:
    replica = engine.replica
    return engine.ready or replica.returns or (replica.shares_host and engine.told is not None)


def _slos(fleet: Fleet) -> dict[str, Slo]:
    return {name: pool.slo for name, pool in fleet.pools.items()}
