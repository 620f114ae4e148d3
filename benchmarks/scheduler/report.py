"""What has the comparison found? Pools the rounds and says which targets are met; table.py shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Demand
from benchmarks.scheduler.figures import (
    Percentile,
    is_good,
    percentile,
    times_to_first_token,
)
from benchmarks.scheduler.fleet import Objectives, Shape
from benchmarks.scheduler.phases import OURS, Measured, Phase, Plan
from benchmarks.stats import Spread, fairness, mean_of, ratios, short, spread, with_range

NEIGHBOUR_RATIO = 1.5  # target: neighbours' p99 TTFT under the flood over the same without
LATE_P99_S = 0.1  # requests sent later than this say that the load generator did not keep up
OTHERS_CORES = 0.3  # more than this and somebody else was measured too


@dataclass(frozen=True, slots=True)
class Setting:
    """What was compared under which conditions."""

    shape: Shape
    plan: Plan
    objectives: Objectives = field(default_factory=Objectives)

    @property
    def demand(self) -> Demand:
        """Who asks how much."""
        return Demand(self.shape)

    @property
    def flooder(self) -> int:
        """The tenant that floods."""
        return self.plan.flooder(self.demand)


@dataclass(slots=True)
class Report:
    """Everything one run measured."""

    setting: Setting
    seats: str  # who computes where
    # Of each round, in requests; found by a closed loop of the same mix.
    capacities_per_s: list[float] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)

    def schedulers(self) -> list[str]:
        """Ours last."""
        names = list(dict.fromkeys(m.scheduler for m in self.measured))
        return sorted(names, key=lambda name: name == OURS)

    def of(self, phase: Phase, scheduler: str) -> list[Measured]:
        """One for each round."""
        found = [m for m in self.measured if (m.phase, m.scheduler) == (phase, scheduler)]
        return sorted(found, key=lambda m: m.round)

    # -- figures -------------------------------------------------------------------------------------------

    def answers(self, phase: Phase, scheduler: str, *, neighbours: bool = False) -> list[Answer]:
        """What counts, of all rounds; `neighbours`: without the tenant that floods."""
        flooder = self.setting.flooder
        return [
            answer
            for m in self.of(phase, scheduler)
            for answer in m.counted()
            if not (neighbours and answer.arrival.tenant == flooder)
        ]

    def ttft(
        self, phase: Phase, scheduler: str, fraction: float, *, neighbours: bool = False
    ) -> Percentile | None:
        """A percentile of time to first token over all rounds, seconds."""
        return self._ttft(self.of(phase, scheduler), fraction, neighbours=neighbours)

    def _ttft(self, parts: Sequence[Measured], fraction: float, *, neighbours: bool) -> Percentile | None:
        known, at_least = [], []
        for m in parts:
            flooder = self.setting.flooder
            counted = [a for a in m.counted() if not (neighbours and a.arrival.tenant == flooder)]
            more, longer = times_to_first_token(counted, m.drive.ended_s)
            known += more
            at_least += longer
        return percentile(known, at_least, fraction)

    def neighbour_ratio(self, scheduler: str) -> Percentile | None:
        """Neighbours' p99 TTFT under the flood over the same tenants' without it."""
        return self._victim_ratio(self.of(Phase.FLOOD, scheduler), self.of(Phase.STEADY, scheduler))

    def neighbour_ratios(self, scheduler: str) -> list[float]:
        """The same of each round, each of which hangs on a few requests."""
        found = [self._victim_ratio([under], [without]) for under, without in self._pairs(scheduler)]
        return [ratio.value for ratio in found if ratio is not None]

    def slower_in_floods(self, scheduler: str) -> list[float]:
        """How much slower the machine itself was in each flood than in the steady phase beside it (pace.py).

        Queues grow far more than that. Nothing where it is not known.
        """
        pairs = self._pairs(scheduler)
        return [under.work_s / without.work_s for under, without in pairs if under.work_s and without.work_s]

    def _pairs(self, scheduler: str) -> Iterator[tuple[Measured, Measured]]:
        """Each round's flood and the steady phase beside it."""
        return zip(self.of(Phase.FLOOD, scheduler), self.of(Phase.STEADY, scheduler), strict=True)

    def _victim_ratio(self, flood: Sequence[Measured], steady: Sequence[Measured]) -> Percentile | None:
        under = self._ttft(flood, 0.99, neighbours=True)
        without = self._ttft(steady, 0.99, neighbours=True)
        if under is None or without is None or not without.value:
            return None
        return Percentile(under.value / without.value, under.is_bound)

    def goodput(self, phase: Phase, scheduler: str, *, neighbours: bool = False) -> float | None:
        """Part of the requests that met both objectives; None where there were none."""
        answers = self.answers(phase, scheduler, neighbours=neighbours)
        if not answers:
            return None
        tokens = self.setting.plan.tokens
        return mean(is_good(answer, self.setting.objectives, tokens) for answer in answers)

    def reads_per_request(self, phase: Phase, scheduler: str) -> float | None:
        """Adapters read from disk, for each request that an engine began to answer."""
        begun = sum(a.first_s is not None for m in self.of(phase, scheduler) for a in m.drive.answers)
        return sum(m.disk_loads for m in self.of(phase, scheduler)) / begun if begun else None

    def fairness(self, phase: Phase, scheduler: str) -> Spread | None:
        """Jain's index of each round; see figures.py."""
        tenants, tokens = self.setting.shape.tenants, self.setting.plan.tokens
        return spread(
            fairness(m.service(tenants, tokens), m.demand(tenants, tokens)) for m in self.of(phase, scheduler)
        )

    def tokens_per_s(self, phase: Phase, scheduler: str) -> list[float]:
        """Output tokens per second of each round, all tenants together."""
        tenants, tokens = self.setting.shape.tenants, self.setting.plan.tokens
        return [
            sum(m.service(tenants, tokens)) / (m.window[1] - m.window[0]) for m in self.of(phase, scheduler)
        ]

    def tokens_at_equal_pace_per_s(self, phase: Phase, scheduler: str) -> list[float]:
        """The same as if the machine had been as fast as in the mean of all that were measured in that phase.

        Engines are the faster the less others on its host compute; see pace.py. As they came where that is
        not known.
        """
        rounds = zip(self.tokens_per_s(phase, scheduler), self.of(phase, scheduler), strict=True)
        return [tokens / (self._pace(m) or 1.0) for tokens, m in rounds]

    def pace(self, phase: Phase, scheduler: str) -> list[float]:
        """How fast the machine was in each round, against its mean in that phase; nothing where not known."""
        return [pace for m in self.of(phase, scheduler) if (pace := self._pace(m)) is not None]

    def _pace(self, measured: Measured) -> float | None:
        usual_s = mean_of(m.work_s for m in self.measured if m.phase is measured.phase)
        return usual_s / measured.work_s if usual_s and measured.work_s else None

    def most_adapters(self, scheduler: str) -> float:
        """Adapters at once in one engine, by vLLM's own pages."""
        return max(m.most_adapters for m in self.measured if m.scheduler == scheduler)

    def best_baseline(self) -> str | None:
        """The one that gets most done while saturated, at equal pace; None where there is none."""
        names = [name for name in self.schedulers() if name != OURS]
        done = {name: median(self.tokens_at_equal_pace_per_s(Phase.SATURATED, name)) for name in names}
        return max(done, key=lambda name: done[name], default=None)

    def throughput_ratio(self, *, at_equal_pace: bool = True) -> Spread | None:
        """Ours over the best baseline while saturated, round by round."""
        best = self.best_baseline()
        if best is None or OURS not in self.schedulers():
            return None
        done = self.tokens_at_equal_pace_per_s if at_equal_pace else self.tokens_per_s
        return ratios(done(Phase.SATURATED, OURS), done(Phase.SATURATED, best))

    # -- judgement -----------------------------------------------------------------------------------------

    def targets(self) -> list[str]:
        """What ours is meant to reach, and whether it does."""
        lines = []
        ratio, more = self.neighbour_ratio(OURS), self.throughput_ratio()
        as_it_came = self.throughput_ratio(at_equal_pace=False)
        if ratio is not None:
            met = ratio.value <= NEIGHBOUR_RATIO and not ratio.is_bound
            by_round = _listed(self.neighbour_ratios(OURS))
            slower = _listed(self.slower_in_floods(OURS))
            lines.append(
                f"{_word(met)}: neighbours' p99 TTFT is {text(ratio)} times as long under the flood as "
                f"without (by round: {by_round}"
                f"{f'; the same work took {slower} times as long' if slower else ''}); "
                f"target {NEIGHBOUR_RATIO:g} at most"
            )
        if more is not None:
            lines.append(
                f"{_word(more.median >= 1)}: throughput at equal pace of the machine is {with_range(more)} "
                f"of the best baseline's ({self.best_baseline()}; as it came: {with_range(as_it_came)}); "
                "target 1 at least"
            )
        return lines

    def complaints(self) -> list[str]:
        """What makes the figures doubtful, and adapters beyond the slots."""
        return [*self._failures(), *self._excesses(), *self._disturbances()]

    def _failures(self) -> list[str]:
        found = []
        for m in self.measured:
            errors = [a.error for a in m.drive.answers if a.error]
            if errors:
                count = f"{len(errors)} of {len(m.drive.answers)} requests failed"
                found.append(f"round {m.round + 1}, {m.phase}, {m.scheduler}: {count}: {errors[0]}")
        return found

    def _excesses(self) -> list[str]:
        if OURS not in self.schedulers():
            return []
        slots, most = self.setting.shape.slots, self.most_adapters(OURS)
        return [f"ours: {most} adapters at once in one engine, for {slots} slots"] if most > slots else []

    def _disturbances(self) -> list[str]:
        found = []
        for m in self.measured:
            where = f"round {m.round + 1}, {m.phase}, {m.scheduler}"
            late = percentile(m.lateness_s(), [], 0.99)
            if late is not None and late.value > LATE_P99_S:
                found.append(f"{where}: requests were sent late, p99 {1000 * late.value:.0f} ms")
            if m.cores.others > OTHERS_CORES:
                found.append(f"{where}: something else used {m.cores.others:.2f} cores")
        return found


def text(figure: Percentile | None, scale: float = 1.0, unit: str = "") -> str:
    """A percentile in `unit`, which is `scale` times as many."""
    if figure is None:
        return "-"
    return f"{'>= ' if figure.is_bound else ''}{short(scale * figure.value)}{unit}"


def _listed(figures: Iterable[float]) -> str:
    return ", ".join(map(short, figures))


def _word(met: bool) -> str:
    return "met" if met else "MISSED"
