"""Rounds are compared one by one, and failures are said."""

from __future__ import annotations

from benchmarks.rounds import Figure, Measurement, Rounds
from benchmarks.stats import Spread
from tests.unit.benchmarks.loads import load_result

PER_S = Figure("requests/s", "chat", lambda m: m.result.requests_per_s)


def rounds(**counts: list[int]) -> Rounds:
    return Rounds([Measurement("chat", name, load_result(ok)) for name, oks in counts.items() for ok in oks])


def test_ratios_and_differences_are_taken_between_the_same_rounds() -> None:
    report = rounds(ours=[50, 5], theirs=[100, 10], alone=[200, 20])
    assert report.targets() == ["ours", "theirs", "alone"]
    assert report.summary("ours", PER_S) == Spread(13.75, 2.5, 25.0, 2)
    assert report.ratio("ours", "theirs", PER_S) == Spread(0.5, 0.5, 0.5, 2)
    assert report.added("ours", "alone", PER_S) == Spread(-41.25, -75.0, -7.5, 2)


def test_a_target_that_was_not_run_gives_no_ratio() -> None:
    assert rounds(ours=[50]).ratio("ours", "theirs", PER_S) is None


def test_failed_requests_are_complained_about_with_their_reason() -> None:
    assert rounds(ours=[50]).complaints() == []
    (line,) = Rounds([Measurement("chat", "ours", load_result(50, failed=2))]).complaints()
    assert line == "ours, chat: 2 of 52 requests failed: 503: busy"
    assert rounds(ours=[0]).complaints() == ["ours, chat: 0 of 0 requests failed: none was answered in time"]
