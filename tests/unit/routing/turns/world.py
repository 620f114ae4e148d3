"""A small world for the rule: random arrivals, switches, answers and hosts, a tenth of a second a step."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from routing.turns.rule import decide
from routing.turns.view import AwakeModel, Demand, Host, TurnSettings, Waiting

STEP_S = 0.1


@dataclass(slots=True)
class Awake:
    since_s: float
    shut: bool = False
    ends_s: list[float] = field(default_factory=list)  # of what it runs


@dataclass(slots=True)
class Place:
    name: str
    room: int
    awake: dict[str, Awake] = field(default_factory=dict)
    coming: tuple[str, float] | None = None  # and when it is there


@dataclass
class World:
    """What it keeps: how long each model waited for its turns, and the limits that counted then."""

    seed: int
    models: int
    hosts: int
    room: int
    switch_s: float  # the longest
    answer_s: float  # the longest
    settings: TurnSettings
    now_s: float = 0.0
    waited: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.names = [f"m{number}" for number in range(self.models)]
        self.rates = {name: self.chance.choice((0.0, 0.02, 0.2, 3.0)) for name in self.names}
        self.costs = {name: self.chance.uniform(0.05, self.switch_s) for name in self.names}
        self.places = [Place(f"h-{number}", self.room) for number in range(self.hosts)]
        self.queues: dict[str, list[float]] = {name: [] for name in self.names}
        self.last_turn_s = dict.fromkeys(self.names, -math.inf)
        self.limit_s = dict.fromkeys(self.names, 0.0)  # the greatest since its wait began

    def run(self, for_s: float) -> None:
        while self.now_s < for_s:
            self.now_s += STEP_S
            self._arrive()
            self._end()
            self._decide()

    def _arrive(self) -> None:
        for name, rate in self.rates.items():
            if self.chance.random() < rate * STEP_S:
                self.queues[name].append(self.now_s)
            for place in self.places:
                awake = place.awake.get(name)
                if awake is not None and not awake.shut and self.queues[name]:
                    self._serve(name, awake)

    def _serve(self, name: str, awake: Awake) -> None:
        ends = (self.now_s + self.chance.uniform(0.1, self.answer_s) for _ in self.queues[name])
        awake.ends_s += ends
        self.queues[name].clear()

    def _end(self) -> None:
        for place in self.places:
            for awake in place.awake.values():
                awake.ends_s = [end_s for end_s in awake.ends_s if end_s > self.now_s]
            if place.coming is not None and place.coming[1] <= self.now_s:
                name = place.coming[0]
                place.coming, place.awake[name] = None, Awake(self.now_s)
                if self.queues[name]:
                    since_s = max(self.queues[name][0], self.last_turn_s[name])
                    self.waited.append((self.now_s - since_s, self.limit_s[name]))
                self.limit_s[name] = 0.0
                self._serve(name, place.awake[name])

    def _decide(self) -> None:
        plan = decide(self.now_s, self._hosts(), self._demands(), self.settings)
        for name in self.names:
            self.limit_s[name] = max(self.limit_s[name], plan.limit_s) if self.queues[name] else 0.0
        by_name = {place.name: place for place in self.places}
        for switch in plan.switches:
            place = by_name[switch.host]
            if switch.instead_of is not None:
                gone = place.awake.pop(switch.instead_of)
                assert not gone.ends_s, "what runs is never cut off"
                self._closed(switch.instead_of, gone)
            assert len(place.awake) < place.room, "no more are awake than may be"
            assert place.coming is None, "a host makes one switch at a time"
            assert all(switch.model not in other.awake or other is not place for other in self.places)
            place.coming = switch.model, self.now_s + self.costs[switch.model]
        ends = {(end.host, end.model) for end in plan.ends}
        for place in self.places:
            for name, awake in place.awake.items():
                shut = (place.name, name) in ends
                if shut:
                    self._closed(name, awake)
                awake.shut = shut

    def _closed(self, name: str, awake: Awake) -> None:
        if not awake.shut:
            self.last_turn_s[name] = self.now_s

    def _hosts(self) -> list[Host]:
        return [
            Host(
                place.name,
                place.room,
                tuple(
                    AwakeModel(
                        name,
                        awake.since_s,
                        self.now_s,
                        len(awake.ends_s),
                        awake.shut,
                        drain_s=max((end_s - self.now_s for end_s in awake.ends_s), default=0.0),
                    )
                    for name, awake in place.awake.items()
                ),
                place.coming[0] if place.coming else None,
                place.coming[1] - self.now_s if place.coming else 0.0,
                self.costs,
            )
            for place in self.places
        ]

    def _demands(self) -> list[Demand]:
        return [
            Demand(name, tuple(map(Waiting, self.queues[name])), self.rates[name], self.last_turn_s[name])
            for name in self.names
        ]
