"""Which models have series of their own? A bounded number, the busiest; the rest share `other`, by pool.

Three rules make sums over a scraper's increases exact, for any changes of models and any scrape interval:

- A request is counted in one place alone: its model's series, or `other`.
- A series that must go is first closed: later requests count in `other`, and its last value stays on
  the page for `LINGER_S`, so that every scraper has seen it. Then it vanishes.
- A vanished series is not added to `other`. That would keep the sum of the raw numbers, but Prometheus takes
  a counter that jumps for traffic: rates and alerts would see all of a model's history within one interval.

A series vanishes when it was unused for `idle_s`, soon after its version stopped being served, or when it
must make room for a model that has far more traffic. One that returns begins at zero, which Prometheus
takes for a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fleet.types import Slo
from routing.observing.metrics.definitions import OTHER
from routing.observing.metrics.series import ModelSeries
from routing.types import Record, Target

REVIEW_S = 60.0  # between two reviews of traffic
LINGER_S = 300.0  # Prometheus' lookback; rarer scrapes have gaps anyhow
FAR_BUSIER = 2.0  # times the requests of the one it replaces, or places would change all the time
WORTH_A_PLACE = 10  # requests between two reviews, below which a model replaces no other

ModelKey = tuple[str, str, str, str, str]  # pool, tenant, model, adapter, version


@dataclass(slots=True)
class _Place:
    """A model that has series of its own."""

    target: Target
    series: ModelSeries
    used_s: float  # when it was counted last
    recent: int = 0  # requests since the last review
    leaves_s: float | None = None  # when it vanishes
    closed: bool = False  # it makes room for another one: nothing more is counted in it


class Models:
    """The places that models have on the page. `now_s` is monotonic."""

    def __init__(
        self,
        slos: Mapping[str, Slo],
        serves: Callable[[Target], bool],
        *,
        max_models: int,
        idle_s: float,
    ) -> None:
        """`slos` by pool. `serves` tells whether a target is still served."""
        self._slos = slos
        self._serves = serves
        self._max_models = max_models
        self._idle_s = idle_s
        self._places: dict[ModelKey, _Place] = {}
        self._others: dict[str, ModelSeries] = {}  # by pool
        self._outside: Counter[ModelKey] = Counter()  # requests since the last review
        self._outside_targets: dict[ModelKey, Target] = {}
        self._outside_before = 0  # models in `other`, at the last review
        self._reviewed_s: float | None = None

    def take_slos(self, slos: Mapping[str, Slo]) -> None:
        """Judge by these objectives from now on, by pool."""
        self._slos = slos
        for place in self._places.values():
            place.series.take_slo(slos.get(place.target.pool, Slo()))
        for pool, series in self._others.items():
            series.take_slo(slos.get(pool, Slo()))

    @property
    def own(self) -> int:
        """Models that have series of their own."""
        return len(self._places)

    @property
    def outside(self) -> int:
        """Models that were counted in `other` lately."""
        return max(self._outside_before, len(self._outside))

    def names(self) -> set[tuple[str, str]]:
        """Tenant and model of all that have series of their own, in any version."""
        return {(place.target.tenant, place.target.model) for place in self._places.values()}

    def series(self) -> Iterable[ModelSeries]:
        """Everything that is on the page, `other` last."""
        return (*(place.series for place in self._places.values()), *self._others.values())

    def count(self, record: Record, now_s: float) -> None:
        """Count a settled request in its series."""
        target = record.target
        key = _key(target)
        place = self._places.get(key)
        if place is None and len(self._places) < self._max_models:
            place = self._give_place(key, target, now_s)
        if place is None or place.closed:
            self._outside[key] += 1
            self._outside_targets[key] = target
            self._other(target.pool).count(record)
            return
        place.used_s, place.leaves_s = now_s, None
        place.recent += 1
        place.series.count(record)

    def review(self, now_s: float) -> None:
        """Remove series that must go, and give their places to the busiest models outside, once a minute."""
        if self._reviewed_s is None:
            self._reviewed_s = now_s
        if now_s - self._reviewed_s < REVIEW_S:
            return
        self._reviewed_s = now_s
        for key, place in list(self._places.items()):
            if place.leaves_s is not None and place.leaves_s <= now_s:
                del self._places[key]
            elif place.leaves_s is None and self._is_over(place, now_s):
                place.leaves_s = now_s + LINGER_S
        busiest = [key for key, _ in self._outside.most_common() if key not in self._places]
        room = self._max_models - len(self._places)
        for key in busiest[:room]:
            self._give_place(key, self._outside_targets[key], now_s)
        self._make_room(busiest[max(0, room) :], now_s)
        self._outside_before = len(self._outside)
        self._outside.clear()
        self._outside_targets.clear()
        for place in self._places.values():
            place.recent = 0

    def _is_over(self, place: _Place, now_s: float) -> bool:
        quiet = place.recent == 0
        return quiet and (now_s - place.used_s >= self._idle_s or not self._serves(place.target))

    def _make_room(self, busiest: Iterable[ModelKey], now_s: float) -> None:
        """Close the quietest places for those that are far busier; those that leave make room too."""
        staying = [place for place in self._places.values() if place.leaves_s is None]
        staying.sort(key=lambda place: place.recent, reverse=True)
        leaving = len(self._places) - len(staying)
        for key in list(busiest)[leaving:]:
            wanted = self._outside[key]
            if not staying or wanted < max(WORTH_A_PLACE, FAR_BUSIER * staying[-1].recent):
                return
            place = staying.pop()
            place.closed, place.leaves_s = True, now_s + LINGER_S

    def _give_place(self, key: ModelKey, target: Target, now_s: float) -> _Place:
        place = _Place(target, ModelSeries(key, self._slos.get(target.pool, Slo())), now_s)
        self._places[key] = place
        return place

    def _other(self, pool: str) -> ModelSeries:
        series = self._others.get(pool)
        if series is None:
            labels = (pool, OTHER, OTHER, OTHER, OTHER)
            series = self._others[pool] = ModelSeries(labels, self._slos.get(pool, Slo()))
        return series


def _key(target: Target) -> ModelKey:
    version = "" if target.version is None else str(target.version)
    return target.pool, target.tenant, target.model, target.adapter or "", version
