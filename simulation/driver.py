"""In what order do things happen? Arrivals, steps of engines and a router's ticks on one virtual clock.

The router decides where each call goes and when; the driver only keeps time and hands events on.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Any, Protocol

from simulation.costs import EngineSettings, StepCosts
from simulation.engine import Engine, Sequence

BASE = "base"  # the base model of fleets that have one
PATIENCE_S = 4 * 3600.0  # after the last arrival; then a run is given up


@dataclass(slots=True, eq=False)
class Call:
    """One request of one tenant, and what became of it."""

    at_s: float
    tenant: str
    adapter: str | None  # None: the base model itself
    prompt_tokens: int
    completion_tokens: int
    base_model: str = BASE
    key: int = -1
    replica: int | None = None
    sent_s: float | None = None  # when it was granted a replica
    sequence: Sequence | None = None
    refused_s: float | None = None
    then: Callable[[float], Call | None] | None = None  # what its client asks for when it has ended

    @property
    def ttft_s(self) -> float | None:
        """Arrival to first token; None without one."""
        first_s = None if self.sequence is None else self.sequence.first_token_s
        return None if first_s is None else first_s - self.at_s

    @property
    def finished_s(self) -> float | None:
        """When its last token came; None without one."""
        return None if self.sequence is None else self.sequence.finished_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None where it did not finish, 0 where it had but one."""
        if self.sequence is None or self.sequence.finished_s is None or self.sequence.first_token_s is None:
            return None
        decode_s = self.sequence.finished_s - self.sequence.first_token_s
        return decode_s / max(1, self.completion_tokens - 1)


class Router(Protocol):
    """Decides where calls go. It sends them with `Driver.send` and turns them away with `Driver.refuse`."""

    tick_s: float | None  # how often `tick` is called; None: never

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives."""

    def arrive(self, call: Call, now: float) -> None:
        """A call has arrived."""

    def first_token(self, call: Call, now: float) -> None:
        """A call's first token came."""

    def finished(self, call: Call, now: float) -> None:
        """A call has ended on its engine."""

    def tokens(self, replica: int, gap_s: float, tokens: int) -> None:
        """So many tokens came from a replica, each `gap_s` after the one before it."""

    def tick(self, now: float) -> None:
        """`tick_s` have passed."""


class Driver:
    """One run: engines, a router, and the calls of a workload."""

    def __init__(
        self,
        engines: Ordered[EngineSettings],
        costs: StepCosts | Ordered[StepCosts],
        router: Router,
        *,
        devices: Ordered[int] | None = None,
        lanes: int = 1,
    ) -> None:
        """`costs` are those of all engines, or of each; `devices` is where each is, None: alone.

        `lanes` engines of a device can step at once and do not slow each other: cores, of a CPU.
        """
        each = [costs] * len(engines) if isinstance(costs, StepCosts) else costs
        self.engines = [Engine(settings, cost, self) for settings, cost in zip(engines, each, strict=True)]
        for one, device in zip(self.engines, devices or (), strict=devices is not None):
            others = zip(self.engines, devices or (), strict=True)
            one.lanes = lanes
            one.beside = [other for other, its in others if its == device and other is not one]
        self.now = 0.0
        self._router = router
        self._calls: list[Call] = []
        self._open = 0
        self._arrivals: list[tuple[float, int]] = []  # heap of (at, key)
        self._index = {engine: index for index, engine in enumerate(self.engines)}
        self._events: list[tuple[float, int]] = []  # heap of (due, engine), some of them outdated
        self._timers: list[tuple[float, int, Callable[[], None]]] = []  # heap of (due, number, what)
        self._timers_set = itertools.count()
        router.start(self)

    def send(self, call: Call, replica: int) -> None:
        """Hand a call to an engine, which queues it."""
        engine = self.engines[replica]
        call.replica = replica
        call.sequence = Sequence(call.key, call.adapter, call.prompt_tokens, call.completion_tokens)
        due_s = engine.due_s
        engine.submit(call.sequence, self.now)
        if engine.due_s != due_s:
            heapq.heappush(self._events, (engine.due_s, replica))

    def at(self, due_s: float, what: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._timers, (due_s, next(self._timers_set), what))

    def refuse(self, call: Call) -> None:
        """Turn a call away; it never runs."""
        call.refused_s = self.now
        self._open -= 1

    def run(self, calls: list[Call], *, until_s: float = math.inf) -> None:
        """Let all calls arrive and go on until each has ended or `until_s` is over.

        Those that clients make after others are appended to `calls`.
        """
        self._calls, self._open = calls, len(calls)
        end_s = min(until_s, max((call.at_s for call in calls), default=0.0) + PATIENCE_S)
        for key, call in enumerate(calls):
            call.key = key
        self._arrivals = [(call.at_s, call.key) for call in calls]
        heapq.heapify(self._arrivals)
        tick_s = self._router.tick_s
        next_tick_s = math.inf if tick_s is None else tick_s
        while self._open:
            arrival_s, event_s = _first_s(self._arrivals), _first_s(self._events)
            timer_s = _first_s(self._timers)
            self.now = min(arrival_s, event_s, timer_s, next_tick_s)
            if self.now > end_s:
                return
            if timer_s <= self.now:
                heapq.heappop(self._timers)[2]()
            elif event_s <= self.now:
                self._advance()
            elif arrival_s <= self.now:
                _, key = heapq.heappop(self._arrivals)
                self._router.arrive(calls[key], self.now)
            else:
                next_tick_s += tick_s or math.inf
                self._router.tick(self.now)

    def _advance(self) -> None:
        due_s, replica = heapq.heappop(self._events)
        engine = self.engines[replica]
        if engine.due_s != due_s:
            return
        was_stepping = engine.is_stepping
        engine.advance(due_s)
        if engine.due_s < math.inf:
            heapq.heappush(self._events, (engine.due_s, replica))
        if engine.is_stepping != was_stepping:
            for other in engine.beside:
                self._cut_short(other)

    def _cut_short(self, engine: Engine) -> None:
        """Let an engine look again at who shares its device."""
        due_s = engine.due_s
        engine.cut_short(self.now)
        if engine.due_s != due_s:
            heapq.heappush(self._events, (engine.due_s, self._index[engine]))

    # -- what engines say -----------------------------------------------------------------------------------

    def first_token(self, sequence: Sequence, now: float) -> None:
        """Hand it on."""
        self._router.first_token(self._calls[sequence.key], now)

    def finished(self, sequence: Sequence, now: float) -> None:
        """Hand it on; the call is over."""
        self._open -= 1
        ended = self._calls[sequence.key]
        self._router.finished(ended, now)
        following = ended.then(now) if ended.then is not None else None
        if following is not None:
            following.key = len(self._calls)
            self._calls.append(following)
            heapq.heappush(self._arrivals, (following.at_s, following.key))
            self._open += 1

    def tokens(self, engine: Engine, gap_s: float, tokens: int) -> None:
        """Hand it on."""
        self._router.tokens(self._index[engine], gap_s, tokens)


def _first_s(heap: Ordered[tuple[Any, ...]]) -> float:
    """When the first of a heap is due."""
    return float(heap[0][0]) if heap else math.inf
