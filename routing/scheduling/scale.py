"""How many replicas should a group have, and which of them go first? Reads its engines and what waits.

The last ones go: whoever takes replicas away takes those of the highest numbers, as a StatefulSet does. So
those of higher numbers than are wanted get new work only where no other one could take it (`profile`), and
run empty before they are taken.

A first replica that loads is not taken away before it was there, however long that takes, unless it fails:
where those who ask wait less long than it loads, none would ever come.

A group of a fixed number wants nothing; its engines are all wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from engines.health import EngineState
from fleet.pool_settings import Scaling
from fleet.types import Pool
from routing.scheduling.autoscaling import Autoscaler, Desired, Load, Room
from routing.scheduling.backlog import Backlog
from routing.scheduling.filters import WaitReason
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Ticket


class Scale:
    """How many replicas a group should have; `refresh` says it anew."""

    def __init__(self, pool: Pool, engines: Sequence[Engine], backlog: Backlog[Ticket]) -> None:
        """The engines and the backlog belong to the group, which goes on changing them."""
        self._engines = engines
        self._backlog = backlog
        self.scaling: Scaling | None = None
        self.most = pool.replicas
        self.desired: Desired | None = None  # None: the number is fixed, or nothing was sampled yet
        self.asked_for = False  # somebody wants a replica, and nothing of it waits
        self.refused = 0.0  # price of the work that was refused since the last sample, for an objective
        self._fails = False  # an engine has failed to start, and none has been ready since
        self._sampled_s: float | None = None
        self._autoscaler = Autoscaler(pool.replicas, pool.replicas)
        self.take(pool)

    def take(self, pool: Pool) -> None:
        """Let the pool's range count as it is now."""
        self.scaling, self.most = pool.scaling, pool.replicas
        self._autoscaler.most = pool.replicas
        self._autoscaler.least = pool.replicas if pool.scaling is None else pool.scaling.least
        if pool.scaling is None:
            self.desired = None
            for engine in self._engines:
                engine.wanted = True

    @property
    def may_be_empty(self) -> bool:
        """Whether the group may have no replica at all."""
        return self.scaling is not None and self.scaling.least == 0

    @property
    def comes_from_zero(self) -> bool:
        """Whether requests are held for the first replica: none is there, and none has failed to start."""
        return self.may_be_empty and not any(engine.ready or engine.failed for engine in self._engines)

    def takes_work(self) -> bool:
        """Whether an engine takes work, or once its model's turn comes; where none does, one is asked for."""
        takes = any(engine.accepts or engine.may_wake for engine in self._engines)
        self.asked_for |= not takes
        return takes

    def held_until_s(self, ticket: Ticket) -> float:
        """Return until when a request is held that came while there was no replica; 0: it is not."""
        if self.scaling is None or ticket.waits_for is not WaitReason.FROM_ZERO:
            return 0.0
        if any(engine.failed for engine in self._engines):
            return 0.0
        return ticket.request.arrived_s + self.scaling.hold_s

    def refresh(self, now_s: float, work_per_s: float | None) -> None:
        """Take a sample; `work_per_s` is the price of what the group does per second under load, if known."""
        if self.scaling is None:
            return
        ready = [engine for engine in self._engines if engine.accepts and engine.trusted]
        elapsed_s = 0.0 if self._sampled_s is None else now_s - self._sampled_s
        refused = self.refused * len(ready) / (work_per_s * elapsed_s) if work_per_s and elapsed_s else 0.0
        room = _room(ready or self._engines)
        self.asked_for |= self._first_loads()
        there = sum(engine.ready or engine.told is not None for engine in self._engines)
        self.desired = self._autoscaler.sample(now_s, self._load(refused), room, there)
        self.refused, self.asked_for, self._sampled_s = 0.0, False, now_s
        if self.desired is not None:
            for engine in self._engines:
                engine.wanted = _number(engine) < self.desired.replicas

    def _load(self, refused: float) -> Load:
        engines, backlog = self._engines, self._backlog
        running = sum(engine.sequences for engine in engines)
        adapters = {name for e in engines for name, lease in e.leases.items() if not lease.is_spare}
        adapters.update(backlog.models())
        adapters -= {engine.base_model for engine in engines}  # what waits for the base model itself
        return Load(
            sequences=running - sum(engine.spare for engine in engines) + backlog.sequences,
            adapters=len(adapters),
            tokens=sum(engine.tokens for engine in engines) + backlog.prompt_tokens,
            refused=refused,
            anything=bool(running or backlog or self.asked_for),
        )

    def _first_loads(self) -> bool:
        """Whether no replica is ready, and one loads that has not failed before."""
        states = {engine.told.state for engine in self._engines if engine.told is not None}
        if not states or any(engine.ready for engine in self._engines):
            self._fails = False
            return False
        self._fails |= EngineState.FAILED in states
        return EngineState.STARTING in states and not self._fails


def _room(engines: Sequence[Engine]) -> Room:
    """Return what one of some engines may have on average, without slow start."""
    if not engines:
        return Room(1.0, 0.0, 0.0)
    limits = (e.max_sequences if e.limit is None else e.limit.sequences for e in engines)
    known = [engine.kv_tokens for engine in engines if engine.kv_tokens]
    return Room(fmean(limits), fmean(engine.slots for engine in engines), fmean(known) if known else 0.0)


def _number(engine: Engine) -> int:
    """Return the number at the end of a replica's name, which its place in the pool gives it."""
    return int(engine.name.rpartition("-")[2])
