"""Windowed figures of models: rates, quantiles, what counts as what, and how many models have their own."""

from __future__ import annotations

import pytest

from routing.observing.live.figures import BUCKET_S, BUCKETS, WINDOW
from routing.observing.live.histogram import MAX_ERROR
from routing.types import Outcome, Record
from tests.unit.routing.observing.live.records import NOW, answered, ended, figures
from tests.unit.routing.requests import target


def near(value: float) -> object:
    return pytest.approx(value, rel=MAX_ERROR * 1.01)


def test_a_minute_of_streams_gives_rates_and_quantiles() -> None:
    kept = figures()
    for second in range(60):
        kept.observe(answered(0.1 if second % 30 else 2.0), NOW + second)
    one = kept.of(kept.series(NOW + 60)["a", "support"], NOW + 59.9)
    assert one.requests == 60
    assert one.requests_per_s == pytest.approx(1.0, rel=0.01)
    assert one.tokens_per_s == pytest.approx(10.0, rel=0.01)
    assert one.first_token_p50_s == near(0.1)
    assert one.first_token_p99_s == near(2.0)
    assert one.answer_p50_s == near(0.2)
    assert one.queue_p99_s == near(0.01)
    assert one.error_rate == 0.0


def test_a_young_gateway_divides_by_the_time_it_has_run() -> None:
    kept = figures()
    for tenth in range(100):
        kept.observe(answered(), NOW + tenth / 10)
    assert kept.of(kept.total, NOW + 10).requests_per_s == pytest.approx(10.0)


def test_what_ended_more_than_a_minute_ago_counts_no_more_but_stays_in_the_history() -> None:
    kept = figures()
    kept.observe(answered(3.0), NOW)
    later = NOW + WINDOW * BUCKET_S
    series = kept.series(later)["a", "support"]
    one = kept.of(series, later)
    assert (one.requests, one.first_token_p99_s) == (0, None)
    history = series.history(int(later // BUCKET_S))
    assert len(history.requests) == BUCKETS
    assert history.requests[-WINDOW] == 1
    assert history.first_token_p99_s[-WINDOW] == near(3.0)
    assert sum(history.requests) == 1


def test_a_whole_answer_has_no_first_token_and_a_queue_time() -> None:
    kept = figures()
    kept.observe(answered(stream=False), NOW)
    one = kept.of(kept.series(NOW)["a", "support"], NOW + 1)
    assert one.first_token_p99_s is None
    assert one.queue_p99_s == near(0.01)
    assert one.answer_p99_s == near(0.2)


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (ended(Outcome.FAILED, 502, "engine_failed"), (1, 0, 0)),
        (ended(Outcome.FAILED, 200, "engine_failed"), (1, 0, 0)),
        (ended(Outcome.REJECTED, 503, "no_replica_ready"), (1, 0, 0)),
        (ended(Outcome.EXPIRED, 503, "queue_timeout"), (0, 1, 0)),
        (ended(Outcome.REJECTED, 503, "overloaded"), (0, 1, 0)),
        (ended(Outcome.REJECTED, 429, "max_concurrency"), (0, 0, 1)),
        (ended(Outcome.REJECTED, 400, "n_too_large"), (0, 0, 0)),
        (ended(Outcome.CANCELLED, 499, "client_gone"), (0, 0, 0)),
        (ended(Outcome.COMPLETED, 400, "invalid_request"), (0, 0, 0)),
    ],
    ids=lambda value: value.reason if isinstance(value, Record) else "",
)
def test_each_ending_counts_as_what_it_says_of_the_model(
    record: Record, counts: tuple[int, int, int]
) -> None:
    kept = figures()
    kept.observe(record, NOW)
    one = kept.of(kept.total, NOW + 1)
    assert (one.failed, one.late, one.capped) == counts
    assert one.error_rate == counts[0] + counts[1]
    assert one.fault == (record.reason if counts[0] + counts[1] else None)


def test_why_most_requests_had_to_wait_is_kept() -> None:
    kept = figures()
    for reason in ("no_slot", "no_room", "no_slot", None):
        kept.observe(answered(waits_for=reason), NOW)
    assert kept.of(kept.series(NOW)["a", "support"], NOW).waits_for == "no_slot"


def test_a_model_that_was_silent_for_all_of_the_time_kept_is_forgotten() -> None:
    kept = figures()
    kept.observe(answered(), NOW)
    assert kept.series(NOW + BUCKETS * BUCKET_S)
    assert not kept.series(NOW + (BUCKETS + 1) * BUCKET_S)


def test_a_silent_model_whose_cells_are_old_shows_an_empty_history() -> None:
    kept = figures()
    kept.observe(answered(), NOW)
    kept.observe(answered(of=target("b")), NOW + 10 * BUCKETS * BUCKET_S)
    number = int(NOW // BUCKET_S) + 10 * BUCKETS
    assert sum(kept.total.history(number).requests) == 0


# -- how many have figures of their own --------------------------------------------------------------------


def test_two_thousand_models_share_a_bounded_number_of_series_and_none_is_lost() -> None:
    kept = figures(max_models=50)
    for number in range(2000):
        kept.observe(answered(of=target("a", f"m{number}")), NOW + number / 100)
    series = kept.series(NOW + 20)
    assert len(series) <= 50
    own = sum(kept.of(one, NOW + 20).requests for one in series.values())
    assert own + kept.of(kept.other, NOW + 20).requests <= 2000
    assert kept.of(kept.other, NOW + 20).requests >= 1900
    assert kept.of(kept.total, NOW + 20).requests == 2000


def test_a_busy_model_takes_the_place_of_a_quiet_one() -> None:
    kept = figures(max_models=2)
    kept.observe(answered(of=target("a", "quiet")), NOW)
    for moment in (0.0, BUCKET_S, 2 * BUCKET_S):
        for _ in range(20):
            kept.observe(answered(of=target("a", "busy")), NOW + moment)
            kept.observe(answered(of=target("a", "late")), NOW + moment)
    assert kept.series(NOW + 3 * BUCKET_S).keys() == {("a", "busy"), ("a", "late")}


def test_equally_busy_models_do_not_take_turns() -> None:
    kept = figures(max_models=1)
    for moment in range(40):
        for model in ("one", "two"):
            kept.observe(answered(of=target("a", model)), NOW + moment)
    assert kept.series(NOW + 40).keys() == {("a", "one")}


# -- what is usual -----------------------------------------------------------------------------------------


def fed(*first_tokens_s: float) -> float | None:
    """What is usual after so many buckets with these first tokens."""
    kept = figures()
    for number, first_s in enumerate((*first_tokens_s, 1.0)):
        kept.observe(answered(first_s), NOW + number * BUCKET_S)
    return kept.series(NOW + number * BUCKET_S)["a", "support"].usual_s


def test_nothing_is_usual_before_three_buckets_have_passed() -> None:
    assert fed(0.1, 0.1) is None
    assert fed(0.1, 0.1, 0.1) == near(0.1)


def test_a_trouble_of_minutes_does_not_become_usual() -> None:
    usual_s = fed(*[0.1] * 30, *[8.0] * 36)  # three minutes of it
    assert usual_s is not None
    assert usual_s < 0.2, "one minute before it is five times that"


def test_a_change_that_stays_becomes_usual_in_the_end() -> None:
    usual_s = fed(*[0.3] * 30, *[1.4] * 300)  # not beyond the limit of 1.5 s
    assert usual_s == pytest.approx(1.22, rel=0.1)
