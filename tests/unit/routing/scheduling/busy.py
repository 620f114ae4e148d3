"""A dispatcher in which something of everything happens, for tests of what operators see."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fleet.current import CurrentFleet
from fleet.pool_settings import Scaling
from fleet.types import Caps, Fleet, Slo
from routing.scheduling.admission import Rejection
from routing.scheduling.autoscaling import SETTLE_S
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import declared_replicas
from routing.scheduling.tickets import Ticket
from tests.fakes import FakeClock, small_fleet
from tests.unit.routing.requests import ADAPTER_IDS, request


@dataclass
class Busy:
    """A dispatcher over `small_fleet` with a clock of its own; every replica is ready."""

    fleet: Fleet
    clock: FakeClock = field(default_factory=FakeClock)
    tickets: list[Ticket] = field(default_factory=list)  # of whatever was admitted

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(
            CurrentFleet(self.fleet), declared_replicas(self.fleet), clock=self.clock
        )
        for name in self.dispatcher.replicas:
            self.dispatcher.take_residency(
                name, adapters=ADAPTER_IDS, pinned=(), host=("a-sales@1",), kv_tokens=1000
            )
            self.dispatcher.set_ready(name, True)

    def offer(
        self, tenant: str = "a", model: str = "support", request_id: str | None = None
    ) -> Ticket | Rejection:
        """Submit a request."""
        asked = request(tenant, model, pool="alone" if tenant == "c" else "shared", arrived_s=self.clock.now)
        decision = self.dispatcher.submit(replace(asked, id=request_id or asked.id))
        if isinstance(decision, Ticket):
            self.tickets.append(decision)
        return decision

    def give_range(self, least: int) -> None:
        """Let the shared pool have a range of replicas, up to those it has, and find out what is there."""
        scale = self.dispatcher.groups["shared", "base"].scale
        scale.take(replace(self.fleet.pools["shared"], scaling=Scaling(least)))
        self.dispatcher.sweep()
        self.clock.now += SETTLE_S
        self.dispatcher.sweep()

    def fail(self, replica: str, times: int) -> None:
        """Have a replica fail so many requests in a row."""
        failing = self.dispatcher.replicas[replica]
        health = failing.engine.health
        for _ in range(times):
            health.failed(self.clock.now, health.began(self.clock.now), "it failed while it answered")
        self.dispatcher.groups[failing.pool, failing.engine.base_model].refresh_trust(self.clock.now)


def busy(*, replicas: int = 1, caps: Caps | None = None) -> Busy:
    """One slot, taken by a's `support` 12 s ago; `sales` has waited 11 s and gets it; b's was refused.

    With a second replica the slot of that one is free for `sales`, so that nothing waits.
    """
    fleet = small_fleet(slots=1, replicas=replicas, caps=caps or Caps(max_concurrency=2))
    pools = {name: replace(pool, slo=Slo(ttft_s=60.0, itl_s=0.05)) for name, pool in fleet.pools.items()}
    one = Busy(replace(fleet, pools=pools))
    one.offer("a", "support", "running")
    one.clock.now += 1.0
    one.offer("a", "sales", "waiting")
    one.dispatcher.sweep()
    one.dispatcher.note_gap("shared-0", 0.02)
    one.clock.now += 11.0
    one.dispatcher.sweep()
    one.offer("a", "support", "refused")
    one.clock.now += 0.5
    return one
