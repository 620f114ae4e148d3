"""The gateway's dispatcher under the virtual clock."""

from __future__ import annotations

import pytest

from benchmarks.simulator.ours import Ours, Policy
from benchmarks.simulator.workloads import CONV, Flood, Workload
from fleet.types import Band, Slo
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Call, Driver

ENGINE = EngineSettings(slots=2, host_places=8, max_sequences=8)
BUSY = Workload(12, 6.0, CONV, duration_s=30.0)


class Watched(Driver):
    """Notes how many adapters an engine was ever given at once."""

    most = 0

    def send(self, call: Call, replica: int) -> None:
        """Send, then count."""
        super().send(call, replica)
        engine = self.engines[replica]
        waiting = {adapter for adapter, queue in engine._queues.items() if queue}
        self.most = max(self.most, len(waiting | engine.active.keys()))


def drive(
    policy: Policy, workload: Workload = BUSY, bands: dict[str, Band] | None = None
) -> tuple[Watched, list[Call]]:
    """Two replicas of two slots."""
    driver = Watched([ENGINE] * 2, StepCosts(), Ours(policy, workload.tenants(), bands))
    calls = workload.calls(1)
    driver.run(calls)
    return driver, calls


def test_every_call_is_served_and_nothing_stays_in_the_dispatcher() -> None:
    router = Ours(Policy(), BUSY.tenants())
    calls = BUSY.calls(1)
    Driver([ENGINE] * 2, StepCosts(), router).run(calls)
    assert all(call.finished_s is not None for call in calls)
    assert repr(router.dispatcher) == "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"


def test_no_engine_is_ever_given_more_adapters_than_it_has_slots() -> None:
    driver, _ = drive(Policy())
    assert driver.most == 2


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [[call.finished_s for call in drive(Policy())[1]] for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_queue_timeout_refuses_what_waits_too_long() -> None:
    _, calls = drive(Policy(queue_timeout_s=1.0))
    refused = [call for call in calls if call.refused_s is not None]
    assert refused
    assert all(call.refused_s is not None and call.refused_s - call.at_s >= 1.0 for call in refused)
    assert all((call.refused_s is None) != (call.finished_s is None) for call in calls)


def test_an_objective_sheds_and_the_served_wait_less() -> None:
    workload = Workload(12, 12.0, CONV, duration_s=60.0)
    _, shed = drive(Policy(slo=Slo(ttft_s=1.0, itl_s=0.06)), workload)
    _, kept = drive(Policy(), workload)
    assert sum(call.refused_s is not None for call in shed) > 50
    assert sum(call.refused_s is not None for call in kept) == 0
    mean = [
        sum(times) / len(times)
        for times in ([call.ttft_s for call in calls if call.ttft_s is not None] for calls in (shed, kept))
    ]
    assert mean[0] < mean[1] / 2


def test_gaps_between_tokens_reach_the_dispatcher_where_there_is_an_objective() -> None:
    driver, _ = drive(Policy(slo=Slo(itl_s=0.06)))
    router = driver._router
    assert isinstance(router, Ours)
    limits = [replica.engine.limit for replica in router.dispatcher.replicas.values()]
    assert all(limit is not None and limit.itl_s is not None and 0.01 < limit.itl_s < 1.0 for limit in limits)


def test_a_flood_does_not_keep_others_waiting() -> None:
    flooded = Workload(4, 1.0, CONV, duration_s=60.0, flood=Flood(20.0))
    _, calls = drive(Policy(), flooded)
    neighbours, noisy = (
        [call.ttft_s for call in calls if call.ttft_s is not None and (call.tenant == "noisy") is is_noisy]
        for is_noisy in (False, True)
    )
    assert sum(neighbours) / len(neighbours) < sum(noisy) / len(noisy) / 2


def test_a_higher_band_waits_less() -> None:
    bands = {f"t{number}": Band.HIGH for number in range(0, 12, 3)}
    workload = Workload(12, 9.0, CONV, duration_s=60.0, zipf=0.0)
    _, calls = drive(Policy(), workload, bands)
    high = [call.ttft_s or 0.0 for call in calls if call.tenant in bands]
    others = [call.ttft_s or 0.0 for call in calls if call.tenant not in bands]
    assert sum(high) / len(high) < sum(others) / len(others) / 2


def test_settings_change_by_name_and_an_unknown_one_is_refused() -> None:
    changed = Policy().with_settings({"slot_wait_s": 3.0})
    assert (changed.settings.slot_wait_s, changed.settings.burst_share) == (
        3.0,
        Policy().settings.burst_share,
    )
    with pytest.raises(TypeError):
        Policy().with_settings({"nonsense": 1.0})
