"""A day of calls, those who say how many replicas there should be, and replicas that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulator.ours import Policy as Settings
from benchmarks.simulator.scaling.cluster import Cluster
from benchmarks.simulator.scaling.comparison import (
    ENGINE,
    Plan,
    ScalingComparison,
    policies,
    simulate,
)
from benchmarks.simulator.scaling.day import DAY_S, LONGEST_TOKENS, NIGHT, busy, day_of
from benchmarks.simulator.scaling.policies import Fixed, Gateway, Hpa, Policy, Seen
from fleet.pool_settings import Scaling
from simulation.costs import StepCosts
from simulation.driver import Call, Driver

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"


def trace_in(folder: Path, *, every_s: float = 10.0, count: int = 360, prompt: int = 100) -> Path:
    """A trace of calls at equal distances, as Azure writes them."""
    rows = []
    for index in range(count):
        minutes, seconds = divmod(index * every_s, 60)
        hours, minutes = divmod(int(minutes), 60)
        rows.append(f"2023-11-16 {hours:02}:{minutes:02}:{seconds:06.3f}0000,{prompt},8\n")
    path = folder / "trace.csv"
    path.write_text(HEADER + "".join(rows))
    return path


# -- the day -----------------------------------------------------------------------------------------------


def test_a_short_trace_is_played_again_with_as_many_calls_as_the_hour_lets_expect(tmp_path: Path) -> None:
    calls = day_of(trace_in(tmp_path), adapters=10, zipf=1.0, seed=1)
    night = sum(3 * 3600 <= call.at_s < 5 * 3600 for call in calls)
    noon = sum(15 * 3600 <= call.at_s < 17 * 3600 for call in calls)
    assert 0.05 * noon < night < 0.2 * noon
    assert calls == sorted(calls, key=lambda call: call.at_s)
    assert calls[0].at_s >= 0 and calls[-1].at_s < DAY_S


def test_the_same_seed_makes_the_same_day_and_another_one_another(tmp_path: Path) -> None:
    trace = trace_in(tmp_path)

    def drawn(seed: int) -> list[tuple[float, str | None]]:
        calls = day_of(trace, adapters=10, zipf=1.0, seed=seed, duration_s=7200.0)
        return [(call.at_s, call.adapter) for call in calls]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_trace_of_a_day_is_taken_as_it_is(tmp_path: Path) -> None:
    calls = day_of(trace_in(tmp_path, every_s=600.0, count=140), adapters=3, zipf=1.0, seed=1)
    assert [call.at_s for call in calls] == pytest.approx([600.0 * index for index in range(140)])


def test_prompts_that_no_replica_could_hold_are_cut(tmp_path: Path) -> None:
    calls = day_of(trace_in(tmp_path, prompt=10**6), adapters=3, zipf=1.0, seed=1, duration_s=600.0)
    assert {call.prompt_tokens for call in calls} == {LONGEST_TOKENS}


def test_a_file_without_arrivals_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no arrivals"):
        day_of(trace_in(tmp_path, count=1), adapters=3, zipf=1.0, seed=1)


def test_nights_are_quiet() -> None:
    assert busy(4 * 3600.0) == pytest.approx(NIGHT) and busy(16 * 3600.0) == pytest.approx(1.0)


# -- who says how many -------------------------------------------------------------------------------------


def test_an_hpa_sets_what_its_target_asks_for_and_waits_before_it_goes_down() -> None:
    hpa = Hpa(2.0, with_running=False)
    assert hpa.wanted(0.0, Seen(1, 6, 9, None)) == 3
    assert hpa.wanted(15.0, Seen(3, 6, 9, None)) == 3, "within its tolerance"
    assert hpa.wanted(30.0, Seen(3, 0, 9, None)) == 3
    assert hpa.wanted(350.0, Seen(3, 0, 9, None)) == 0, "its pool's range bounds it"
    assert Hpa(4.0, with_running=True).wanted(0.0, Seen(1, 6, 9, None)) == 4


def test_an_hpa_adds_four_replicas_or_as_many_again_at_a_look() -> None:
    assert Hpa(1.0, with_running=False).wanted(0.0, Seen(1, 100, 0, None)) == 5
    assert Hpa(1.0, with_running=False).wanted(0.0, Seen(8, 100, 0, None)) == 16


def test_the_gateway_is_believed_once_it_says_something() -> None:
    assert Gateway().wanted(0.0, Seen(2, 9, 9, None)) == 2
    assert Gateway().wanted(0.0, Seen(2, 9, 9, 5)) == 5


# -- replicas that come and go -----------------------------------------------------------------------------


class Told:
    """Wants what it is told to from a time on."""

    name = "told"

    def __init__(self, **at: int) -> None:
        self._at = {float(when.removeprefix("s")): count for when, count in at.items()}

    def wanted(self, now_s: float, seen: Seen) -> int:
        return next(count for at, count in sorted(self._at.items(), reverse=True) if now_s >= at)


def drive(
    policy: Policy, calls: list[Call], *, most: int = 3, least: int = 1, start_s: float = 60.0
) -> Cluster:
    """Run calls of one tenant."""
    cluster = Cluster(Settings(), {"t": ["a"]}, policy, scaling=Scaling(least), start_s=60.0)
    Driver([ENGINE] * most, StepCosts(), cluster).run(calls)
    assert repr(cluster.dispatcher) == AT_REST
    return cluster


def calls_of(*times_s: float, tokens: int = 10) -> list[Call]:
    return [Call(at_s, "t", "a", 100, tokens) for at_s in times_s]


def test_a_replica_takes_its_time_to_come_and_costs_from_its_order_on() -> None:
    calls = calls_of(50.0, 500.0)
    cluster = drive(Told(s0=0, s100=1), calls, least=0)
    assert calls[0].ttft_s is not None and 60 + 50 <= calls[0].ttft_s < 60 + 70
    assert cluster.orders == 1
    assert cluster.replica_s == pytest.approx(400, abs=16)


def test_one_that_goes_ends_what_it_runs_first() -> None:
    calls = calls_of(1.0, tokens=30_000)
    cluster = drive(Told(s0=1, s30=0), calls, least=0)
    assert calls[0].finished_s is not None and calls[0].finished_s > 300
    assert cluster.replica_s == pytest.approx(calls[0].finished_s, abs=1)


def test_one_that_is_not_wanted_any_more_before_it_has_come_never_serves() -> None:
    calls = calls_of(400.0)
    cluster = drive(Told(s0=1, s15=3, s45=1, s75=2), calls)
    assert cluster.orders == 3
    assert [replica.ready for replica in cluster.dispatcher.replicas.values()] == [True, True, False]


def test_the_gateway_wakes_a_pool_that_had_none_and_lets_it_go_when_nobody_asks() -> None:
    calls = calls_of(1000.0, 3000.0)
    cluster = drive(Gateway(), calls, least=0)
    assert all(call.ttft_s is not None and 60 < call.ttft_s < 80 for call in calls)
    assert cluster.replica_s < 1300


def test_a_run_is_summed_up(tmp_path: Path) -> None:
    plan = Plan(trace_in(tmp_path), "fixed at 2", 1, 1, 2, 60.0, 3600.0)
    day = simulate(plan, Fixed(2))
    assert day.replica_h == pytest.approx(2.0, rel=0.02)
    assert day.figures.goodput_share == 1.0
    comparison = ScalingComparison([day])
    assert comparison.complaints() == [] and comparison.table().row_count == 1


def test_every_policy_has_a_name_of_its_own() -> None:
    assert list(policies([8, 3], 2.0)) == [
        "fixed at 8",
        "fixed at 3",
        "HPA, 2 waiting",
        "HPA, 12.8 running or waiting",
        "ours",
    ]
