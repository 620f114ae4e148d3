"""What becomes of an engine that does not start, and who hears of it?"""

from __future__ import annotations

import logging

import pytest

from engines.health import EngineHealth, EngineState
from engines.restarts import FAILURES_BEFORE_DEAD, MAX_RESTART_DELAY_S, SAME_REASON_AGAIN_S, Restarts
from tests.fakes import FakeClock

NO_COMPILER = "InvalidCxxCompiler: none"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def restarts(clock: FakeClock) -> Restarts:
    return Restarts("shared-0", clock)


def health(restarts: Restarts, *, answers: bool = False, draining: bool = False) -> EngineHealth:
    return restarts.health(answers=answers, draining=draining)


def test_it_goes_from_starting_to_ready(restarts: Restarts) -> None:
    assert health(restarts).state is EngineState.STARTING
    restarts.passed(41.0)
    assert health(restarts, answers=True) == EngineHealth(EngineState.READY, "", health(restarts).worker)


def test_it_stays_failed_with_its_words_until_a_start_succeeds(restarts: Restarts) -> None:
    restarts.did_not_start(NO_COMPILER)
    assert (health(restarts).state, health(restarts).reason) == (EngineState.FAILED, NO_COMPILER)
    restarts.passed(41.0)
    assert (health(restarts, answers=True).state, health(restarts).deaths) == (EngineState.READY, 0)


def test_starts_that_fail_come_ever_more_slowly_and_end_liveness(restarts: Restarts) -> None:
    delays = []
    for _ in range(FAILURES_BEFORE_DEAD + 5):
        restarts.did_not_start(NO_COMPILER)
        delays.append(restarts.delay_s)
    assert delays == sorted(delays) and delays[0] >= 2 and delays[-1] == MAX_RESTART_DELAY_S
    assert not restarts.is_alive()
    restarts.passed(41.0)
    assert restarts.is_alive() and restarts.delay_s <= 1


def test_one_failure_is_one_line_and_the_same_one_again_is_none(
    restarts: Restarts, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.engine")

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]

    restarts.did_not_start(NO_COMPILER)
    assert len(errors()) == 1 and NO_COMPILER in errors()[0] and "\n" not in errors()[0]
    clock.now += SAME_REASON_AGAIN_S - 1
    restarts.did_not_start(NO_COMPILER)
    assert len(errors()) == 1
    restarts.did_not_start("OSError: no disk")
    assert len(errors()) == 2, "that is news"
    clock.now += SAME_REASON_AGAIN_S
    restarts.did_not_start("OSError: no disk")
    assert len(errors()) == 3
    assert not any(record.exc_info for record in caplog.records)


def test_a_death_is_told_with_its_words_while_the_next_one_starts(restarts: Restarts) -> None:
    restarts.passed(41.0)
    restarts.died("RuntimeError: shape")
    told = health(restarts)
    assert (told.state, told.deaths, told.last_death) == (EngineState.STARTING, 1, "RuntimeError: shape")
    assert "shape" in told.reason and not told.machine_to_blame


@pytest.mark.parametrize(("words", "fails_to_return"), [(NO_COMPILER, False), ("RuntimeError: shape", True)])
def test_the_machine_is_to_blame_for_its_own_words_and_for_an_engine_that_does_not_come_back(
    restarts: Restarts, words: str, fails_to_return: bool
) -> None:
    restarts.passed(41.0)
    restarts.died(words)
    if fails_to_return:
        restarts.did_not_start("whatever it is")
    restarts.passed(41.0)
    assert health(restarts, answers=True).machine_to_blame
    restarts.died("RuntimeError: shape")
    assert not health(restarts).machine_to_blame, "each death has its own reason"


def test_one_that_hangs_or_is_told_to_end_is_not_ready(restarts: Restarts) -> None:
    restarts.passed(41.0)
    assert health(restarts).state is EngineState.SILENT
    assert health(restarts, answers=True, draining=True).state is EngineState.DRAINING


def test_an_engine_that_says_no_more_than_its_state_is_understood() -> None:
    assert EngineHealth.from_json({"state": "ready"}) == EngineHealth(EngineState.READY)


def test_it_survives_the_wire() -> None:
    told = EngineHealth(EngineState.FAILED, "why", "w", 2, "what", True)
    assert EngineHealth.from_json(told.to_json()) == told and told.to_json()["ready"] is False
