"""Who floods, and what may such a tenant take?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.filters import leaves_a_slot, leaves_room, leaves_to, respects_clearing
from routing.scheduling.floods.arrivals import LATELY_S, REMEMBERED_S
from routing.scheduling.floods.detection import (
    FLOOD_ENDS,
    FLOOD_FACTOR,
    FLOODS_AFTER_S,
    MOST_TENANTS,
    Room,
    Shares,
)
from routing.scheduling.floods.turns import AT_ONCE
from routing.scheduling.state import SlotClearing
from tests.unit.routing.requests import end_on, engine, request, run_on

ROOM = Room(slots=8, sequences=32)


def pool(
    weights: dict[str, float],
    waiting: dict[str, int],
    burst_share: float = 0.5,
    *,
    ranks: dict[str, int] | None = None,
    running: dict[str, int] | None = None,
    for_s: float = 5.0,
) -> Shares:
    """Shares of a pool whose tenants were all seen just now, and of whom so many have waited so long.

    Whoever has most waiting has sent far more than any other.
    """
    shares = Shares(weights, ranks or dict.fromkeys(weights, 1), burst_share)
    for tenant, sequences in (running or {}).items():
        take(shares, tenant, sequences=sequences)
    for now_s in (105.0 - for_s, 105.0):
        for tenant in weights:
            send(shares, tenant, now_s, 1000 if waiting.get(tenant) == max(waiting.values()) else 1)
        shares.refresh(now_s, waiting, ROOM)
    return shares


def send(shares: Shares, tenant: str, now_s: float, requests: int) -> None:
    """Let a tenant send so many at once."""
    for _ in range(requests):
        shares.saw(tenant, now_s)


def take(shares: Shares, tenant: str, *, slots: int = 0, sequences: int = 0) -> None:
    """Let a tenant hold slots and run sequences."""
    for number in range(max(slots, sequences)):
        shares.began(tenant, int(number < sequences), slot=number < slots)


def test_a_tenant_floods_that_asks_for_far_more_than_others_do() -> None:
    assert pool({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 16, "b": 4}).flooding == {"a"}
    assert not pool({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 15, "b": 4}).flooding


def test_where_all_ask_alike_nobody_floods() -> None:
    assert not pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 400}).flooding


def test_a_tenant_that_is_alone_does_not_flood() -> None:
    assert not pool({"a": 1.0}, {"a": 500}).flooding


def test_a_flood_begins_when_somebody_sends_far_more_than_others_do() -> None:
    for sent, floods in ((FLOOD_FACTOR * 3, True), (FLOOD_FACTOR * 3 - 1, False)):
        shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
        send(shares, "a", 100.0, int(sent))
        send(shares, "b", 100.0, 3)
        shares.refresh(100.0, {"a": 500, "b": 1}, ROOM)
        assert shares.flooding == ({"a"} if floods else set())


def after_a_burst(asked: int) -> Shares:
    """Tenant a asks for 500 in a burst, then sends no more than others and comes to ask for so much."""
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 1}, for_s=0.0)
    assert shares.flooding == {"a"}
    now_s = 105.0 + 4 * LATELY_S
    for tenant in "ab":
        send(shares, tenant, now_s, 20)
    shares.refresh(now_s, {"a": asked, "b": 1}, ROOM)
    return shares


def test_a_flood_of_clients_that_wait_for_their_answers_lasts_until_they_ask_for_less() -> None:
    assert after_a_burst(asked=500).flooding == {"a"}
    assert after_a_burst(asked=int(FLOOD_ENDS)).flooding == {"a"}
    assert not after_a_burst(asked=int(FLOOD_ENDS) - 1).flooding


def test_who_no_longer_sends_so_much_and_comes_to_ask_for_more_gives_way_no_longer() -> None:
    assert after_a_burst(asked=750).may_fill("a") == 0.0
    shares = after_a_burst(asked=751)
    assert shares.may_fill("a") == 0.5, "half as much again"
    now_s = 106.0 + 4 * LATELY_S
    shares.refresh(now_s, {"a": 500, "b": 1}, ROOM)
    assert shares.may_fill("a") == 0.5, "its queue comes down again"
    send(shares, "a", now_s, 500)
    shares.refresh(now_s, {"a": 1000, "b": 1}, ROOM)
    assert shares.may_fill("a") == 0.0, "that was another burst"
    shares.refresh(now_s + 4 * LATELY_S, {"a": 1500, "b": 1}, ROOM)
    assert shares.may_fill("a") == 0.0, "which was larger"


def test_a_flood_goes_on_while_those_whom_it_makes_wait_ask_for_more() -> None:
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 40, "b": 5}, for_s=0.0)
    assert shares.flooding == {"a"}
    shares.refresh(105.25, {"a": 40, "b": 10}, ROOM)
    assert shares.flooding == {"a"}
    shares.refresh(105.5, {"a": 40, "b": 11}, ROOM)
    assert not shares.flooding


def test_of_many_tenants_the_largest_floods_only_where_it_asks_for_more_than_all_others_together() -> None:
    weights = {f"t{number}": 1.0 for number in range(101)}
    others = {f"t{number}": 1 for number in range(1, 101)}
    assert not pool(weights, {"t0": 99} | others).flooding
    assert pool(weights, {"t0": 100} | others).flooding == {"t0"}


def test_what_is_left_to_a_flood_among_many_is_a_part_of_what_all_others_run() -> None:
    weights = {"a": 1.0} | {f"t{number}": 1.0 for number in range(79)}
    running = {f"t{number}": 1 for number in range(32)}
    waiting = {"a": 500} | {f"t{number}": 1 for number in range(32)}
    shares = Shares(weights, dict.fromkeys(weights, 1))
    for tenant, sequences in running.items():
        take(shares, tenant, sequences=sequences)
    for tenant in weights:
        send(shares, tenant, 105.0, 1000 if tenant == "a" else 1)
    shares.refresh(105.0, waiting, Room(slots=80, sequences=320))
    assert shares.may_fill("a") == 0.0
    assert most(shares) == AT_ONCE * 32 / MOST_TENANTS


def test_who_was_made_to_wait_for_long_does_not_flood() -> None:
    shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
    for second in range(200):
        send(shares, "a", 100.0 + second, 6)
        send(shares, "b", 100.0 + second, 2)
        shares.refresh(100.0 + second, {"a": 4 * second, "b": 1}, ROOM)
        assert not shares.flooding


def test_a_short_burst_is_no_flood_unless_the_others_are_crowded() -> None:
    assert not pool({"a": 1.0, "b": 1.0}, {"a": 500}, for_s=FLOODS_AFTER_S - 0.1).flooding
    assert pool({"a": 1.0, "b": 1.0}, {"a": 500}, for_s=FLOODS_AFTER_S).flooding == {"a"}
    assert pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 1}, for_s=0.0).flooding == {"a"}


def test_who_is_through_with_waiting_floods_no_more() -> None:
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    assert shares.flooding == {"a"}
    shares.refresh(105.5, {}, ROOM)
    shares.refresh(106.0, {"a": 500}, ROOM)
    assert not shares.flooding


def test_others_that_ask_for_nothing_just_now_count_as_if_they_asked_for_one() -> None:
    assert not pool({"a": 1.0, "b": 1.0}, {"a": 7}).flooding
    assert pool({"a": 1.0, "b": 1.0}, {"a": 8}).flooding == {"a"}


def test_who_has_nothing_waiting_floods_while_the_others_are_crowded_by_what_it_runs() -> None:
    for b_waits, floods in ((1, {"a"}), (0, set[str]())):
        shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
        take(shares, "a", sequences=16)
        take(shares, "b", sequences=1)
        send(shares, "a", 100.0, 16)
        send(shares, "b", 100.0, 1 + b_waits)
        shares.refresh(100.0, {"b": b_waits} if b_waits else {}, ROOM)
        assert shares.flooding == floods


def test_what_runs_counts_too_but_who_has_nothing_waiting_does_not_flood_while_nobody_else_has() -> None:
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 7})
    take(shares, "a", sequences=1)
    shares.refresh(105.25, {"a": 7}, ROOM)
    assert shares.flooding == {"a"}
    take(shares, "a", sequences=30)
    shares.refresh(105.5, {}, ROOM)
    assert not shares.flooding


def test_others_count_for_a_while_after_their_last_request() -> None:
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    shares.saw("a", 104.0 + REMEMBERED_S)
    shares.refresh(104.9 + REMEMBERED_S, {"a": 500}, ROOM)
    assert shares.flooding == {"a"}
    shares.refresh(105.0 + REMEMBERED_S, {"a": 500}, ROOM)
    assert not shares.flooding, "a is alone"


def test_who_pays_for_more_may_ask_for_more() -> None:
    assert not pool({"a": 10.0, "b": 1.0}, {"a": 159, "b": 2}).flooding
    assert pool({"a": 10.0, "b": 1.0}, {"a": 160, "b": 2}).flooding == {"a"}


def test_nobody_floods_for_lower_bands() -> None:
    ranks = {"high": 0, "low": 2}
    assert not pool({"high": 1.0, "low": 1.0}, {"high": 500}, ranks=ranks).flooding
    assert pool({"high": 1.0, "low": 1.0}, {"low": 500}, ranks=ranks).flooding == {"low"}


def test_a_flood_has_its_share_of_slots_and_of_sequences() -> None:
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    assert not shares.keeps_slot_from("a")
    assert not shares.keeps_room_from("a")
    take(shares, "a", slots=4, sequences=15)
    assert shares.keeps_slot_from("a")
    assert not shares.keeps_room_from("a")
    take(shares, "a", sequences=1)
    assert shares.keeps_room_from("a")


def test_a_flood_may_hold_one_slot_however_many_tenants_there_are() -> None:
    shares = pool({f"t{i}": 1.0 for i in range(100)}, {"t0": 500})
    assert not shares.keeps_slot_from("t0")
    take(shares, "t0", slots=1)
    assert shares.keeps_slot_from("t0")


def test_nothing_is_kept_from_whoever_does_not_flood() -> None:
    shares = pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 400})
    take(shares, "a", slots=8, sequences=32)
    assert not shares.keeps_slot_from("a")
    assert not shares.keeps_room_from("a")


def test_a_flood_takes_a_part_of_a_replicas_slots_unless_one_was_promised() -> None:
    one = engine(slots=4)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    take(one.shares, "a", slots=4)
    run_on(one, request("a", "support"))
    assert leaves_a_slot(one, request("a", "sales")), "the second of four"
    run_on(one, request("b"))
    assert not leaves_a_slot(one, request("a", "sales")), "would be the third"
    assert leaves_a_slot(one, request("a", "support")), "it holds its slot already"
    assert leaves_a_slot(one, request("b", "sales")), "it does not flood"
    assert leaves_a_slot(one, request(base=True))
    one.clearing = SlotClearing("a-sales@1", "a", victim=None)
    assert leaves_a_slot(one, request("a", "sales")), "it was promised"


@pytest.mark.parametrize("burst_share", [0.5, 1.0])
def test_the_only_slot_of_a_replica_is_for_a_flood_only_where_nothing_is_kept_for_others(
    burst_share: float,
) -> None:
    one = engine(slots=1)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500}, burst_share)
    take(one.shares, "a", slots=4)
    assert leaves_a_slot(one, request("a")) is (burst_share == 1.0)


def test_adapters_of_a_flood_take_turns_in_their_own_slot_and_take_no_other_meanwhile() -> None:
    one = engine(slots=2)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    take(one.shares, "a", slots=4)
    run_on(one, request("a", "support"))
    one.clearing = SlotClearing("a-sales@1", "a", victim="a-support@1")
    assert one.promised is None
    assert not leaves_a_slot(one, request("a", "sales")), "the free one is not a's"
    assert respects_clearing(one, request("b")), "it is for whoever wants it"
    end_on(one, request("a", "support"))
    run_on(one, request("b"))
    assert one.promised == "a-sales@1"
    assert leaves_a_slot(one, request("a", "sales")), "now it is its turn"
    assert not respects_clearing(one, request("b", "sales"))


def test_adapters_of_a_tenant_that_does_not_flood_take_turns_in_whatever_comes_free() -> None:
    one = engine(slots=2)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 400})
    run_on(one, request("a", "support"))
    one.clearing = SlotClearing("a-sales@1", "a", victim="a-support@1")
    assert one.promised == "a-sales@1"


def test_a_flood_fills_a_replica_up_to_a_part() -> None:
    one = engine(max_sequences=8)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    take(one.shares, "a", sequences=16)
    run_on(one, request("a"), times=3)
    assert leaves_room(one, request("a"))
    run_on(one, request("b"))
    assert not leaves_room(one, request("a"))
    assert leaves_room(one, request("b"))
    end_on(one, request("a"))
    assert leaves_room(one, request("a"))


def test_an_empty_replica_is_for_everybody() -> None:
    one = engine(max_sequences=1)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    take(one.shares, "a", sequences=16)
    assert leaves_room(one, request("a"))


@pytest.mark.parametrize("burst_share", [0.25, 1.0])
def test_how_far_a_flood_fills_a_replica_can_be_said(burst_share: float) -> None:
    one = engine(max_sequences=8)
    one.shares = Shares({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1}, burst_share)
    for now_s in (100.0, 105.0):
        send(one.shares, "a", now_s, 500)
        one.shares.saw("b", now_s)
        one.shares.refresh(now_s, {"a": 500}, Room(8, 8))
    take(one.shares, "a", sequences=4)
    run_on(one, request("b"), times=2)
    assert leaves_room(one, request("a")) is (burst_share == 1.0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_what_is_held_is_what_was_taken_and_not_given(steps: list[tuple[bool, str]]) -> None:
    shares = Shares({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1, "b": 1, "c": 1})
    held = dict.fromkeys("abc", 0)
    for takes, tenant in steps:
        if takes:
            shares.began(tenant, 1, slot=True)
            held[tenant] += 1
        elif held[tenant]:
            shares.gave(tenant)
            held[tenant] -= 1
    assert shares.held == {tenant: count for tenant, count in held.items() if count}


def crowd(waiting: int, running: int = 3, *, burst_share: float = 0.5) -> Shares:
    """Tenant a floods while two others run so many each, and have so many waiting each."""
    others = {"b": waiting, "c": waiting} if waiting else {}
    shares = pool(
        dict.fromkeys("abc", 1.0), {"a": 500} | others, burst_share, running={"b": running, "c": running}
    )
    assert shares.flooding == {"a"}
    return shares


def most(shares: Shares) -> int:
    """How many sequences tenant a runs when room is kept from it, taking one after the other."""
    for sequences in range(100):
        if shares.keeps_room_from("a"):
            return sequences
        take(shares, "a", sequences=1)
    raise AssertionError("nothing is kept from it")


def test_while_the_others_are_crowded_a_flood_runs_as_much_as_they_do_by_turns() -> None:
    shares = crowd(waiting=1)
    assert shares.may_fill("a") == 0.0
    assert most(shares) == AT_ONCE * 3
    ran_s, now_s = 0.0, 105.0
    for _ in range(4000):
        now_s += 0.25
        for tenant in "abc":
            shares.saw(tenant, now_s)
        shares.refresh(now_s, {"a": 500, "b": 1, "c": 1}, ROOM)
        if shares.keeps_room_from("a"):
            shares.ended("a", shares.running["a"])
        else:
            most(shares)
        ran_s += 0.25 * shares.running["a"]
    assert ran_s / 1000 == pytest.approx(3, rel=0.05)


def test_while_hardly_anything_of_the_others_waits_a_flood_has_its_fair_share_and_may_go_beyond() -> None:
    shares = crowd(waiting=1, running=25)
    assert shares.may_fill("a") == 0.5
    assert most(shares) == 11, "32 for three of them"


def test_a_flood_runs_no_more_than_its_fair_share_however_much_the_others_run() -> None:
    assert most(crowd(waiting=3, running=14)) == 11, "32 for three of them"


def test_a_flood_runs_something_even_where_the_others_run_nothing() -> None:
    assert most(crowd(waiting=1, running=0)) == AT_ONCE, "one on average"


def test_others_that_wait_for_a_moment_are_not_crowded() -> None:
    shares = crowd(waiting=0)
    for tenant in "abc":
        shares.saw(tenant, 105.25)
    shares.refresh(105.25, {"a": 500, "b": 2, "c": 2}, ROOM)
    assert shares.may_fill("a") == 0.5
    for tenant in "abc":
        shares.saw(tenant, 110.0)
    shares.refresh(110.0, {"a": 500, "b": 2, "c": 2}, ROOM)
    assert shares.may_fill("a") == 0.0


def test_while_others_have_nothing_at_all_they_are_not_crowded() -> None:
    shares = crowd(waiting=3)
    assert shares.may_fill("a") == 0.0
    for tenant in "bc":
        shares.ended(tenant, 3)
    shares.refresh(105.25, {"a": 500}, ROOM)
    assert shares.flooding == {"a"}
    assert shares.may_fill("a") == 0.5, "nobody is there whom it could make wait"
    shares.refresh(105.5, {"a": 500, "b": 1}, ROOM)
    assert shares.may_fill("a") == 0.0, "somebody is again"


def test_where_nothing_is_kept_for_others_crowding_changes_nothing() -> None:
    shares = crowd(waiting=3, burst_share=1.0)
    assert shares.may_fill("a") == 1.0
    take(shares, "a", sequences=10)
    assert not shares.keeps_room_from("a")


def test_others_that_ask_for_nothing_do_not_lower_what_a_flood_runs_while_they_are_crowded() -> None:
    shares = pool(dict.fromkeys("abcd", 1.0), {"a": 500, "b": 1}, running={"b": 2}, for_s=0.0)
    assert most(shares) == AT_ONCE * 2


def test_a_flood_may_use_a_replica_that_is_nearly_empty_even_while_the_others_are_crowded() -> None:
    one = engine(slots=4, max_sequences=20)
    one.shares = crowd(waiting=1)
    take(one.shares, "a", sequences=9)
    run_on(one, request("b"))
    assert leaves_room(one, request("a")), "the second of twenty"
    run_on(one, request("b"))
    assert not leaves_room(one, request("a"))
    assert leaves_room(one, request("b"))


def test_a_tenant_that_floods_is_passed_over_as_a_whole_where_nothing_of_it_may_run() -> None:
    one = engine(slots=2, max_sequences=20)
    one.shares = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    run_on(one, request("b"))
    assert leaves_to(one, "a", takes_slot=True)
    take(one.shares, "a", slots=4)
    assert not leaves_to(one, "a", takes_slot=True), "one of two slots is kept"
    assert leaves_to(one, "a", takes_slot=False)
    take(one.shares, "a", sequences=16)
    run_on(one, request("b"), times=9)
    assert not leaves_to(one, "a", takes_slot=False), "half of the batch is kept"
    assert leaves_to(one, "b", takes_slot=True)


def test_who_does_not_flood_may_fill_everything() -> None:
    assert crowd(waiting=1).may_fill("b") == 1.0
