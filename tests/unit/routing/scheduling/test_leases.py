"""Which slot drains for an adapter that waits for one?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.leases import DRAIN_S, SlotHolders, SlotNeed, slot_to_drain
from routing.scheduling.state import Engine, Lease, SlotDrain
from routing.types import Request
from tests.unit.routing.requests import adapter_id, engine, request, run_on

WEIGHTS = {"a": 1.0, "b": 1.0, "c": 1.0}


def drain(
    engines: list[Engine],
    asked: Request,
    *,
    waited_s: float = 10.0,
    weights: dict[str, float] | None = None,
    ranks: dict[str, int] | None = None,
    flooding: frozenset[str] = frozenset(),
    where_in_memory: bool = False,
    **need: Any,
) -> Engine | None:
    """Decide which slot drains, and let it; return its engine."""
    leased = Counter(lease.tenant for one in engines for lease in one.leases.values())
    holders = SlotHolders(leased, weights or WEIGHTS, ranks or dict.fromkeys(WEIGHTS, 1), flooding)
    waiting = SlotNeed(asked, waited_s, **need)
    before = [one.slot_drain for one in engines]
    decision = slot_to_drain(engines, waiting, holders, slot_wait_s=10.0, where_in_memory=where_in_memory)
    assert [one.slot_drain for one in engines] == before, "a decision changes nothing"
    if decision is None:
        return None
    decision.engine.slot_drain = decision.drain
    return decision.engine


def knowing(one: Engine, *models: str) -> Engine:
    """An engine that may serve these too."""
    one.adapters |= {adapter_id(model) for model in models}
    return one


def test_a_flood_gets_a_slot_neither_for_its_old_queue_nor_for_balance() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"))
    run_on(one, request("a", "sales"))
    assert drain([one], request("b"), waited_s=100.0, floods=True) is None
    assert drain([one], request("b"), waited_s=100.0) is one


def test_a_flood_gets_a_slot_from_a_lower_band_and_takes_turns_with_itself() -> None:
    one = knowing(engine(slots=1), "b-sales")
    run_on(one, request("a"))
    assert drain([one], request("b"), floods=True, ranks={"a": 2, "b": 1, "c": 1}) is one
    other = knowing(engine(slots=1), "b-sales")
    run_on(other, request("b", "support"))
    assert drain([other], request("b", "sales"), floods=True) is other


def test_whoever_has_waited_too_long_gets_the_slot_of_the_adapter_with_least_in_flight() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"), times=3)
    run_on(one, request("a", "sales"))
    assert drain([one], request("b")) is one
    assert one.slot_drain == SlotDrain("b-support@1", "b", evicted="a-sales@1")
    assert drain([one], request("b")) is None, "once is enough"


def test_a_tenant_with_two_slots_gives_one_up_soon_to_a_tenant_without_any() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"))
    run_on(one, request("a", "sales"))
    assert drain([one], request("b"), waited_s=0.4) is None
    assert drain([one], request("b"), waited_s=0.5) is one


def test_a_tenant_that_floods_gives_up_what_it_has_too_much_at_once() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"), times=8)
    run_on(one, request("a", "sales"), times=8)
    assert drain([one], request("b"), waited_s=0.0) is None
    assert drain([one], request("b"), waited_s=0.0, flooding=frozenset({"a"})) is one
    last = engine(slots=1)
    run_on(last, request("a"))
    assert drain([last], request("b"), waited_s=9.0, flooding=frozenset({"a"})) is None, "its last is its own"


@pytest.mark.parametrize("asks", ["a", "b"])
def test_a_slot_drains_when_those_who_wait_have_lost_what_it_costs_those_who_run(asks: str) -> None:
    one = knowing(engine(slots=2), "a-x", "b-x")
    run_on(one, request("a", "support"), times=6)
    run_on(one, request("a", "sales"), times=6)
    wanted = request(asks, "x")
    assert drain([one], wanted, waited_s=2.9) is None, "half a second for each of six"
    assert drain([one], wanted, waited_s=3.0) is one
    one.slot_drain = None
    assert drain([one], wanted, waited_s=0.9, queued=3) is None
    assert drain([one], wanted, waited_s=1.0, queued=3) is one, "three wait as long"


def test_slots_do_not_wander_between_tenants_that_hold_as_many() -> None:
    one = knowing(engine(slots=2), "b-sales")
    run_on(one, request("a", "support"))
    run_on(one, request("b", "support"))
    assert drain([one], request("c"), waited_s=9.0) is None, "one for nobody is no better than one for him"


def test_of_a_tenants_own_adapters_one_that_has_waited_takes_over_soon() -> None:
    one = knowing(engine(slots=2), "b-sales")
    run_on(one, request("a", "support"))
    run_on(one, request("b", "support"))
    assert drain([one], request("b", "sales"), waited_s=0.4) is None
    assert drain([one], request("b", "sales"), waited_s=0.5) is one
    assert one.slot_drain == SlotDrain("b-sales@1", "b", evicted="b-support@1")


def test_a_higher_band_gets_a_slot_from_a_lower_one_at_once_and_never_the_other_way() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"))
    run_on(one, request("b", "support"))
    ranks = {"a": 0, "b": 2, "c": 1}
    assert drain([one], request("c"), waited_s=0.0, ranks=ranks) is one
    assert one.slot_drain == SlotDrain("c-support@1", "c", evicted="b-support@1")
    one.slot_drain = None
    assert drain([one], request("c"), waited_s=9.0, ranks={"a": 0, "b": 0, "c": 2}) is None
    assert drain([one], request("c"), waited_s=10.0, ranks={"a": 0, "b": 0, "c": 2}) is one, (
        "but not for ever"
    )


def test_weight_is_a_claim_to_slots() -> None:
    one = knowing(engine(slots=4), "a-x", "a-y")
    for model in ("support", "sales", "x", "y"):
        run_on(one, request("a", model))
    assert drain([one], request("b"), waited_s=9.0, weights={"a": 100.0, "b": 1.0}) is None
    assert drain([one], request("b"), waited_s=1.0, weights={"a": 1.0, "b": 1.0}) is one


def test_the_evicted_adapter_is_the_one_with_least_in_flight_in_the_lowest_band() -> None:
    one = engine(slots=3)
    run_on(one, request("a", "support"))
    run_on(one, request("b", "support"), times=5)
    run_on(one, request("b", "sales"), times=6)
    drained = drain([one], request("c"), waited_s=10.0, ranks={"a": 1, "b": 2, "c": 1})
    assert drained is not None and drained.slot_drain is not None
    assert drained.slot_drain.evicted == "b-support@1"


def test_one_slot_of_a_replica_drains_at_a_time() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"))
    run_on(one, request("a", "sales"))
    assert drain([one], request("b")) is one
    assert drain([one], request("c")) is None


def two_full() -> tuple[Engine, Engine]:
    """Two engines without a free slot, the second with more in flight; it has b's adapter in memory."""
    cold, warm = engine("cold", slots=1), engine("warm", slots=1)
    run_on(cold, request("a", "support"))
    run_on(warm, request("c", "support"), times=3)
    warm.resident[adapter_id("b-support")] = None
    return cold, warm


def test_a_slot_drains_where_the_adapter_is_in_memory() -> None:
    cold, warm = two_full()
    assert drain([cold, warm], request("b"), where_in_memory=True) is warm
    cold, warm = two_full()
    assert drain([cold, warm], request("b")) is cold, "the least in flight, where nobody asks for memory"


def test_one_whose_replica_drains_another_slot_is_not_read_elsewhere_at_first() -> None:
    cold, warm = two_full()
    warm.slot_drain = SlotDrain("a-sales@1", "a", evicted="c-support@1")
    assert drain([cold, warm], request("b"), where_in_memory=True) is None
    assert drain([cold, warm], request("b")) is cold


@pytest.mark.parametrize("why", ["nowhere", "where the engine drains"])
def test_an_adapter_that_no_replica_has_in_memory_is_read_wherever_that_disturbs_least(why: str) -> None:
    cold, warm = two_full()
    if why == "nowhere":
        warm.resident.clear()
    else:
        warm.replica.draining = True
    assert drain([cold, warm], request("b"), where_in_memory=True) is cold


def test_a_pinned_adapter_is_not_evicted() -> None:
    one = engine(slots=1)
    run_on(one, request("a"))
    one.pinned = frozenset({"a-support@1"})
    assert drain([one], request("b")) is None


def test_a_slot_that_was_kept_for_others_is_promised_to_whoever_has_waited_too_long() -> None:
    one = engine(slots=2)
    run_on(one, request("a", "support"))
    assert drain([one], request("a", "sales"), waited_s=9.0) is None
    assert drain([one], request("a", "sales"), waited_s=10.0) is one
    assert one.slot_drain == SlotDrain("a-sales@1", "a", evicted=None)


@pytest.mark.parametrize("why", ["it runs already", "not ready", "draining", "the base model"])
def test_no_slot_drains_where_none_is_needed_or_none_would_help(why: str) -> None:
    one = engine(slots=1, ready=why != "not ready")
    one.replica.draining = why == "draining"
    run_on(one, request("a"))
    asked = {"it runs already": request("a"), "the base model": request(base=True)}.get(why, request("b"))
    assert drain([one], asked) is None
    assert one.slot_drain is None


def test_nobody_waits_for_a_slot_of_an_engine_that_does_not_know_the_adapter() -> None:
    one = engine(slots=1)
    run_on(one, request("a"))
    one.adapters = frozenset({"a-support@1"})
    assert drain([one], request("b")) is None


NEEDS = st.builds(SlotNeed, st.just(request("a")), st.floats(0.0, 12.0), st.integers(1, 50), st.booleans())
HOLDERS = st.builds(
    SlotHolders,
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1),
    st.just(WEIGHTS),
    st.fixed_dictionaries({tenant: st.integers(0, 2) for tenant in "abc"}),
    st.frozensets(st.sampled_from("abc")),
)


@given(NEEDS, HOLDERS, st.floats(0.0, 10.0), st.integers(1, 8))
def test_a_need_that_nobody_might_give_a_slot_to_gets_none_of_anybody(
    need: SlotNeed, holders: SlotHolders, slot_wait_s: float, sequences: int
) -> None:
    leases = [Lease(tenant, 0.0, sequences) for tenant in holders.leased]
    assert holders.can_give(need, slot_wait_s) or not any(map(holders.must_give(need, slot_wait_s), leases))


def test_many_who_have_just_come_will_have_lost_more_than_one_who_has_waited() -> None:
    one, many = SlotNeed(request(), 5.0), SlotNeed(request(), 0.0, queued=4)
    assert one.lost_s > many.lost_s
    assert one.will_have_lost_s == 5.0 + DRAIN_S
    assert many.will_have_lost_s == 4 * DRAIN_S
