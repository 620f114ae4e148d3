"""How does the gateway's own policy place calls? Drives its dispatcher under the virtual clock.

Everything is the gateway's code, but for the sockets: a fleet is built in memory, every call becomes a
`Request`, and the dispatcher hears of first tokens, gaps between tokens and ends as it does in the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.simulator.costs import EngineSettings
from benchmarks.simulator.driver import Call, Driver
from fleet.current import CurrentFleet
from fleet.types import (
    Adapter,
    Band,
    BaseModel,
    Caps,
    Fleet,
    GatewaySettings,
    Pool,
    SchedulerSettings,
    Slo,
    Strategy,
    Tenant,
)
from routing.errors import Unavailable
from routing.scheduling.admission import Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica, declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target

POOL, BASE = "pool", "base"
SWEEP_S = 0.25  # as the gateway does
UNCAPPED = 10**9


@dataclass(frozen=True, slots=True)
class Policy:
    """How the gateway is set up for a run. Nothing is refused unless an objective is set."""

    name: str = "ours"
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    slo: Slo = field(default_factory=Slo)
    queue_timeout_s: float = float(UNCAPPED)

    def with_settings(self, changes: Mapping[str, float]) -> Policy:
        """The same with other settings of the scheduler. Raises TypeError on one that does not exist."""
        known: dict[str, Any] = {name: getattr(self.settings, name) for name in SchedulerSettings.__slots__}
        return Policy(self.name, SchedulerSettings(**(known | dict(changes))), self.slo, self.queue_timeout_s)


def fleet_of(
    policy: Policy, owned: Mapping[str, list[str]], engines: list[EngineSettings], bands: Mapping[str, Band]
) -> Fleet:
    """One pool of alike replicas that serves all tenants; no cap but those of the queue."""
    engine = engines[0]
    base = BaseModel(
        BASE,
        "/base",
        max_num_seqs=engine.max_sequences,
        max_loras=engine.slots,
        max_cpu_loras=engine.host_places,
    )
    caps = Caps(max_concurrency=UNCAPPED, max_queued=UNCAPPED, queue_timeout_s=policy.queue_timeout_s)
    tenants = {
        name: Tenant(name, frozenset(), {adapter: adapter for adapter in adapters}, band=band, caps=caps)
        for name, adapters in owned.items()
        for band in (bands.get(name, Band.STANDARD),)
    }
    pool = Pool(POOL, Strategy.MULTI_LORA, (BASE,), len(engines), (), tuple(tenants), policy.slo)
    adapters = {a: Adapter(a, f"/{a}", BASE) for names in owned.values() for a in names}
    return Fleet({BASE: base}, adapters, tenants, {POOL: pool}, GatewaySettings(scheduler=policy.settings))


class Ours:
    """The gateway's dispatcher as a router of the simulator."""

    tick_s: float | None = SWEEP_S

    def __init__(
        self, policy: Policy, owned: Mapping[str, list[str]], bands: Mapping[str, Band] | None = None
    ) -> None:
        self._policy, self._owned, self._bands = policy, owned, bands or {}
        self._tickets: dict[int, Ticket] = {}

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives; every engine has been told of every adapter."""
        self._driver = driver
        settings = [engine.settings for engine in driver.engines]
        fleet = fleet_of(self._policy, self._owned, settings, self._bands)
        states = declared_replicas(fleet)
        self._names = [state.name for state in states]
        self._index = {name: index for index, name in enumerate(self._names)}
        self.dispatcher = Dispatcher(CurrentFleet(fleet), states, clock=lambda: driver.now)
        for name, engine in zip(self._names, settings, strict=True):
            self.dispatcher.take_residency(
                name, adapters=fleet.adapters, pinned=(), host=(), kv_tokens=engine.kv_capacity
            )
            self.dispatcher.set_ready(name, True)

    def arrive(self, call: Call, now: float) -> None:
        """Submit it; it is sent when it is granted a replica."""
        target = Target(call.tenant, call.adapter, call.adapter, BASE, POOL, 1, call.adapter)
        request = Request(
            str(call.key), target, 1, call.prompt_tokens, now, size_bytes=4 * call.prompt_tokens
        )
        try:
            ticket = self.dispatcher.submit(request)
        except Unavailable:
            self._driver.refuse(call)
            return
        if isinstance(ticket, Rejection):
            self._driver.refuse(call)
            return
        self._tickets[call.key] = ticket
        ticket.when_decided(lambda: self._decided(call, ticket))

    def _decided(self, call: Call, ticket: Ticket) -> None:
        replica: Replica | None = ticket.replica
        if replica is not None:
            self._driver.send(call, self._index[replica.name])
            return
        del self._tickets[call.key]
        self.dispatcher.settle(ticket, Outcome.EXPIRED)
        self._driver.refuse(call)

    def first_token(self, call: Call, now: float) -> None:
        """Hand it on."""
        self.dispatcher.first_token(self._tickets[call.key])

    def finished(self, call: Call, now: float) -> None:
        """Settle it; others may be granted meanwhile."""
        self.dispatcher.settle(
            self._tickets.pop(call.key),
            Outcome.COMPLETED,
            prompt_tokens=call.prompt_tokens,
            completion_tokens=call.completion_tokens,
        )

    def tokens(self, replica: int, gap_s: float, tokens: int) -> None:
        """Note each gap, as each stream would; only a pool with an objective for them asks."""
        if self._policy.slo.itl_s is None:
            return
        name = self._names[replica]
        for _ in range(tokens):
            self.dispatcher.note_gap(name, gap_s)

    def tick(self, now: float) -> None:
        """Sweep."""
        self.dispatcher.sweep()
