"""The metrics page: what a scrape reads of the scheduler at that moment."""

from __future__ import annotations

from typing import Any

import pytest

from engines.health import EngineHealth, EngineState
from fleet.types import MetricsSettings
from routing.observing.metrics import GatewayMetrics
from routing.scheduling.state import SlotDrain
from routing.types import Outcome
from tests.unit.routing.observing.metrics.scrapes import Labels, Samples, samples
from tests.unit.routing.scheduling.busy import Busy, busy
from tests.unit.routing.scheduling.whole import MODELS, Whole

SHARED: Labels = (("pool", "shared"), ("replica", "shared-0"))


def metrics_of(house: Busy | Whole, **options: Any) -> GatewayMetrics:
    return GatewayMetrics(house.dispatcher, clock=house.clock, slos={}, **options)


def scraped(house: Busy | Whole, **options: Any) -> Samples:
    return samples(metrics_of(house, **options).page())


def of_replica(house: Busy, name: str, replica: str = "shared-0") -> float:
    pool = replica.partition("-")[0]
    return scraped(house)[f"tenantry_replica_{name}"][("pool", pool), ("replica", replica)]


def test_queues_are_counted_by_tenant_and_model_and_by_band() -> None:
    found = scraped(busy())
    assert found["tenantry_queue_depth"][("model", "sales"), ("tenant", "a")] == 1
    assert found["tenantry_queue_oldest_age_seconds"][("model", "sales"), ("tenant", "a")] == 11.5
    assert found["tenantry_in_flight"][("model", "support"), ("tenant", "a")] == 1
    by_band = {
        dict(labels)["band"]: depth
        for labels, depth in found["tenantry_band_queue_depth"].items()
        if dict(labels)["pool"] == "shared"
    }
    assert by_band == {"high": 0, "standard": 1, "low": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ready", 1),
        ("draining", 0),
        ("in_flight", 1),
        ("capacity", 8),
        ("inter_token_latency_seconds", 0.02),
        ("slots", 1),
        ("leased_slots", 1),
        ("draining_slots", 1),
        ("oldest_lease_seconds", 12.5),
        ("pinned_slots", 0),
        ("kv_cache_tokens", 1000),
    ],
)
def test_a_replica_shows_how_it_stands(name: str, value: float) -> None:
    assert of_replica(busy(), name) == pytest.approx(value)


def test_a_pace_that_nobody_has_measured_is_left_out_and_not_zero() -> None:
    paces = scraped(busy())["tenantry_replica_inter_token_latency_seconds"]
    assert list(paces) == [SHARED]


def test_draining_shows_until_the_replica_is_resumed() -> None:
    house = busy()
    house.dispatcher.set_draining("shared-0", True)
    assert (of_replica(house, "draining"), of_replica(house, "ready")) == (1, 1)
    assert of_replica(house, "draining", "alone-0") == 0
    house.dispatcher.set_draining("shared-0", False)
    assert of_replica(house, "draining") == 0


@pytest.mark.parametrize(
    ("told", "ready", "value"),
    [
        (EngineState.STOPPED, False, None),
        (EngineState.STARTING, False, None),
        (EngineState.DRAINING, False, None),
        (EngineState.READY, True, 1),
        (EngineState.FAILED, False, 0),
        (EngineState.SILENT, False, 0),
        (None, False, 0),
    ],
)
@pytest.mark.parametrize("shares_host", [True, False])
def test_a_replica_between_its_models_turns_is_not_shown_as_down(
    shares_host: bool, told: EngineState | None, ready: bool, value: int | None
) -> None:
    house = busy()
    replica = house.dispatcher.replicas["shared-0"]
    replica.host = "mesh-0" if shares_host else replica.name
    replica.engine.told = None if told is None else EngineHealth(told)
    house.dispatcher.set_ready("shared-0", ready)
    page = scraped(house)
    expected = value if shares_host else int(ready)
    assert page["tenantry_replica_ready"].get(SHARED) == expected
    assert page["tenantry_replica_in_flight"][SHARED] == 1, "of the other figures none is left out"


def test_a_breaker_is_in_one_state_at_a_time() -> None:
    house = busy()

    def states(replica: str) -> dict[str, float]:
        samples = scraped(house)["tenantry_replica_breaker_state"]
        return {
            dict(labels)["state"]: value
            for labels, value in samples.items()
            if dict(labels)["replica"] == replica
        }

    assert states("shared-0") == {"closed": 1, "open": 0, "half-open": 0}
    house.fail("shared-0", 3)
    assert states("shared-0") == {"closed": 0, "open": 1, "half-open": 0}
    assert states("alone-0") == {"closed": 1, "open": 0, "half-open": 0}


def test_a_slot_is_no_longer_being_cleared_once_it_is_given() -> None:
    house = busy()
    house.dispatcher.settle(house.tickets[0], Outcome.COMPLETED)
    assert of_replica(house, "draining_slots") == 0
    assert of_replica(house, "leased_slots") == 1, "it is the waiting adapter's now"


def test_a_free_slot_that_is_promised_is_not_being_cleared() -> None:
    house = busy()
    house.dispatcher.replicas["shared-0"].engine.slot_drain = SlotDrain("a-sales@1", "a", None)
    assert of_replica(house, "draining_slots") == 0


def test_what_waits_in_a_pool_is_added_up_over_its_base_models() -> None:
    house = Whole(width=1)
    tickets = [house.submit(model) for model in MODELS for _ in range(3)]
    depths = scraped(house)["tenantry_band_queue_depth"]
    assert sorted(depths.values()) == [0, 0, 4]
    house.end(*tickets)


def test_a_scrape_changes_nothing() -> None:
    house = busy()
    before = house.dispatcher.report()
    metrics = metrics_of(house)
    scheduler_only = [samples(metrics.page()), samples(metrics.page())]
    for found in scheduler_only:
        for name in [name for name in found if name.startswith("process_")]:
            del found[name]
    assert scheduler_only[0] == scheduler_only[1]
    assert house.dispatcher.report() == before


def test_queues_beyond_those_with_names_are_added_up() -> None:
    house = busy()
    found = scraped(house, settings=MetricsSettings(max_models=1))
    assert found["tenantry_queue_depth"] == {(("model", "sales"), ("tenant", "a")): 1}
    rest = (("model", "other"), ("tenant", "other"))
    assert found["tenantry_in_flight"][rest] == 1


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_a_tenant_that_is_named_as_the_rest_is_counts_there(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    house = busy()
    admitted = {("other", "other"): 3, ("a", "support"): 2, ("b", "support"): 1}
    monkeypatch.setattr(house.dispatcher, "admitted", lambda: admitted)
    found = scraped(house, settings=MetricsSettings(max_models=most))["tenantry_in_flight"]
    assert sum(found.values()) == 6
    assert found[("model", "other"), ("tenant", "other")] >= 3


def test_a_pool_with_a_range_says_how_many_replicas_it_should_have_and_no_other_does() -> None:
    house = busy(replicas=2)
    assert "tenantry_pool_desired_replicas" not in scraped(house)
    house.give_range(1)
    assert scraped(house)["tenantry_pool_desired_replicas"] == {(("pool", "shared"),): 2}
