"""What is a gateway made of? Builds the parts of one, each from those before it, and hands them over whole.

Nothing here opens a connection or begins a task: that needs an event loop, and is what `Gateway.start` is
for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from engines import secrets
from fleet.types import Fleet
from routing import console
from routing.admin import LiveFeed, admin_app
from routing.catalog.directory import Directory
from routing.flights.running import RunningFlights
from routing.gateway import Gateway
from routing.http import docs
from routing.http.admission import Admission
from routing.http.app import GatewayApp
from routing.http.callers import Callers
from routing.http.inference import Inference
from routing.http.metrics_pages import MetricsPages
from routing.http.models import Models
from routing.http.own_usage import OwnUsage
from routing.http.sweeper import Sweeper
from routing.lifecycle import Lifecycle, Manager
from routing.observing.ended import EndedRequests
from routing.observing.live import Figures, LiveView
from routing.observing.live.verdict import usual_limit_s
from routing.observing.metrics import GatewayMetrics
from routing.observing.request_log import write_lines
from routing.observing.tracing import Tracer
from routing.record import Record
from routing.replicas.discovery import Discovery
from routing.replicas.registry import ReplicaRegistry
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import declared_replicas
from routing.site import Site
from routing.usage import Ledger


def assemble(
    fleet: Fleet,
    discovery: Discovery,
    *,
    secret: bytes,
    directory: Directory,
    lifecycle: Lifecycle,
    ledger: Ledger,
    clock: Callable[[], float] = time.monotonic,
) -> Gateway:
    """Build the gateway of a fleet. `discovery` is followed from its start on.

    Raises `OSError` where the files of the console or of the documentation cannot be read.
    """
    settings = fleet.gateway
    dispatcher = Dispatcher(fleet, declared_replicas(fleet), clock=clock)
    flights = RunningFlights(settings)
    replicas = ReplicaRegistry(discovery, dispatcher, lifecycle, flights, secrets.internal_token(secret))
    manager = Manager(fleet, directory, lifecycle)

    figures = Figures(clock(), usual_limit_s)
    view = LiveView(
        figures,
        scheduler=dispatcher.report,
        replicas=manager.replicas,
        queue=lambda: ((ticket.request, ticket.waits_for) for ticket in dispatcher.waiting()),
        clock=clock,
    )
    live = LiveFeed(view, clock=clock)
    metrics = GatewayMetrics(
        dispatcher,
        clock=clock,
        slos={name: pool.slo for name, pool in fleet.pools.items()},
        serves=directory.serves,
        settings=settings.metrics,
        ledger=ledger,
    )
    tracer = Tracer.of(settings.tracing)

    def observe_figures(records: Sequence[Record]) -> None:
        now_s = clock()
        for record in records:
            figures.observe(record, now_s)

    ended = EndedRequests(
        at_once=[ledger.count, lifecycle.observe],
        batched=[
            ledger.note,
            metrics.settled,
            observe_figures,
            *([write_lines] if settings.log_requests else []),
        ],
    )

    callers = Callers(directory)
    app = GatewayApp(
        callers=callers,
        inference=Inference(
            fleet,
            secret,
            callers,
            directory,
            dispatcher,
            Admission(dispatcher, ledger.budgets),
            replicas.clients,
            flights,
            ended,
            tracer,
            clock,
        ),
        models=Models(directory, callers),
        usage=OwnUsage(callers, ledger, ended),
        metrics_pages=MetricsPages(
            settings.metrics_access, callers, metrics, ended, dispatcher.replicas, replicas.clients
        ),
        admin=admin_app(
            manager,
            callers.identify,
            max_upload_bytes=fleet.state.max_adapter_bytes,
            upload_folder=lifecycle.uploads,
            live_feed=live,
            ledger=ledger,
        ),
        site=Site(console.pages() | docs.pages()),
        metrics=metrics,
        ended=ended,
    )
    sweeper = Sweeper(dispatcher, flights, ended, metrics, ledger.budgets, lifecycle, clock)
    return Gateway(
        app,
        directory,
        dispatcher,
        flights,
        replicas,
        lifecycle,
        ledger,
        ended,
        metrics,
        figures,
        live,
        tracer,
        sweeper,
    )
