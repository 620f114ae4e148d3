"""May a tenant take another slot while they are scarce?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.filters import leaves_a_slot
from routing.scheduling.shares import REMEMBERED_S, Shares
from routing.scheduling.state import SlotClearing
from tests.unit.routing.requests import replica, request, run_on


def scarce(weights: dict[str, float], held: dict[str, int], *, slots: int = 8) -> Shares:
    """Shares of a pool in which somebody has just had to wait for a slot; everybody was seen."""
    shares = Shares(weights)
    for tenant in weights:
        shares.saw(tenant, 100.0)
        for _ in range(held.get(tenant, 0)):
            shares.began(tenant, 1, slot=True)
    shares.lacked(100.0)
    shares.refresh(100.0, slots)
    return shares


def test_nothing_is_kept_while_there_are_slots_enough() -> None:
    shares = Shares({"a": 1.0, "b": 1.0})
    for _ in range(8):
        shares.began("a", 1, slot=True)
    shares.refresh(100.0, 8)
    assert shares.reserve_against("a") == 0


def test_a_tenant_that_holds_its_share_leaves_the_last_free_slot_alone() -> None:
    shares = scarce({"a": 1.0, "b": 1.0}, {"a": 4})
    assert shares.reserve_against("a") == 1
    assert shares.reserve_against("b") == 0
    shares.gave("a")
    assert shares.reserve_against("a") == 0


def test_everybody_may_hold_one_however_many_there_are() -> None:
    shares = scarce({f"t{i}": 1.0 for i in range(100)}, {"t0": 1})
    assert shares.reserve_against("t1") == 0
    assert shares.reserve_against("t0") == 1


def test_a_share_is_by_weight() -> None:
    shares = scarce({"a": 3.0, "b": 1.0}, {"a": 5, "b": 2})
    assert (shares.reserve_against("a"), shares.reserve_against("b")) == (0, 1)


def test_scarcity_and_tenants_are_forgotten() -> None:
    shares = scarce({"a": 1.0, "b": 1.0}, {"a": 4})
    shares.saw("a", 105.0)
    shares.lacked(105.0)
    shares.refresh(100.0 + REMEMBERED_S, 8)
    assert shares.reserve_against("a") == 0, "b was not seen lately: all slots are its share"
    shares.refresh(105.0 + REMEMBERED_S, 8)
    shares.began("a", 1, slot=True)
    assert shares.reserve_against("a") == 0


def test_the_filter_keeps_one_slot_and_no_more() -> None:
    one = replica(slots=3)
    one.shares = scarce({"a": 1.0, "b": 1.0}, {"a": 2}, slots=3)
    run_on(one, request("a", "support"))
    assert leaves_a_slot(one, request("a", "sales")), "two are free"
    run_on(one, request("b"))
    assert not leaves_a_slot(one, request("a", "sales"))
    assert leaves_a_slot(one, request("a", "support")), "it holds its slot already"
    assert leaves_a_slot(one, request(base=True))
    one.clearing = SlotClearing(waiting="a-sales@1", victim=None)
    assert leaves_a_slot(one, request("a", "sales")), "it was promised"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_what_is_held_is_what_was_taken_and_not_given(steps: list[tuple[bool, str]]) -> None:
    shares = Shares({"a": 1.0, "b": 1.0, "c": 1.0})
    held = dict.fromkeys("abc", 0)
    for takes, tenant in steps:
        if takes:
            shares.began(tenant, 1, slot=True)
            held[tenant] += 1
        elif held[tenant]:
            shares.gave(tenant)
            held[tenant] -= 1
    assert shares.held == {tenant: count for tenant, count in held.items() if count}
