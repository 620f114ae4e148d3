"""The order in which the driver lets things happen, and what a baseline counts."""

from __future__ import annotations

import pytest

from benchmarks.baselines import RoundRobin
from benchmarks.simulator.send_at_once import SendAtOnce
from simulation.costs import EngineSettings
from simulation.driver import Driver
from tests.unit.simulation.fakes import FLAT, a_call


def driven(router: SendAtOnce) -> Driver:
    """Idle replicas, and a driver that hands this router calls."""
    return Driver([EngineSettings(slots=2)] * 3, FLAT, router)


def test_a_router_counts_out_what_has_ended() -> None:
    router = SendAtOnce(RoundRobin())
    driver = driven(router)
    calls = [a_call(0.1 * number, f"a{number}") for number in range(5)]
    driver.run(calls)
    assert not any(ledger.in_flight or ledger.by_adapter for ledger in router.ledgers)
    assert all(call.finished_s is not None for call in calls)


def test_a_call_knows_its_times() -> None:
    router = SendAtOnce(RoundRobin())
    call = a_call(1.0, completion=3)
    driven(router).run([call])
    # Ten milliseconds a step, 1.1 s to load the adapter first.
    assert call.ttft_s == pytest.approx(1.11)
    assert call.tpot_s == pytest.approx(0.01)


def test_a_run_that_is_given_up_leaves_calls_without_an_end() -> None:
    call = a_call(completion=1000)
    driven(SendAtOnce(RoundRobin())).run([call], until_s=2.0)
    assert call.ttft_s is not None and call.finished_s is None and call.tpot_s is None
