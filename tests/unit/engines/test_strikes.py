"""How long does a way rest after it has failed, and between whom?"""

from __future__ import annotations

from engines.strikes import LAST_S, Strikes


def test_a_way_rests_longer_with_each_failure_until_it_succeeds() -> None:
    strikes, now_s, rests = Strikes(), 0.0, []
    for _ in range(6):
        strike = strikes.failed("put", "even", "odd", "shape mismatch", now_s)
        assert strikes.rests("put", "even", "odd", strike.until_s - 0.1)
        assert not strikes.rests("put", "even", "odd", strike.until_s)
        rests.append(strike.until_s - now_s)
        now_s = strike.until_s
    assert rests == [60, 240, 960, LAST_S, LAST_S, LAST_S]
    strikes.worked("put", "even", "odd")
    assert strikes.failed("put", "even", "odd", "again", now_s).times == 1


def test_other_ways_and_other_models_are_not_concerned() -> None:
    strikes = Strikes()
    strikes.failed("put", "even", "odd", "shape mismatch", 0.0)
    others = [
        ("reload", "even", "odd"),
        ("put", "odd", "even"),
        ("put", None, "odd"),
        ("put", "third", "odd"),
    ]
    assert not any(strikes.rests(*other, now_s=0.0) for other in others)


def test_what_rests_is_told_with_the_last_failures_words() -> None:
    strikes = Strikes()
    strikes.failed("put", "even", "odd", "shape mismatch", 0.0)
    strikes.failed("fork", None, "odd", "it ended", 0.0)
    strikes.failed("put", "odd", "even", "another", 0.0)
    assert strikes.of("odd", 1.0) == {"put": "shape mismatch (1x after even)", "fork": "it ended (1x)"}
    assert strikes.of("odd", 60.0) == {}
