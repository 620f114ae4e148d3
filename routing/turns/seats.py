"""One model at one host, and the host: what the driver keeps of them beside what the dispatcher knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engines.health import EngineState
from fleet.sources import is_url
from fleet.types import BaseModel
from routing.scheduling.state import Replica
from routing.turns.costs import Costs
from routing.turns.report import ModelState
from routing.turns.view import AwakeModel, Host
from routing.turns.worth import drain_s

FAILURES = 3  # one after the other, then a model is quarantined at its host
FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 60.0
# How engines, vLLM's and hosts' refusals say that a model found no memory beside those that are awake.
NO_MEMORY = ("memory", "gib are free beside")
CROWDED_S = 600.0  # in which no more models are awake at a host than one did not come beside
COMING = frozenset({EngineState.STARTING})
AWAKE = frozenset({EngineState.READY, EngineState.SILENT})


@dataclass(slots=True, eq=False)
class Seat:
    """A model at a host."""

    replica: Replica
    since_s: float = -math.inf  # of its state
    used_s: float = -math.inf  # when it last ran something
    shut_s: float | None = None  # when its turn ended, while what it runs ends
    failures: int = 0
    not_before_s: float = -math.inf
    reason: str = ""  # of the last failure
    begun: tuple[str, str | None] | None = None  # source and revision when the gateway, and its host, began
    source: str = ""  # where its host is told that its files are; empty: where its own fleet file says
    awake_s: float = 0.0  # in all, turns that have ended
    counts_from_s: float | None = None  # when the turn began that has not ended

    @property
    def model(self) -> str:
        """The base model."""
        return self.replica.engine.base_model

    @property
    def told(self) -> EngineState | None:
        """What its engine said of itself last; None: it does not answer."""
        told = self.replica.engine.told
        return None if told is None else told.state

    @property
    def came_by(self) -> str:
        """The way by which it came awake last, as its host says; empty: it has not said."""
        told = self.replica.engine.told
        return told.place.way if told is not None and told.place is not None else ""

    @property
    def is_open(self) -> bool:
        """Whether its turn is now."""
        return not self.replica.asleep

    @property
    def is_up(self) -> bool:
        """Whether its engine is there, as far as is known: it takes a place."""
        return self.is_open or self.shut_s is not None or self.replica.engine.ready

    @property
    def is_quarantined(self) -> bool:
        """Whether it has failed too often."""
        return self.failures >= FAILURES

    @property
    def is_absent(self) -> bool:
        """Whether its files are not here yet."""
        declared = self.replica.engine.declared
        return declared is not None and is_url(declared.source)

    @property
    def is_outdated(self) -> bool:
        """Whether its engine has other files than the fleet names by now."""
        told = self.replica.engine.told
        if told is None or told.place is None or self.is_absent or not self.replica.engine.ready:
            return False
        return told.place.source != self.source

    def take_source(self) -> None:
        """Follow the fleet; with other files it is tried again, whatever failed before."""
        declared = self.replica.engine.declared
        if declared is None:
            return
        source = "" if (declared.source, declared.revision) == self.begun else declared.source
        if source != self.source:
            self.source = source
            self.forgive()

    @property
    def model_told(self) -> BaseModel | None:
        """The base model as its host is told of it."""
        declared = self.replica.engine.declared
        return declared and replace(declared, source=self.source)

    def may_come(self, now_s: float, *, retried: bool = False) -> bool:
        """Whether it may be ordered to come; `retried`: as if it had not failed."""
        failed = not retried and (self.is_quarantined or now_s < self.not_before_s)
        if self.is_absent or failed or self.told is None:
            return False
        return not (self.replica.draining or self.replica.restarting or self.replica.left)

    def seen(self, answer_s: float) -> AwakeModel:
        """Return what the rule sees of it while it is up; answers take so long as a rule."""
        running = self.replica.engine.sequences
        return AwakeModel(
            self.model,
            self.since_s,
            self.used_s,
            running,
            not self.is_open,
            running >= self.replica.engine.capacity,
            drain_s(running, answer_s),
        )

    def failed(self, reason: str, now_s: float) -> None:
        """Note that it did not come awake; the pause before the next try doubles each time."""
        self.failures += 1
        self.reason = reason
        self.not_before_s = now_s + min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
        self.since_s = now_s

    def forgive(self) -> None:
        """Let it be tried again at once."""
        self.failures, self.not_before_s, self.reason = 0, -math.inf, ""

    def awake_until(self, now_s: float) -> float:
        """Seconds that it was awake in all until now."""
        return self.awake_s + (0.0 if self.counts_from_s is None else now_s - self.counts_from_s)

    def state(self, coming: str | None) -> ModelState:
        """Return its state; `coming` is the model that its host is switching to."""
        if coming == self.model:
            return ModelState.WAKING
        if self.is_open:
            return ModelState.AWAKE
        if self.shut_s is not None:
            return ModelState.DRAINING
        if self.is_absent:
            return ModelState.ABSENT
        if self.is_quarantined:
            return ModelState.QUARANTINED
        if self.failures:
            return ModelState.FAILED
        if self.told is None:
            return ModelState.UNKNOWN
        place = self.replica.engine.told.place if self.replica.engine.told is not None else None
        return ModelState.ASLEEP if place is not None and place.asleep else ModelState.ON_DISK


@dataclass(slots=True, eq=False)
class HostSeats:
    """A host and its models."""

    name: str
    seats: Mapping[str, Seat] = field(default_factory=dict)  # by model
    coming: str | None = None  # the model that it is switching to
    going: str | None = None  # the model that goes to disk for nobody
    began_s: float = 0.0  # when that was ordered
    leaving: set[str] = field(default_factory=set)  # models that take part no more, and end what they run
    fits: int = 1  # models that are awake at most, until `crowded_until_s`
    crowded_until_s: float = -math.inf

    @property
    def busy(self) -> str | None:
        """A model that comes, goes or leaves, so that nothing else may; None: there is none."""
        return self.coming or self.going or next(iter(self.leaving), None)

    @property
    def is_busy(self) -> bool:
        """Whether a model comes, goes or leaves."""
        return self.busy is not None

    @property
    def awake(self) -> list[str]:
        """The models that are there."""
        return [model for model, seat in self.seats.items() if seat.is_up and model != self.coming]

    def seen(self, most_awake: int, costs: Costs, answer_s: float, now_s: float, retried: str = "") -> Host:
        """Return what the rule sees of it; answers take so long as a rule; one model may be `retried`."""
        able = [m for m, seat in self.seats.items() if seat.may_come(now_s, retried=m == retried)]
        busy = self.busy
        up = (seat for seat in self.seats.values() if seat.is_up and seat.model != busy)
        awake = tuple(seat.seen(answer_s) for seat in up)
        expected = costs.expected(self.name, self.seats, [each.model for each in awake])
        here = {model: expected[model] for model in {*able, *(each.model for each in awake)}}
        left_s = max(0.0, expected.get(busy, 0.0) - (now_s - self.began_s)) if busy is not None else 0.0
        return Host(self.name, most_awake, awake, busy, left_s, here)

    def failed(self, model: str, words: str, now_s: float) -> None:
        """Take note of a model that did not come: for want of memory another one goes for it next time."""
        beside = len(set(self.awake) - {model})
        if beside and any(said in words.lower() for said in NO_MEMORY):
            self.fits, self.crowded_until_s = beside, now_s + CROWDED_S

    def most_awake(self, allowed: int | None, now_s: float) -> int:
        """Models that may be awake at once; `allowed` by the pool, None: as many as the host says."""
        most = self._told_awake() if allowed is None else allowed
        return min(most, self.fits) if now_s < self.crowded_until_s else most

    def _told_awake(self) -> int:
        told = (seat.replica.engine.told for seat in self.seats.values())
        return max(
            (each.place.awake for each in told if each is not None and each.place is not None), default=1
        )


def arranged(
    present: Sequence[Replica],
    hosts: Mapping[str, HostSeats],
    before: Mapping[Replica, Seat],
    now_s: float,
    begun: Mapping[str, BaseModel],
) -> dict[str, HostSeats]:
    """Arrange the replicas that take part by their hosts; what is known of hosts and replicas stays.

    `begun` are the base models with which the gateway and its hosts have begun.
    """
    arranged = {replica.host: hosts.get(replica.host, HostSeats(replica.host)) for replica in present}
    for host in arranged.values():
        here = (replica for replica in present if replica.host == host.name)
        host.seats = {r.engine.base_model: before.get(r) or _seat(r, now_s, begun) for r in here}
    return arranged


def _seat(replica: Replica, now_s: float, begun: Mapping[str, BaseModel]) -> Seat:
    model = begun.get(replica.engine.base_model)
    return Seat(replica, now_s, begun=None if model is None else (model.source, model.revision))
