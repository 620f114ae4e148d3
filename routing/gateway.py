"""How does a gateway begin, drain and end? Its parts, in the order in which each of these happens to them."""

from __future__ import annotations

from dataclasses import dataclass

from routing import gc_tuning
from routing.admin import LiveFeed
from routing.catalog.directory import Directory
from routing.flights.running import RunningFlights
from routing.http.app import GatewayApp
from routing.http.sweeper import Sweeper
from routing.lifecycle import Lifecycle
from routing.observing.ended import EndedRequests
from routing.observing.live import Figures
from routing.observing.metrics import GatewayMetrics
from routing.observing.tracing import Tracer
from routing.replicas.registry import ReplicaRegistry
from routing.scheduling.dispatcher import Dispatcher
from routing.usage import Ledger


@dataclass(frozen=True, slots=True)
class Gateway:
    """Serves a fleet to its tenants, from `start` to `stop`. `assembly` makes one."""

    app: GatewayApp  # what clients talk to
    directory: Directory
    dispatcher: Dispatcher
    flights: RunningFlights
    replicas: ReplicaRegistry
    lifecycle: Lifecycle
    ledger: Ledger
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
        self.lifecycle.start(self.dispatcher, self.replicas.clients)
        try:
            await self.replicas.start()
        except (RuntimeError, ValueError):
            await self.lifecycle.stop()
            await self.replicas.close()
            raise
        self.ledger.start()
        self.sweeper.start()
        gc_tuning.rest()

    async def drain(self) -> None:
        """Refuse what is queued or new; return once what runs has ended, or the grace period has ended it."""
        self.dispatcher.drain()
        await self.flights.drain()
        self.live.close()  # operators have seen the drain to its end

    async def stop(self) -> None:
        """Stop probing and close the connections; requests have ended by now."""
        await self.sweeper.stop()
        await self.replicas.stop()
        await self.ledger.stop()
        await self.lifecycle.stop()  # it may be in mid-talk with an engine
        await self.replicas.close()
        if self.tracer is not None:
            await self.tracer.close()

    def is_ready(self) -> bool:
        """Whether everybody's models can be answered: in every pool each base model. Never raises."""
        if self.flights.draining or not self.ledger.budgets.is_known or not self.lifecycle.is_settled():
            return False
        groups = self.dispatcher.groups.values()
        return all(any(engine.ready for engine in group.engines) for group in groups)
