"""Targets are met or missed by the figures, and what makes the figures doubtful is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival
from benchmarks.scheduler.figures import Percentile
from benchmarks.scheduler.phases import OURS, Phase
from benchmarks.scheduler.report import Report, text
from benchmarks.scheduler.table import conditions, render
from tests.unit.benchmarks.scheduler.measured import CORES, made, measured, report

BASELINE = "hash affinity"


def answers(count: int, ttft_s: float = 0.1, *, tenant: int = 0) -> list[Answer]:
    return [made(1.0 + 5.0 * n / count, ttft_s, tenant=tenant) for n in range(count)]


def p99_s(found: Report, phase: Phase, *, neighbours: bool = False) -> float:
    exact = found.ttft(phase, OURS, 0.99, neighbours=neighbours)
    assert exact is not None and not exact.is_bound
    return exact.value


def whole_report(*, under_flood_s: float = 0.1, done: int = 40) -> list[str]:
    parts = [
        measured(Phase.STEADY, OURS, answers(20)),
        measured(Phase.FLOOD, OURS, answers(20, under_flood_s)),
        measured(Phase.SATURATED, OURS, answers(done)),
        measured(Phase.SATURATED, BASELINE, answers(40)),
    ]
    return report(*parts).targets()


@pytest.mark.parametrize(
    ("under_flood_s", "done", "words"),
    [(0.149, 40, ["met", "met"]), (0.151, 40, ["MISSED", "met"]), (0.1, 39, ["met", "MISSED"])],
)
def test_targets_are_met_or_missed(under_flood_s: float, done: int, words: list[str]) -> None:
    lines = whole_report(under_flood_s=under_flood_s, done=done)
    assert [line.partition(":")[0] for line in lines] == words


def test_the_ratio_of_neighbours_is_shown_by_round() -> None:
    parts = [
        measured(phase, OURS, answers(20, ttft_s), number=number)
        for number, (steady_s, flood_s) in enumerate([(0.1, 0.2), (0.1, 0.05)])
        for phase, ttft_s in ((Phase.STEADY, steady_s), (Phase.FLOOD, flood_s))
    ]
    assert report(*parts).neighbour_ratios(OURS) == pytest.approx([2.0, 0.5])
    assert "(by round: 2, 0.5)" in report(*parts).targets()[0]


def saturated_at(ours_s: float | None, baseline_s: float | None) -> Report:
    """Both got the same done, while the machine needed so long for the same work."""
    parts = [
        replace(measured(Phase.SATURATED, OURS, answers(40)), work_s=ours_s),
        replace(measured(Phase.SATURATED, BASELINE, answers(40)), work_s=baseline_s),
    ]
    return report(*parts)


def test_who_got_as_much_done_on_a_slower_machine_got_more_done() -> None:
    found = saturated_at(0.0012, 0.0008)
    assert found.pace(Phase.SATURATED, OURS) == pytest.approx([1 / 1.2])
    assert found.tokens_at_equal_pace_per_s(Phase.SATURATED, OURS) == pytest.approx([60.0])
    assert found.tokens_at_equal_pace_per_s(Phase.SATURATED, BASELINE) == pytest.approx([40.0])
    (line,) = found.targets()
    assert line.startswith("met: throughput at equal pace of the machine is 1.5 of the best baseline's")
    assert "as it came: 1)" in line
    assert saturated_at(0.0008, 0.0012).targets()[0].startswith("MISSED")


def test_where_the_pace_is_not_known_throughput_is_compared_as_it_came() -> None:
    found = saturated_at(None, None)
    assert found.pace(Phase.SATURATED, OURS) == []
    assert found.tokens_at_equal_pace_per_s(Phase.SATURATED, OURS) == pytest.approx([50.0])
    assert found.targets()[0].startswith("met: throughput at equal pace of the machine is 1 of")


def test_beside_each_rounds_ratio_stands_how_much_slower_the_machine_was() -> None:
    steady = replace(measured(Phase.STEADY, OURS, answers(20)), work_s=0.0010)
    flood = replace(measured(Phase.FLOOD, OURS, answers(20, 0.2)), work_s=0.0012)
    assert "(by round: 2; the same work took 1.2 times as long)" in report(steady, flood).targets()[0]


def test_a_bound_meets_no_target() -> None:
    cut = Answer(Arrival(2.0, 0, 0), due_s=11.95)
    cut.due_s = 8.95
    steady = measured(Phase.STEADY, OURS, answers(20, 3.05))
    flood = measured(Phase.FLOOD, OURS, [*answers(3), cut])
    assert report(steady, flood).neighbour_ratio(OURS) == Percentile(1.0, is_bound=True)
    assert report(steady, flood).targets()[0].startswith("MISSED")


def test_without_a_baseline_there_is_no_throughput_to_compare() -> None:
    alone = report(measured(Phase.SATURATED, OURS, answers(4)))
    assert alone.best_baseline() is None and alone.throughput_ratio() is None
    assert report(measured(Phase.SATURATED, BASELINE, answers(4))).throughput_ratio() is None


def test_neighbours_are_all_but_the_tenant_that_floods() -> None:
    mixed = [*answers(10), *answers(10, 2.0, tenant=1)]
    found = report(measured(Phase.FLOOD, OURS, mixed))
    assert p99_s(found, Phase.FLOOD, neighbours=True) == pytest.approx(0.1)
    assert p99_s(found, Phase.FLOOD) == pytest.approx(2.0)
    assert found.goodput(Phase.FLOOD, OURS, neighbours=True) == 1.0
    assert found.goodput(Phase.FLOOD, OURS) == 0.5


def test_rounds_are_pooled_for_percentiles_and_kept_apart_for_throughput() -> None:
    rounds = [
        measured(Phase.SATURATED, OURS, answers(10, 0.1), number=0),
        measured(Phase.SATURATED, OURS, answers(20, 0.2), number=1),
    ]
    found = report(*reversed(rounds))
    assert found.tokens_per_s(Phase.SATURATED, OURS) == pytest.approx([12.5, 25.0])
    assert p99_s(found, Phase.SATURATED) == pytest.approx(0.2)


def test_a_figure_that_was_not_measured_is_none() -> None:
    empty = report(measured(Phase.STEADY, OURS, []))
    assert empty.ttft(Phase.STEADY, OURS, 0.5) is None
    assert empty.goodput(Phase.STEADY, OURS) is None
    assert empty.reads_per_request(Phase.STEADY, OURS) is None
    assert empty.neighbour_ratio(OURS) is None
    assert empty.targets() == []


def test_reads_are_for_each_request_that_was_begun() -> None:
    found = report(measured(Phase.STEADY, OURS, answers(8)))
    assert found.reads_per_request(Phase.STEADY, OURS) == 1 / 8


def test_more_adapters_than_slots_in_vllm_are_complained_about_for_ours_alone() -> None:
    ours = measured(Phase.STEADY, OURS, answers(2), most_adapters=3)
    theirs = measured(Phase.STEADY, BASELINE, answers(2), most_adapters=3)
    assert report(theirs).complaints() == []
    (line,) = report(ours, theirs).complaints()
    assert "3 adapters at once in one engine, for 2 slots" in line


def test_failures_lateness_and_strangers_are_complained_about() -> None:
    failed, late = made(2.0), made(3.0)
    failed.error, failed.whole = "503: busy", False
    late.sent_s = late.due_s + 0.5
    crowded = replace(CORES, others=0.7)
    lines = report(measured(Phase.STEADY, OURS, [failed, late], cores=crowded)).complaints()
    assert "1 of 2 requests failed: 503: busy" in lines[0]
    assert "sent late, p99 500 ms" in lines[1]
    assert "something else used 0.70 cores" in lines[2]


def test_the_table_has_a_column_for_each_scheduler_and_ours_is_last() -> None:
    parts = [measured(phase, name, answers(4)) for phase in Phase for name in (OURS, BASELINE)]
    console = Console(width=160)
    with console.capture() as capture:
        console.print(render(report(*parts)))
    head = next(line for line in capture.get().splitlines() if OURS in line)
    assert head.index(BASELINE) < head.index(OURS)
    assert "neighbours' TTFT p99" in capture.get()
    assert any("2 slots" in line for line in conditions(report(*parts)))


def test_a_bound_is_shown_as_one() -> None:
    assert text(Percentile(2.0, is_bound=True), 1000, " ms") == ">= 2000 ms"
    assert text(Percentile(1.2345)) == "1.23"
    assert text(None) == "-"
