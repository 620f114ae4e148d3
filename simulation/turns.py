"""The gateway's turns of whole models under the virtual clock: its own code, but for the hosts.

Coroutines of the gateway that wait for a host are run by hand: what they wait for is a time of the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from engines.health import EngineHealth, EngineState, Place
from fleet.current import CurrentFleet
from routing.scheduling.dispatcher import Dispatcher
from routing.turns.driver import ModelForecast
from routing.turns.pool import QUIET_TICK_S, PoolTurns
from routing.turns.seats import HostSeats, Seat
from simulation.driver import Driver

SwitchTime = Callable[[str, str | None], float]  # (model, the one that goes for it) -> seconds until awake


class _Delay:
    """What a coroutine awaits to go on after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self._seconds


class _Hosts:
    """Carries out switches as `routing.turns.switching.Switching` does, at hosts that need a given time."""

    def __init__(self, dispatcher: Dispatcher, switch_s: SwitchTime, awake: int) -> None:
        self._dispatcher, self._switch_s, self._awake = dispatcher, switch_s, awake

    async def bring(self, seat: Seat, instead_of: Seat | None, *, ordered: bool = True) -> None:
        """Have a model come awake."""
        if instead_of is not None:
            self.put_to_disk(instead_of)
        seat.replica.engine.told = EngineHealth(EngineState.STARTING, place=Place(awake=self._awake))
        await _Delay(self._switch_s(seat.model, None if instead_of is None else instead_of.model))
        seat.replica.engine.told = EngineHealth(EngineState.READY, place=Place(awake=self._awake))
        self._dispatcher.set_ready(seat.replica.name, True)

    async def prepare(self, host: HostSeats, model: str | None) -> None:
        """Read ahead: the time that a switch takes is with what the host has in memory."""

    async def stop(self, seat: Seat) -> None:
        """Have a model go to disk."""
        self.put_to_disk(seat)

    def put_to_disk(self, seat: Seat) -> None:
        adapters, kv_tokens = seat.replica.engine.adapters, seat.replica.engine.kv_tokens
        self._dispatcher.set_ready(seat.replica.name, False)
        self._dispatcher.take_residency(
            seat.replica.name, adapters=adapters, pinned=(), host=(), kv_tokens=kv_tokens
        )
        seat.replica.engine.told = EngineHealth(EngineState.STOPPED, place=Place(awake=self._awake))


class VirtualTurns(PoolTurns):
    """The turns of one pool."""

    def __init__(
        self, name: str, fleet: CurrentFleet, dispatcher: Dispatcher, switch_s: SwitchTime, driver: Driver
    ) -> None:
        """`switch_s` says what having a model come takes."""
        pool = fleet.now.pools[name]
        hosts = _Hosts(dispatcher, switch_s, pool.awake or 1)
        super().__init__(name, fleet, dispatcher, hosts, lambda: driver.now)  # type: ignore[arg-type]  # its two verbs
        self._driver = driver
        self._is_due, self._next_tick_s = False, 0.0
        self.switching_s = 0.0  # that hosts have spent on switches that have begun
        for replica in dispatcher.replicas.values():
            if replica.pool == name:
                health = EngineHealth(EngineState.STOPPED, place=Place(awake=pool.awake or 1))
                replica.engine.told = health
        for model in pool.base_models:
            dispatcher.groups[name, model].turns = ModelForecast(self, model)

    def look(self) -> None:
        """Decide anew, at this very time, once all that happens now has happened."""
        if not self._is_due:
            self._is_due = True
            self._driver.at(self._driver.now, self._decide_now)

    def tick(self, now: float, *, is_quiet: bool) -> None:
        """Decide as often as the gateway does: at each of its ticks while somebody waits.

        While all `is_quiet`, no model comes or goes but for its `ttl_s`.
        """
        rests = is_quiet and self._is_settled and self.pool.residency.ttl_s is None
        if self.held or (now >= self._next_tick_s and not rests):
            self._next_tick_s = now + QUIET_TICK_S
            self.decide()

    @property
    def _is_settled(self) -> bool:
        """Whether what is to be awake without being asked for is, and no host is switching."""
        return not self.wanted and not any(host.is_busy for host in self.hosts.values()) and bool(self.hosts)

    @property
    def switch_count(self) -> int:
        """How many switches have ended."""
        return sum(self.switches.values())

    def _decide_now(self) -> None:
        self._is_due = False
        self.decide()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            delay_s = work.send(None)
        except StopIteration:
            return
        self.switching_s += delay_s
        self._driver.at(self._driver.now + delay_s, lambda: self._task(work))
