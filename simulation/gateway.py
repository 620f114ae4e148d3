"""How does the gateway's own policy place calls? Drives its dispatcher and its turns under the virtual clock.

Everything is the gateway's code, but for the sockets: a fleet is built in memory, every call becomes a
`Request`, and the dispatcher hears of first tokens, gaps between tokens and ends as it does in the gateway.
"""

from __future__ import annotations

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.errors import Unavailable
from routing.scheduling.admission import Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica, declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target
from simulation.driver import Call, Driver
from simulation.turns import SwitchTime, VirtualTurns

SWEEP_S = 0.25  # as the gateway does


class GatewayRouter:
    """The gateway of a fleet as a router of the simulator. Each base model is in one of the fleet's pools."""

    tick_s: float | None = SWEEP_S

    def __init__(self, fleet: Fleet, switch_s: SwitchTime | None = None) -> None:
        """`switch_s` is needed where models take turns. The driver's engines are in the fleet's order."""
        self.fleet, self._switch_s = fleet, switch_s
        self._tickets: dict[int, Ticket] = {}
        self.turns: dict[str, VirtualTurns] = {}

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives; every engine has been told of every adapter."""
        self._driver, fleet = driver, self.fleet
        states = declared_replicas(fleet)
        self._names = [state.name for state in states]
        self._index = {name: index for index, name in enumerate(self._names)}
        self._pools = {model: pool for pool in fleet.pools.values() for model in pool.base_models}
        current = CurrentFleet(fleet)
        self.dispatcher = Dispatcher(current, states, clock=lambda: driver.now)
        for state, engine in zip(states, driver.engines, strict=True):
            adapters = [a for a, one in fleet.adapters.items() if one.base_model == state.engine.base_model]
            self.dispatcher.take_residency(
                state.name, adapters=adapters, pinned=(), host=(), kv_tokens=engine.settings.kv_capacity
            )
            if not state.shares_host:
                self.dispatcher.set_ready(state.name, True)
        self._begin_turns(current)

    def _begin_turns(self, current: CurrentFleet) -> None:
        """Let models take turns where they share hosts. Raises `ValueError` without the time of a switch."""
        shared = [pool.name for pool in self.fleet.pools.values() if pool.strategy.shares_hosts]
        if not shared:
            return
        switch_s = self._switch_s
        if switch_s is None:
            raise ValueError(f"what a switch takes is not said, and models of {', '.join(shared)} take turns")
        of = (current, self.dispatcher, switch_s, self._driver)
        self.turns = {name: VirtualTurns(name, *of) for name in shared}
        self.dispatcher.turn_due = lambda pool: self.turns[pool].look() if pool in self.turns else None

    def arrive(self, call: Call, now: float) -> None:
        """Submit it; it is sent when it is granted a replica."""
        pool = self._pools[call.base_model].name
        alias, version = call.adapter or call.base_model, None if call.adapter is None else 1
        target = Target(call.tenant, alias, call.adapter, call.base_model, pool, version, call.adapter)
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
            call.sent_s = self._driver.now
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
        ticket = self._tickets.pop(call.key)
        turns = self.turns.get(self._pools[call.base_model].name)
        if turns is not None and call.replica is not None:
            turns.used(self._names[call.replica], now)
            tokens = call.prompt_tokens + call.completion_tokens
            turns.figures.ended(call.base_model, call.tenant, tokens, now - (call.sent_s or now), now)
        self.dispatcher.settle(
            ticket,
            Outcome.COMPLETED,
            prompt_tokens=call.prompt_tokens,
            completion_tokens=call.completion_tokens,
        )

    def tokens(self, replica: int, gap_s: float, tokens: int) -> None:
        """Note each gap, as each stream would; only a pool with an objective for them asks."""
        name = self._names[replica]
        if self.dispatcher.replicas[name].engine.limit is None:
            return
        for _ in range(tokens):
            self.dispatcher.note_gap(name, gap_s)

    def tick(self, now: float) -> None:
        """Sweep; while nobody is in the gateway there is nothing to sweep."""
        if self._tickets:
            self.dispatcher.sweep()
        self.turn(now)

    def turn(self, now: float) -> None:
        """Let the pools decide whose models take turns."""
        for turns in self.turns.values():
            turns.tick(now, is_quiet=not self._tickets)
