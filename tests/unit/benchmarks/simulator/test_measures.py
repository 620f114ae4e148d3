"""Latency, goodput and fairness of calls."""

from __future__ import annotations

import pytest

from benchmarks.baselines import RoundRobin
from benchmarks.simulator.measures import Window, figures, served_alike
from benchmarks.simulator.send_at_once import SendAtOnce
from benchmarks.simulator.workloads import NOISY
from fleet.types import Band
from simulation.costs import EngineSettings
from simulation.driver import Call, Driver
from simulation.engine import Engine
from tests.unit.simulation.fakes import FLAT, a_call, served

WINDOW = Window(0.0, 100.0)


def test_only_calls_within_both_objectives_are_good() -> None:
    calls = [
        served(1.0, 2.0, 2.5),  # 1 s, then 50 ms a token
        served(1.0, 4.0, 4.5),  # 3 s to the first token
        served(1.0, 2.0, 3.0),  # 100 ms a token
    ]
    found = figures(calls, [], WINDOW)
    assert found.goodput_share == pytest.approx(1 / 3)
    assert found.goodput_per_s == pytest.approx(0.01)
    assert found.ttft_p50_s == pytest.approx(1.0)


def test_neighbours_are_all_but_the_one_that_floods() -> None:
    calls = [served(1.0, 2.0, 2.5), served(1.0, 51.0, 51.5, tenant=NOISY)]
    found = figures(calls, [], WINDOW)
    assert found.neighbours_p99_s == pytest.approx(1.0)
    assert found.ttft_p99_s > 40


def test_calls_outside_the_window_do_not_count_and_neither_do_tokens_after_it() -> None:
    calls = [served(5.0, 6.0, 7.0), served(20.0, 21.0, 22.0), served(20.0, 101.0, 102.0)]
    found = figures(calls, [], Window(10.0, 100.0))
    assert found.tokens_per_s == pytest.approx(11 / 90)
    assert found.goodput_share == 0.0


def test_refused_and_unserved_calls_are_told_apart() -> None:
    refused, unserved = a_call(1.0), a_call(1.0)
    refused.refused_s = 1.0
    found = figures([refused, unserved, served(1.0, 2.0, 2.5), served(1.0, 2.0, 2.5)], [], WINDOW)
    assert (found.refused_share, found.unserved_share) == (0.25, 0.25)


def test_a_window_without_calls_is_refused() -> None:
    with pytest.raises(ValueError, match="make the run longer"):
        figures([served(1.0, 2.0, 3.0)], [], Window(50.0, 100.0))


def test_bands_are_summed_up_each_for_itself() -> None:
    calls = [served(1.0, 2.0, 2.5, tenant="t1"), served(1.0, 9.0, 9.5, tenant="t2")]
    found = figures(calls, [], WINDOW, {"t1": Band.HIGH})
    assert found.band_goodput_share == {"high": 1.0, "standard": 0.0}
    assert found.band_p99_s["high"] == pytest.approx(1.0)


def test_loads_are_counted_for_each_call_that_was_sent() -> None:
    driver = Driver([EngineSettings(slots=1)], FLAT, SendAtOnce(RoundRobin()))
    calls = [a_call(float(number), f"a{number % 2}") for number in range(4)]
    driver.run(calls)
    engines: list[Engine] = driver.engines
    found = figures(calls, engines, WINDOW)
    assert (found.loads_per_call, found.disk_loads_per_call) == (1.0, 0.5)


def test_a_tenant_that_got_more_than_its_fair_part_shows() -> None:
    unserved = [Call(1.0, "t2", "a0", 100, 11) for _ in range(2)]
    calls = [served(1.0, 2.0, 2.5, tenant="t1") for _ in range(2)] + unserved
    assert served_alike(calls, WINDOW) == pytest.approx(0.5)
    assert served_alike(unserved, WINDOW) == 0.0
