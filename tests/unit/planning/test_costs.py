"""What serving a model takes: from the roofline, from measurements, from measurements elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planning.catalogue import BY_KIND, known
from planning.costs import Measured, Switched, cost_of, roofline
from planning.values import Device, Figure, Kind, Model, ServingCost, Source, Way

EIGHT_B = Model(
    "llama", Kind.WHOLE, "", "", "shape", weight_bytes=16_060_000_000, kv_bytes_per_token=131_072,
    parameters=7_500_000_000, slot_bytes_per_rank=5_242_880,
)  # fmt: skip
H100 = BY_KIND["h100-80gb"]
MEASURED = Figure(0.02, Source.MEASURED, "ledger")


def measured(model: Model = EIGHT_B, device: Device = H100) -> Measured:
    cost = replace(roofline(model, device), base_s=MEASURED, switches={Way.COLD: MEASURED})
    return Measured(cost, model.shape, device)


def test_the_roofline_comes_near_what_was_measured_of_an_8b_model() -> None:
    gpu = Device("h100-64gb", 64 * 2**30, 2.02e12, 989e12)
    cost = roofline(EIGHT_B, gpu, context=300)
    assert cost.base_s.value == pytest.approx(13.27e-3, rel=0.1)
    assert cost.sequence_s.value == pytest.approx(0.0937e-3, rel=0.35)
    assert cost.adapter_s.value == pytest.approx(0.479e-3, rel=0.1)
    assert cost.base_s.source is Source.ROOFLINE
    assert cost.adapter_s.source is Source.GIVEN


def test_a_faster_device_is_faster_and_a_slice_slower() -> None:
    steps = [roofline(EIGHT_B, BY_KIND[kind]).step_s(32) for kind in ("l4", "a100-80gb", "h100-80gb", "b200")]
    assert steps == sorted(steps, reverse=True)
    slice_ = known("h100-80gb/2g.20gb")
    assert slice_ is not None
    assert roofline(EIGHT_B, slice_).tokens_per_s(16) < roofline(EIGHT_B, H100).tokens_per_s(16) / 2.5


def test_tensor_parallel_reads_less_on_each_device_and_loses_some() -> None:
    two = roofline(replace(EIGHT_B, tensor_parallel=2), H100)
    one = roofline(EIGHT_B, H100)
    assert one.base_s.value / 2 < two.base_s.value < one.base_s.value


def test_more_in_a_step_takes_longer_and_more_sequences_bring_more_tokens() -> None:
    cost = roofline(EIGHT_B, H100)
    assert cost.step_s(8) < cost.step_s(8, 4) < cost.step_s(8, 4, 16) < cost.step_s(8, 4, 16, 1000)
    assert cost.tokens_per_s(1) < cost.tokens_per_s(64)
    assert cost.prefill_s(4000) > cost.prefill_s(100) > cost.request_s.value


def test_ways_are_taken_as_shape_and_memory_allow() -> None:
    cost = roofline(EIGHT_B, H100)
    put, reload, cold = (cost.switches[way] for way in (Way.PUT, Way.RELOAD, Way.COLD))
    assert put.value < reload.value < cold.value
    assert cost.switch_s(same_shape=True, in_host_memory=True) == put
    assert cost.switch_s(same_shape=True, in_host_memory=False) == reload
    assert cost.switch_s(same_shape=False, in_host_memory=True) == cold
    assert replace(cost, switches={}).switch_s(same_shape=False, in_host_memory=False) is None


def test_the_cheapest_way_that_is_allowed_is_gone_and_none_whose_time_is_not_known() -> None:
    cost = roofline(EIGHT_B, H100)
    fork, wake1, wake2 = (Figure(seconds, Source.MEASURED) for seconds in (9.0, 2.0, 6.0))
    cost = replace(cost, switches={**cost.switches, Way.FORK: fork, Way.WAKE1: wake1, Way.WAKE2: wake2})
    assert cost.switch_s(same_shape=False, in_host_memory=True) == fork
    assert cost.switch_s(same_shape=False, in_host_memory=True, sleeps=True) == wake1
    assert cost.switch_s(same_shape=False, in_host_memory=False, sleeps=True) == wake2
    assert cost.switch_s(same_shape=True, in_host_memory=True, sleeps=True) == wake1
    slow = replace(cost, switches={**cost.switches, Way.RELOAD: Figure(12.0, Source.MEASURED)})
    assert slow.switch_s(same_shape=True, in_host_memory=False) == fork


def test_what_this_fleets_switches_took_counts_over_those_of_its_shape_and_a_calibration_over_both() -> None:
    def took(model: str, seconds: float, way: Way = Way.FORK, device: str = "h100-80gb") -> Switched:
        return Switched(model, "shape", device, {way: Figure(seconds, Source.MEASURED, "the ledger")})

    twins, elsewhere = took("twin", 12.0), took("llama", 1.0, device="h200")
    cost = cost_of(EIGHT_B, H100, switched=[elsewhere, twins])
    assert cost.switches[Way.FORK].value == 12.0
    assert cost.switches[Way.FORK].detail == "of twin, of the same shape: the ledger"
    own = [took("llama", 9.0), twins, took("llama", 70.0, Way.COLD)]
    cost = cost_of(EIGHT_B, H100, [measured()], switched=own)
    assert (cost.switches[Way.FORK].value, cost.switches[Way.COLD]) == (9.0, MEASURED)
    other = replace(EIGHT_B, name="other", shape="another")
    assert Way.FORK not in cost_of(other, H100, switched=[twins]).switches


def test_what_was_measured_counts_before_what_was_computed() -> None:
    cost = cost_of(EIGHT_B, H100, [measured()])
    assert cost.base_s == MEASURED
    assert cost.switches[Way.COLD] == MEASURED
    assert cost.switches[Way.PUT].source is Source.ROOFLINE


def test_a_model_of_the_same_shape_is_taken_for_it_and_another_is_not() -> None:
    twin = replace(EIGHT_B, name="twin")
    cost = cost_of(twin, H100, [measured()])
    assert (cost.model, cost.base_s.value) == ("twin", 0.02)
    assert cost.base_s.detail == "of llama, of the same shape: ledger"
    other = replace(EIGHT_B, name="other", shape="another")
    assert cost_of(other, H100, [measured()]) == roofline(other, H100)
    nameless = replace(EIGHT_B, name="other", shape="")
    assert cost_of(nameless, H100, [Measured(measured().cost, "", H100)]) == roofline(nameless, H100)


def test_a_measurement_goes_to_another_device_by_the_rooflines_ratio_and_says_so() -> None:
    h200 = BY_KIND["h200"]
    cost = cost_of(EIGHT_B, h200, [measured()])
    ratio = roofline(EIGHT_B, h200).base_s.value / roofline(EIGHT_B, H100).base_s.value
    assert cost.base_s.value == pytest.approx(0.02 * ratio)
    assert cost.base_s.source is Source.ROOFLINE
    assert cost.base_s.detail.startswith("measured on h100-80gb, times 0.")
    assert cost.device == "h200"
    unknown = Measured(measured().cost, "shape", None)
    assert cost_of(EIGHT_B, h200, [unknown]) == roofline(EIGHT_B, h200)


def test_the_nearest_measurement_counts() -> None:
    twin = replace(EIGHT_B, name="twin")
    own = Measured(replace(measured(twin).cost, base_s=Figure(0.03, Source.MEASURED)), "shape", H100)
    assert cost_of(twin, H100, [measured(), own]).base_s.value == 0.03


def test_a_cost_is_all_figures() -> None:
    cost: ServingCost = roofline(EIGHT_B, H100)
    assert all(getattr(cost, name).value >= 0 for name in ServingCost.__slots__ if name.endswith("_s"))
