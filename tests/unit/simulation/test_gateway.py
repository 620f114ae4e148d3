"""The gateway of a fleet under the virtual clock: pools of one model each, and models that take turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.pool_settings import ResidencySettings
from fleet.types import (
    BaseModel,
    Caps,
    Fleet,
    GatewaySettings,
    Pool,
    Slo,
    Strategy,
    Tenant,
)
from simulation.costs import EngineSettings
from simulation.driver import Call, Driver
from simulation.gateway import GatewayRouter
from tests.unit.simulation.fakes import FLAT

SWITCH_S = 2.0
ENGINE = EngineSettings(slots=0, kv_tokens=10_000)


def a_fleet(
    *models: str, strategy: Strategy = Strategy.MODEL_MESH, awake: int | None = 1, slo: Slo | None = None
) -> Fleet:
    """One pool on one host, all of whose models one tenant may ask for."""
    caps = Caps(max_concurrency=10**6, max_queued=10**6, queue_timeout_s=600.0)
    tenant = Tenant("shop", frozenset(), {model: model for model in models}, caps=caps)
    pool = Pool(
        "mesh",
        strategy,
        models,
        1,
        (),
        ("shop",),
        slo or Slo(),
        awake=awake,
        residency=ResidencySettings(preload=models[:1]) if strategy.shares_hosts else ResidencySettings(),
    )
    return Fleet(
        {m: BaseModel(m, f"/{m}") for m in models}, {}, {"shop": tenant}, {"mesh": pool}, GatewaySettings()
    )


def a_call(at_s: float, model: str, completion: int = 10) -> Call:
    return Call(at_s, "shop", None, 10, completion, base_model=model)


def drive(
    fleet: Fleet, calls: list[Call], *, devices: list[int] | None = None, lanes: int = 1
) -> GatewayRouter:
    """Run the calls; each step takes 10 ms."""
    router = GatewayRouter(fleet, lambda model, went: SWITCH_S)
    engines = [ENGINE] * len(fleet.pools["mesh"].replica_models)
    Driver(engines, FLAT, router, devices=devices, lanes=lanes).run(calls)
    return router


def test_a_request_waits_for_its_models_switch_and_for_who_is_awake_to_run_empty() -> None:
    calls = [a_call(10.0, "a"), a_call(30.0, "b"), a_call(60.0, "a")]
    router = drive(a_fleet("a", "b"), calls)
    assert [round(call.ttft_s or 0, 1) for call in calls] == [0.0, SWITCH_S, SWITCH_S]
    assert router.turns["mesh"].switch_count == 3  # a came first
    assert router.turns["mesh"].switching_s == 3 * SWITCH_S


def test_models_that_are_all_awake_switch_no_more() -> None:
    calls = [a_call(10.0 + i, "ab"[i % 2]) for i in range(40)]
    router = drive(a_fleet("a", "b", awake=2), calls)
    assert router.turns["mesh"].switch_count == 2
    assert max(call.ttft_s or 0 for call in calls[2:]) < 0.1


def test_engines_that_step_at_once_share_the_time_of_their_device() -> None:
    def seconds(devices: list[int], lanes: int = 1) -> float:
        calls = [
            a_call(10.0, "a", 200),
            a_call(10.0, "b", 200),
            a_call(30.0, "a", 200),
            a_call(30.0, "b", 200),
        ]
        drive(a_fleet("a", "b", awake=2), calls, devices=devices, lanes=lanes)
        return (calls[-1].finished_s or 0.0) - calls[-1].at_s

    assert seconds([0, 1]) == pytest.approx(2.0, abs=0.05)
    assert seconds([0, 0]) == pytest.approx(4.0, abs=0.1)
    assert seconds([0, 0], lanes=2) == pytest.approx(2.0, abs=0.05)


def test_models_with_replicas_of_their_own_are_ready_at_once() -> None:
    fleet = a_fleet("a", "b", strategy=Strategy.REPLICA_PER_MODEL, awake=None)
    calls = [a_call(0.0, "a"), a_call(0.0, "b")]
    router = drive(fleet, calls)
    assert [call.ttft_s for call in calls] == [pytest.approx(0.01)] * 2
    assert not router.turns


def test_with_an_objective_what_would_come_too_late_is_refused() -> None:
    calls = [a_call(10.0 + 0.02 * i, "abcdefgh"[i % 8], 200) for i in range(400)]
    drive(a_fleet(*"abcdefgh", slo=Slo(ttft_s=3.0)), calls)
    assert any(call.refused_s is not None for call in calls)


def test_every_call_ends_and_nothing_stays_in_the_dispatcher() -> None:
    calls = [a_call(5.0 + 0.5 * i, "abc"[i * i % 3]) for i in range(200)]
    router = drive(a_fleet("a", "b", "c"), calls)
    assert all(call.finished_s is not None for call in calls)
    assert repr(router.dispatcher) == "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"


def test_the_same_calls_give_the_same_run() -> None:
    runs = []
    for _ in range(2):
        calls = [a_call(5.0 + 0.5 * i, "abc"[i * i % 3]) for i in range(100)]
        drive(a_fleet("a", "b", "c"), calls)
        runs.append([call.finished_s for call in calls])
    assert runs[0] == runs[1]


def test_turns_without_the_time_of_a_switch_are_an_error() -> None:
    fleet = a_fleet("a", "b")
    with pytest.raises(ValueError, match="what a switch takes is not said, and models of mesh take turns"):
        Driver([ENGINE] * 2, FLAT, GatewayRouter(fleet)).run([])


def test_an_engine_may_serve_no_adapter_and_needs_no_place_for_one() -> None:
    assert replace(ENGINE, slots=0, host_places=0).kv_capacity == 10_000
