"""Devices that run one or several whole models, one event after the other. Decides nothing.

A device runs the sequences of its awake models together: each gets `LONE_TOKENS_PER_S / (1 + n / HALVED_AT)`
tokens a second where n run. A model that is not awake comes in place of one that has run empty, which takes
`switch_s`: less where the device's host still has its weights in memory.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

LONE_TOKENS_PER_S = 60.0  # of one sequence alone: an 8B model on one GPU
HALVED_AT = 32.0  # sequences at which each gets half of that
MOST_SEQUENCES = 64  # of one model at once
FIRST_TOKEN_TOKENS = 12.0  # a prompt costs as much as so many tokens
SERVICE_TAU_S = 60.0  # over which tokens of a tenant are counted
RATE_TAU_S = 120.0  # time over which arrivals are averaged
QUEUE_TIMEOUT_S = 60.0  # then a call that still waits is given up
GRACE_S = 300.0  # after the last arrival


@dataclass(slots=True, eq=False)
class Call:
    """One request for a model, and what became of it."""

    model: int
    at_s: float
    tokens: float  # of its answer
    tenant: str = "tenant"
    first_s: float | None = None  # when its first token came
    granted_s: float | None = None
    refused: bool = False
    over: bool = False  # answered, refused or given up
    tries: int = 0


class State(StrEnum):
    """The state of a copy."""

    LOADING = "loading"
    AWAKE = "awake"
    CLOSING = "closing"  # takes nothing new and goes as soon as nothing runs


@dataclass(slots=True, eq=False)
class Copy:
    """A model on a device."""

    model: int
    device: Device
    since_s: float
    state: State = State.LOADING
    last_s: float = 0.0  # when it was used last
    running: int = 0
    shut: bool = False  # its turn is over, unless its policy thinks better of it
    due_s: float = 0.0  # when it is awake
    then: int | None = None  # the model that comes when it has closed


@dataclass(slots=True, eq=False)
class Device:
    """A device with room for some models."""

    number: int
    room: int
    warm_models: int  # whose weights its host keeps in memory
    copies: dict[int, Copy] = field(default_factory=dict)
    warm: OrderedDict[int, None] = field(default_factory=OrderedDict)  # least recently used first
    running: int = 0
    switches: int = 0
    done: float = 0.0  # tokens of each sequence since the beginning
    at_s: float = 0.0  # when `done` was right
    ends: list[Any] = field(default_factory=list)  # heap of (done at its end, number, stage, call, copy)
    version: int = 0

    @property
    def pace(self) -> float:
        """Tokens a second of each sequence."""
        return LONE_TOKENS_PER_S / (1 + self.running / HALVED_AT)

    @property
    def is_switching(self) -> bool:
        """Whether a model comes or goes."""
        return any(copy.state is not State.AWAKE for copy in self.copies.values())

    @property
    def is_full(self) -> bool:
        """Whether a model must go before another can come."""
        return len(self.copies) >= self.room

    def advance(self, now_s: float) -> None:
        """Let its sequences go on until now."""
        if self.running:
            self.done += self.pace * (now_s - self.at_s)
        self.at_s = now_s


class Policy(Protocol):
    """Who gets a device next?"""

    def arrived(self, sim: Simulation, call: Call) -> None:
        """Take a call in."""
        ...

    def changed(self, sim: Simulation) -> None:
        """Decide anew: something has happened."""
        ...


class Simulation:
    """One run: calls, devices and the policy between them."""

    def __init__(
        self,
        models: int,
        devices: Sequence[Device],
        policy: Policy,
        *,
        switch_s: Callable[[int, bool], float],
    ) -> None:
        """`switch_s(model, warm)` is what it takes until a model answers."""
        self.now_s = 0.0
        self.models = models
        self.devices = devices
        self.queues: list[deque[Call]] = [deque() for _ in range(models)]
        self.mean_answer_s = 3.0
        self._served: dict[str, tuple[float, float]] = {}  # tenant -> tokens of late, and when
        self._policy = policy
        self._switch_s = switch_s
        self._events: list[Any] = []
        self._numbers = itertools.count()
        self._rates = [(0.0, 0.0)] * models
        self._next_tick_s = -1.0

    # -- questions of a policy -----------------------------------------------------------------------------

    def rate(self, model: int) -> float:
        """Arrivals a second of late."""
        rate, at_s = self._rates[model]
        return rate * math.exp(-(self.now_s - at_s) / RATE_TAU_S)

    def switch_s(self, model: int, device: Device) -> float:
        """What it takes to have a model there."""
        return self._switch_s(model, model in device.warm)

    def copies(self, model: int, *states: State) -> list[Copy]:
        """Copies of a model in some states."""
        found = (device.copies.get(model) for device in self.devices)
        return [copy for copy in found if copy is not None and copy.state in states]

    def waiting(self, model: int) -> list[Call]:
        """Calls for a model that have no copy yet, the oldest first."""
        queue = self.queues[model]
        while queue and queue[0].over:
            queue.popleft()
        return [call for call in queue if not call.over]

    def heads(self) -> list[int]:
        """Models that somebody waits for and that are, and come, nowhere; the longest waiting first."""
        coming = {c.then for d in self.devices for c in d.copies.values() if c.state is State.CLOSING}
        waiting = (
            (queue[0].at_s, model)
            for model, queue in enumerate(self.queues)
            if self.waiting(model) and model not in coming
        )
        return [m for _, m in sorted(waiting) if not self.copies(m, State.AWAKE, State.LOADING)]

    def served_lately(self) -> dict[str, float]:
        """Tokens of late, by tenant."""
        return {tenant: self._served_lately(tenant) for tenant in self._served}

    def _served_lately(self, tenant: str) -> float:
        tokens, at_s = self._served.get(tenant, (0.0, 0.0))
        return tokens * math.exp(-(self.now_s - at_s) / SERVICE_TAU_S)

    # -- acts of a policy ----------------------------------------------------------------------------------

    def at(self, at_s: float, kind: str, *what: Any) -> None:
        """Let something happen then."""
        heapq.heappush(self._events, (at_s, next(self._numbers), kind, what))

    def tick(self, interval_s: float = 0.25) -> None:
        """Ask the policy again soon, if it is not to be asked already."""
        if self.now_s >= self._next_tick_s:
            self._next_tick_s = self.now_s + interval_s
            self.at(self._next_tick_s, "changed")

    def enqueue(self, call: Call) -> None:
        """Let a call wait, and run at once where it can."""
        self.queues[call.model].append(call)
        self.at(call.at_s + QUEUE_TIMEOUT_S, "expire", call)
        self.dispatch(call.model)

    def refuse(self, call: Call) -> None:
        """Send a call away."""
        call.refused = call.over = True

    def bring(self, model: int, device: Device, instead_of: Copy | None = None) -> None:
        """Have a model come: now where there is room, else when `instead_of` has run empty."""
        if instead_of is None:
            self._load(model, device)
            return
        instead_of.state, instead_of.then = State.CLOSING, model
        self._go(instead_of)

    def dispatch(self, model: int) -> None:
        """Run what waits for a model where it is awake and open, on the least busy device."""
        queue = self.queues[model]
        while self.waiting(model):
            able = [c for c in self.copies(model, State.AWAKE) if not c.shut and c.running < MOST_SEQUENCES]
            if not able:
                return
            self._run_on(queue.popleft(), min(able, key=lambda copy: copy.device.running))

    # -- what happens --------------------------------------------------------------------------------------

    def run(self, calls: Sequence[Call]) -> None:
        """Let everything happen; `calls` say afterwards what became of them."""
        for call in calls:
            self.at(call.at_s, "arrive", call)
        end_s = (calls[-1].at_s if calls else 0.0) + GRACE_S
        while self._events:
            at_s, _, kind, what = heapq.heappop(self._events)
            if at_s > end_s:
                break
            self.now_s = at_s
            getattr(self, f"_{kind}")(*what)

    def _arrive(self, call: Call) -> None:
        if not call.tries:
            self._rates[call.model] = (self.rate(call.model) + 1 / RATE_TAU_S, self.now_s)
        self._policy.arrived(self, call)

    def _changed(self) -> None:
        self._policy.changed(self)

    def _expire(self, call: Call) -> None:
        if call.granted_s is None and not call.over:
            call.over = True
            self._policy.changed(self)

    def _load(self, model: int, device: Device) -> None:
        if device.is_full or model in device.copies:
            raise RuntimeError("a policy brought a model where it is, or where there is no room")
        copy = device.copies[model] = Copy(model, device, self.now_s)
        copy.due_s = self.now_s + self.switch_s(model, device)
        device.switches += 1
        device.warm[model] = None
        device.warm.move_to_end(model)
        while len(device.warm) > device.warm_models:
            device.warm.popitem(last=False)
        self.at(copy.due_s, "loaded", copy)

    def _loaded(self, copy: Copy) -> None:
        copy.state, copy.since_s, copy.last_s = State.AWAKE, self.now_s, self.now_s
        self.dispatch(copy.model)
        self._policy.changed(self)

    def _run_on(self, call: Call, copy: Copy) -> None:
        device = copy.device
        device.advance(self.now_s)
        device.running += 1
        copy.running += 1
        call.granted_s = copy.last_s = self.now_s
        self._push(device, FIRST_TOKEN_TOKENS, 0, call, copy)
        self._plan(device)

    def _push(self, device: Device, tokens: float, stage: int, call: Call, copy: Copy) -> None:
        heapq.heappush(device.ends, (device.done + tokens, next(self._numbers), stage, call, copy))

    def _plan(self, device: Device) -> None:
        device.version += 1
        if device.ends:
            in_s = max(0.0, device.ends[0][0] - device.done) / device.pace
            self.at(self.now_s + in_s, "step", device, device.version)

    def _step(self, device: Device, version: int) -> None:
        if version != device.version:
            return
        device.advance(self.now_s)
        ended = False
        while device.ends and device.ends[0][0] <= device.done + 1e-6:
            _, _, stage, call, copy = heapq.heappop(device.ends)
            if stage == 0:
                call.first_s = self.now_s
                self._push(device, call.tokens, 1, call, copy)
            else:
                self._end(device, call, copy)
                ended = True
        self._plan(device)
        if ended:
            self._policy.changed(self)

    def _end(self, device: Device, call: Call, copy: Copy) -> None:
        device.running -= 1
        copy.running -= 1
        copy.last_s, call.over = self.now_s, True
        self.mean_answer_s += 0.02 * (self.now_s - (call.granted_s or 0.0) - self.mean_answer_s)
        self._served[call.tenant] = self._served_lately(call.tenant) + call.tokens, self.now_s
        self._go(copy)
        self.dispatch(call.model)

    def _go(self, copy: Copy) -> None:
        if copy.state is State.CLOSING and not copy.running:
            del copy.device.copies[copy.model]
            if copy.then is not None:
                self._load(copy.then, copy.device)
