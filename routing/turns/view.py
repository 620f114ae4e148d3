"""What may the rule of turns know? Hosts, the models awake there, and who waits for which. Values; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.types import Pool

TURN_ANSWERS = 1.3  # a turn usually lasts as long as the longest of a few answers


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request that waits for a model."""

    arrived_s: float  # monotonic
    worth: float = 1.0  # of its tenant's band, weight and service of late, see `worth`


@dataclass(frozen=True, slots=True)
class Demand:
    """One model of a pool, and who waits for it."""

    model: str
    waiting: tuple[Waiting, ...] = ()  # the oldest first; of many, the first ones
    rate_per_s: float = 0.0  # arrivals of late
    last_turn_s: float = -math.inf  # when it was last awake and open to requests; its wait begins anew then
    pinned: bool = False  # stays awake, and comes without being asked for
    wanted: bool = False  # is to come without being asked for: preloaded, or an operator's wish


@dataclass(frozen=True, slots=True)
class AwakeModel:
    """A model that is awake at a host."""

    model: str
    since_s: float  # when it came
    used_s: float = 0.0  # when it last ran something
    running: int = 0  # sequences
    shut: bool = False  # its turn is over: it takes nothing new, and goes once nothing runs
    full: bool = False  # it cannot run more than it does
    drain_s: float = 0.0  # until what it runs has ended, as expected


@dataclass(frozen=True, slots=True)
class Host:
    """A place where models take turns."""

    name: str
    most_awake: int  # models at once
    awake: tuple[AwakeModel, ...] = ()
    coming: str | None = None  # the model that it is switching to
    coming_s: float = 0.0  # until that one is awake, as expected
    switch_s: Mapping[str, float] = field(default_factory=dict)  # of those that may come, until awake

    @property
    def has_place(self) -> bool:
        """Whether a model can come without another one going."""
        return len(self.awake) + (self.coming is not None) < self.most_awake

    def has(self, model: str) -> bool:
        """Whether a model is awake here, or comes."""
        return self.coming == model or any(awake.model == model for awake in self.awake)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What counts for turns in a pool."""

    objective_s: float | None = None  # arrival to first token; None: none
    min_s: float | None = None  # a model that came stays at least so long; None: as its switch took
    max_turn_s: float = 60.0  # and at most so long while others wait
    starvation_limit_s: float = 30.0
    ttl_s: float | None = None  # a model that nobody asks for goes after this time; None: never
    answer_s: float = 3.0  # what a request takes on an engine, on average
    drain_s: float = 10.0  # the longest that a model needed to run empty, of late


def turn_settings(pool: Pool, answer_s: float, drain_s: float) -> TurnSettings:
    """Return what counts in a pool, with what its answers and its longest drains take."""
    residency = pool.residency
    return TurnSettings(
        pool.slo.ttft_s,
        residency.min_s,
        residency.max_turn_s,
        residency.starvation_limit_s,
        residency.ttl_s,
        answer_s,
        drain_s,
    )
