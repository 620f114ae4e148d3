"""A dispatcher over a pool with two base models, each with replicas of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet.current import CurrentFleet
from fleet.types import BaseModel, Caps, Fleet, Pool, SchedulerSettings, Slo, Strategy, Tenant
from routing.scheduling.admission import Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Engine, declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target
from tests.fakes import FakeClock

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"
MODELS = ("large", "small")
TENANTS = ("a", "b")


class Whole:
    """One `replica-per-model` pool with two base models; every replica is ready."""

    def __init__(
        self,
        *,
        replicas: int = 1,
        width: int = 256,
        ttft_slo_s: float | None = None,
        callers: dict[str, tuple[str, ...]] | None = None,
        **scheduler: Any,
    ) -> None:
        """`callers` are the models of each tenant, where it is not both."""
        self.clock = FakeClock()
        callers = callers or dict.fromkeys(TENANTS, MODELS)
        caps = Caps(max_concurrency=10_000, max_queued=10_000)
        tenants = {
            name: Tenant(name, frozenset(), {model: model for model in models}, caps=caps)
            for name, models in callers.items()
        }
        pool = Pool(
            "whole",
            Strategy.REPLICA_PER_MODEL,
            MODELS,
            replicas,
            (),
            tuple(tenants),
            slo=Slo(ttft_s=ttft_slo_s),
        )
        bases = {name: BaseModel(name, f"/models/{name}", max_loras=0, max_num_seqs=width) for name in MODELS}
        fleet = Fleet(bases, {}, tenants, {"whole": pool})
        settings = SchedulerSettings(**{"aging_tokens_per_s": 0.0, **scheduler})
        fleet = replace(fleet, gateway=replace(fleet.gateway, scheduler=settings))
        self.dispatcher = Dispatcher(CurrentFleet(fleet), declared_replicas(fleet), clock=self.clock)
        for name in self.dispatcher.replicas:
            self.start(name, "first")
        self.clock.now += 60.0  # all are warm
        self.dispatcher.sweep()

    def start(self, name: str, incarnation: str) -> None:
        """Have a replica's engine come up, or another one in its place."""
        self.dispatcher.take_residency(name, adapters=(), pinned=(), host=(), incarnation=incarnation)
        self.dispatcher.set_ready(name, True)

    def of(self, model: str) -> list[Engine]:
        """The engines of a model."""
        engines = (replica.engine_for(model) for replica in self.dispatcher.replicas.values())
        return [engine for engine in engines if engine is not None]

    def offer(self, model: str, tenant: str = "a") -> Ticket | Rejection:
        """Submit a request, whatever becomes of it."""
        target = Target(tenant, model, None, model, "whole")
        return self.dispatcher.submit(Request(f"{tenant}-{model}", target, 1, 100, self.clock.now))

    def submit(self, model: str, tenant: str = "a") -> Ticket:
        """Submit a request that is expected to be admitted."""
        ticket = self.offer(model, tenant)
        assert isinstance(ticket, Ticket)
        return ticket

    def finish(self, *tickets: Ticket) -> None:
        """Settle tickets."""
        for ticket in tickets:
            self.dispatcher.settle(ticket, Outcome.COMPLETED, prompt_tokens=100, completion_tokens=64)

    def end(self, *tickets: Ticket) -> None:
        """Settle whatever is left, and see that nothing is."""
        self.finish(*tickets)
        assert repr(self.dispatcher) == AT_REST
