"""How many sequences keep their pace?"""

from __future__ import annotations

from routing.scheduling.health.limit import EPOCH_S, LEAST_SEQUENCES, ConcurrencyLimit

SLO_S = 0.05


class Clock:
    """Goes on by one epoch at a time, each begun and ended by a call of `decide`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def epoch(self, limit: ConcurrencyLimit, in_flight: int, *gaps_s: float) -> None:
        """Let streams bring tokens at these gaps."""
        limit.decide(self.now_s, in_flight)
        for gap_s in gaps_s:
            limit.note_gap(gap_s)
        self.now_s += EPOCH_S
        limit.decide(self.now_s, in_flight)


def settled(limit: ConcurrencyLimit, pace: float, *, demand: int = 10_000, epochs: int = 400) -> int:
    """Let a replica run whose tokens take `pace` seconds for each sequence in flight."""
    clock = Clock()
    for _ in range(epochs):
        in_flight = min(demand, limit.sequences)
        clock.epoch(limit, in_flight, *[pace * in_flight] * 50)
    return limit.sequences


def test_it_starts_at_what_the_engine_runs_at_once() -> None:
    assert ConcurrencyLimit(SLO_S, least=4, most=256).sequences == 256


def test_it_comes_down_to_what_the_objective_allows_and_stays_near_it() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    found = settled(limit, SLO_S / 64)
    assert 0.75 * 64 <= found <= 64, "as many as keep within the objective"


def test_it_goes_up_again_when_the_engine_gets_faster() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    slow = settled(limit, SLO_S / 32)
    assert settled(limit, SLO_S / 128) > 2 * slow


def test_it_is_never_a_small_constant() -> None:
    limit = ConcurrencyLimit(SLO_S, least=1, most=256)
    assert settled(limit, SLO_S) == LEAST_SEQUENCES
    assert settled(ConcurrencyLimit(SLO_S, least=32, most=256), SLO_S) == 32, "a sequence for each slot"
    assert settled(ConcurrencyLimit(SLO_S, least=32, most=2), SLO_S) == 2, "but never more than the engine"


def test_an_idle_replica_does_not_look_like_a_fast_one() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    found = settled(limit, SLO_S / 64)
    assert settled(limit, SLO_S / 64, demand=3) == found


def test_without_a_stream_nothing_is_decided() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    Clock().epoch(limit, 256)
    assert limit.sequences == 256 and limit.itl_s is None


def test_one_slow_step_decides_nothing() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    Clock().epoch(limit, 256, *[0.03] * 900, *[0.3] * 50)
    assert limit.sequences == 256


def test_it_comes_down_again_only_when_the_last_time_has_taken_effect() -> None:
    limit, clock = ConcurrencyLimit(SLO_S, least=4, most=100), Clock()
    clock.epoch(limit, 100, 0.2)
    assert limit.sequences == 90
    for _ in range(10):
        clock.epoch(limit, 100, 0.2)  # long answers: as many still run
    assert limit.sequences == 90
    clock.epoch(limit, 90, 0.2)  # as many have ended, in the course of this epoch
    clock.epoch(limit, 90, 0.2)
    assert limit.sequences == 81


def test_it_comes_down_from_the_most_that_ran_in_the_epoch() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=100)
    limit.decide(0.0, 1)
    limit.note_gap(0.2)
    limit.decide(EPOCH_S / 2, 50)
    limit.decide(EPOCH_S, 2)
    assert limit.sequences == 45


def test_an_epoch_begins_with_a_stream() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=100)
    limit.decide(0.0, 0)
    limit.decide(10.0, 0)
    limit.note_gap(0.2)
    limit.decide(10.1, 100)
    assert limit.sequences == 100 and limit.itl_s is None


def test_tokens_that_came_together_share_their_time() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    limit.decide(0.0, 1)
    limit.note_gap(0.4, tokens=10)
    limit.decide(EPOCH_S, 1)
    assert limit.itl_s == 0.04
    assert repr(limit) == "<ConcurrencyLimit 256 itl=40.0ms slo=50ms>"
