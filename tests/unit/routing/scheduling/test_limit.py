"""How many sequences keep their pace?"""

from __future__ import annotations

from routing.scheduling.limit import LEAST_SEQUENCES, ConcurrencyLimit

SLO_S = 0.05


def settled(limit: ConcurrencyLimit, pace: float, *, demand: int = 10_000, rounds: int = 400) -> int:
    """Let a replica run whose tokens take `pace` seconds for each sequence in flight."""
    for _ in range(rounds):
        in_flight = min(demand, limit.sequences)
        for _ in range(50):
            limit.note_gap(pace * in_flight)
        limit.decide(in_flight)
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
    limit.decide(256)
    assert limit.sequences == 256 and limit.itl_s is None


def test_tokens_that_came_together_share_their_time() -> None:
    limit = ConcurrencyLimit(SLO_S, least=4, most=256)
    limit.note_gap(0.4, tokens=10)
    assert limit.itl_s == 0.04
    assert repr(limit) == "<ConcurrencyLimit 256 itl=40.0ms slo=50ms>"
