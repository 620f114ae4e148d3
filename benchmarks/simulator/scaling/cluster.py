"""Replicas that come and go under the gateway's scheduler, as a StatefulSet's do.

One takes `start_s` from its order to its first request. One that is taken away gets nothing new, ends what it
runs, and counts until then. The highest numbers go first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from functools import partial

from benchmarks.simulator import ours
from benchmarks.simulator.ours import POOL, Ours
from benchmarks.simulator.scaling.policies import POLL_S, Gateway, Policy, Seen
from fleet.pool_settings import Scaling
from routing.scheduling.scale import Scale
from simulation.driver import BASE, Driver


class Place(Enum):
    """What is in the place of a replica."""

    EMPTY = auto()
    STARTING = auto()
    SERVING = auto()
    ENDING = auto()


class Cluster(Ours):
    """The gateway of a pool whose replicas a policy orders; `most` are the driver's engines."""

    def __init__(
        self,
        settings: ours.Policy,
        owned: Mapping[str, list[str]],
        policy: Policy,
        *,
        scaling: Scaling,
        start_s: float,
    ) -> None:
        super().__init__(settings, owned)
        self._policy_of_scale, self._scaling, self._start_s = policy, scaling, start_s
        self.replica_s = 0.0  # time of all replicas together, from their order to their end
        self.orders = 0  # times that their number was changed
        self._ordered = 0
        self._asked_s = -POLL_S
        self._ticked_s = 0.0

    def start(self, driver: Driver) -> None:
        """Take the driver; what the policy wants first is there."""
        super().start(driver)
        if isinstance(self._policy_of_scale, Gateway):  # the others are told nothing and empty nothing first
            self._scale.take(replace(self.fleet.pools[POOL], scaling=self._scaling))
        self._places = [Place.EMPTY] * len(driver.engines)
        self._due_s = [0.0] * len(driver.engines)
        for name in self._names:
            self.dispatcher.set_ready(name, False)
        self._ordered = self._within(self._policy_of_scale.wanted(0.0, Seen(1, 0, 0, None)))
        for index in range(self._ordered):
            self._serve(index)

    @property
    def _scale(self) -> Scale:
        return self.dispatcher.groups[POOL, BASE].scale

    def tick(self, now: float) -> None:
        """Sweep, look who has come or ended, and ask the policy when it is time."""
        self.dispatcher.sweep()
        there = sum(place is not Place.EMPTY for place in self._places)
        self.replica_s += there * (now - self._ticked_s)
        self._ticked_s = now
        if now - self._asked_s >= POLL_S:
            self._asked_s = now
            self._order(self._within(self._policy_of_scale.wanted(now, self._seen())))
        for index, place in enumerate(self._places):
            if place is Place.ENDING and not self._driver.engines[index].in_flight:
                self._places[index] = Place.EMPTY
        self._order(self._ordered)

    def _seen(self) -> Seen:
        desired = self._scale.desired
        group = self.dispatcher.groups[POOL, BASE]
        running = sum(engine.sequences for engine in group.engines)
        return Seen(self._ordered, len(group.backlog), running, None if desired is None else desired.replicas)

    def _within(self, wanted: int) -> int:
        return min(len(self._places), max(self._scaling.least, wanted))

    def _order(self, replicas: int) -> None:
        self.orders += replicas != self._ordered
        self._ordered = replicas
        for index, place in enumerate(self._places):
            if index < replicas and place is Place.EMPTY:
                self._places[index] = Place.STARTING
                due_s = self._due_s[index] = self._driver.now + self._start_s
                self._driver.at(due_s, partial(self._come, index, due_s))
            elif index >= replicas and place is Place.STARTING:
                self._places[index] = Place.EMPTY
            elif index >= replicas and place is Place.SERVING:
                self._places[index] = Place.ENDING
                self.dispatcher.set_ready(self._names[index], False)

    def _come(self, index: int, due_s: float) -> None:
        """A replica has started, if it was not taken away meanwhile."""
        if self._places[index] is Place.STARTING and self._due_s[index] == due_s:
            self._serve(index)

    def _serve(self, index: int) -> None:
        self._places[index] = Place.SERVING
        engine, name = self._driver.engines[index], self._names[index]
        engine.forget_adapters()
        self.dispatcher.take_residency(
            name,
            adapters=self.fleet.adapters,
            pinned=(),
            host=(),
            kv_tokens=engine.settings.kv_capacity,
            incarnation=f"{self._driver.now}",
        )
        self.dispatcher.set_ready(name, True)
