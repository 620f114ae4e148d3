"""Which tenants flood, and how much may they take?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.filters import (
    leaves_a_slot,
    leaves_room,
    may_pass_bounds,
    promised_to,
    respects_promise,
)
from routing.scheduling.floods.arrivals import LATELY_S, REMEMBERED_S
from routing.scheduling.floods.detection import (
    FLOOD_FACTOR,
    FLOODS_AFTER_S,
    MOST_TENANTS,
    Floods,
    Room,
)
from routing.scheduling.floods.turns import AT_ONCE
from routing.scheduling.state import SlotDrain
from tests.unit.routing.requests import end_on, engine, request, run_on, view_of

ROOM = Room(slots=8, sequences=32)


def pool(
    weights: dict[str, float],
    waiting: dict[str, int],
    burst_share: float = 0.5,
    *,
    ranks: dict[str, int] | None = None,
    running: dict[str, int] | None = None,
    for_s: float = 5.0,
) -> Floods:
    """The floods of a pool whose tenants were all seen just now, and of whom so many have waited so long.

    Whoever has most waiting has sent far more than any other.
    """
    floods = Floods(weights, ranks or dict.fromkeys(weights, 1), burst_share)
    for tenant, sequences in (running or {}).items():
        take(floods, tenant, sequences=sequences)
    for now_s in (105.0 - for_s, 105.0):
        for tenant in weights:
            send(floods, tenant, now_s, 1000 if waiting.get(tenant) == max(waiting.values()) else 1)
        floods.refresh(now_s, waiting, ROOM)
    return floods


def send(floods: Floods, tenant: str, now_s: float, requests: int) -> None:
    """Let a tenant send so many at once."""
    for _ in range(requests):
        floods.count_arrival(tenant, now_s)


def take(floods: Floods, tenant: str, *, slots: int = 0, sequences: int = 0) -> None:
    """Let a tenant hold slots and run sequences."""
    for number in range(max(slots, sequences)):
        floods.count_start(tenant, int(number < sequences), takes_slot=number < slots)


def test_a_tenant_floods_that_asks_for_far_more_than_others_do() -> None:
    assert pool({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 16, "b": 4}).flooding == {"a"}
    assert not pool({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 15, "b": 4}).flooding


def test_where_all_ask_alike_nobody_floods() -> None:
    assert not pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 400}).flooding


def test_a_tenant_that_is_alone_does_not_flood() -> None:
    assert not pool({"a": 1.0}, {"a": 500}).flooding


def test_a_flood_begins_when_somebody_sends_far_more_than_others_do() -> None:
    for sent, begins in ((FLOOD_FACTOR * 3, True), (FLOOD_FACTOR * 3 - 1, False)):
        floods = Floods({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
        send(floods, "a", 100.0, int(sent))
        send(floods, "b", 100.0, 3)
        floods.refresh(100.0, {"a": 500, "b": 1}, ROOM)
        assert floods.flooding == ({"a"} if begins else set())


def after_a_burst(asked: int) -> Floods:
    """Tenant a asks for 500 in a burst, then sends no more than others and comes to ask for so much."""
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 1}, for_s=0.0)
    assert floods.flooding == {"a"}
    now_s = 105.0 + 4 * LATELY_S
    for tenant in "ab":
        send(floods, tenant, now_s, 20)
    floods.refresh(now_s, {"a": asked, "b": 1}, ROOM)
    return floods


def test_a_flood_of_clients_that_wait_for_their_answers_lasts_until_they_ask_for_less() -> None:
    assert after_a_burst(asked=500).flooding == {"a"}
    assert after_a_burst(asked=int(FLOOD_FACTOR)).flooding == {"a"}
    assert not after_a_burst(asked=int(FLOOD_FACTOR) - 1).flooding


def test_who_no_longer_sends_so_much_and_comes_to_ask_for_more_gives_way_no_longer() -> None:
    assert after_a_burst(asked=750).may_fill("a") == 0.0
    floods = after_a_burst(asked=751)
    assert floods.may_fill("a") == 0.5, "half as much again"
    now_s = 106.0 + 4 * LATELY_S
    floods.refresh(now_s, {"a": 500, "b": 1}, ROOM)
    assert floods.may_fill("a") == 0.5, "its queue comes down again"
    send(floods, "a", now_s, 500)
    floods.refresh(now_s, {"a": 1000, "b": 1}, ROOM)
    assert floods.may_fill("a") == 0.0, "that was another burst"
    floods.refresh(now_s + 4 * LATELY_S, {"a": 1500, "b": 1}, ROOM)
    assert floods.may_fill("a") == 0.0, "which was larger"


def test_of_many_tenants_the_largest_floods_only_where_it_asks_for_more_than_all_others_together() -> None:
    weights = {f"t{number}": 1.0 for number in range(101)}
    others = {f"t{number}": 1 for number in range(1, 101)}
    assert not pool(weights, {"t0": 99} | others).flooding
    assert pool(weights, {"t0": 100} | others).flooding == {"t0"}


def test_what_is_left_to_a_flood_among_many_is_a_part_of_what_all_others_run() -> None:
    weights = {"a": 1.0} | {f"t{number}": 1.0 for number in range(79)}
    running = {f"t{number}": 1 for number in range(32)}
    waiting = {"a": 500} | {f"t{number}": 1 for number in range(32)}
    floods = Floods(weights, dict.fromkeys(weights, 1))
    for tenant, sequences in running.items():
        take(floods, tenant, sequences=sequences)
    for tenant in weights:
        send(floods, tenant, 105.0, 1000 if tenant == "a" else 1)
    floods.refresh(105.0, waiting, Room(slots=80, sequences=320))
    assert floods.may_fill("a") == 0.0
    assert most(floods) == AT_ONCE * 32 / MOST_TENANTS


def test_who_was_made_to_wait_for_long_does_not_flood() -> None:
    floods = Floods({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
    for second in range(200):
        send(floods, "a", 100.0 + second, 6)
        send(floods, "b", 100.0 + second, 2)
        floods.refresh(100.0 + second, {"a": 4 * second, "b": 1}, ROOM)
        assert not floods.flooding


def test_a_short_burst_is_no_flood_unless_the_others_are_crowded() -> None:
    assert not pool({"a": 1.0, "b": 1.0}, {"a": 500}, for_s=FLOODS_AFTER_S - 0.1).flooding
    assert pool({"a": 1.0, "b": 1.0}, {"a": 500}, for_s=FLOODS_AFTER_S).flooding == {"a"}
    assert pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 1}, for_s=0.0).flooding == {"a"}


def test_who_is_through_with_waiting_floods_no_more() -> None:
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    assert floods.flooding == {"a"}
    floods.refresh(105.5, {}, ROOM)
    floods.refresh(106.0, {"a": 500}, ROOM)
    assert not floods.flooding


def test_others_that_ask_for_nothing_just_now_count_as_if_they_asked_for_one() -> None:
    assert not pool({"a": 1.0, "b": 1.0}, {"a": 7}).flooding
    assert pool({"a": 1.0, "b": 1.0}, {"a": 8}).flooding == {"a"}


def test_who_has_nothing_waiting_floods_while_the_others_are_crowded_by_what_it_runs() -> None:
    for b_waits, expected in ((1, {"a"}), (0, set[str]())):
        floods = Floods({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})
        take(floods, "a", sequences=16)
        take(floods, "b", sequences=1)
        send(floods, "a", 100.0, 16)
        send(floods, "b", 100.0, 1 + b_waits)
        floods.refresh(100.0, {"b": b_waits} if b_waits else {}, ROOM)
        assert floods.flooding == expected


def test_what_runs_counts_too_but_who_has_nothing_waiting_does_not_flood_while_nobody_else_has() -> None:
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 7})
    take(floods, "a", sequences=1)
    floods.refresh(105.25, {"a": 7}, ROOM)
    assert floods.flooding == {"a"}
    take(floods, "a", sequences=30)
    floods.refresh(105.5, {}, ROOM)
    assert not floods.flooding


def test_others_count_for_a_while_after_their_last_request() -> None:
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    floods.count_arrival("a", 104.0 + REMEMBERED_S)
    floods.refresh(104.9 + REMEMBERED_S, {"a": 500}, ROOM)
    assert floods.flooding == {"a"}
    floods.refresh(105.0 + REMEMBERED_S, {"a": 500}, ROOM)
    assert not floods.flooding, "a is alone"


def test_who_pays_for_more_may_ask_for_more() -> None:
    assert not pool({"a": 10.0, "b": 1.0}, {"a": 159, "b": 2}).flooding
    assert pool({"a": 10.0, "b": 1.0}, {"a": 160, "b": 2}).flooding == {"a"}


def test_nobody_floods_for_lower_bands() -> None:
    ranks = {"high": 0, "low": 2}
    assert not pool({"high": 1.0, "low": 1.0}, {"high": 500}, ranks=ranks).flooding
    assert pool({"high": 1.0, "low": 1.0}, {"low": 500}, ranks=ranks).flooding == {"low"}


def test_a_flood_has_its_share_of_slots_and_of_sequences() -> None:
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    assert not floods.keeps_slot_from("a")
    assert not floods.keeps_room_from("a")
    take(floods, "a", slots=4, sequences=15)
    assert floods.keeps_slot_from("a")
    assert not floods.keeps_room_from("a")
    take(floods, "a", sequences=1)
    assert floods.keeps_room_from("a")


def test_a_flood_may_hold_one_slot_however_many_tenants_there_are() -> None:
    floods = pool({f"t{i}": 1.0 for i in range(100)}, {"t0": 500})
    assert not floods.keeps_slot_from("t0")
    take(floods, "t0", slots=1)
    assert floods.keeps_slot_from("t0")


def test_nothing_is_kept_from_whoever_does_not_flood() -> None:
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 400})
    take(floods, "a", slots=8, sequences=32)
    assert not floods.keeps_slot_from("a")
    assert not floods.keeps_room_from("a")


def test_a_flood_takes_a_part_of_a_replicas_slots_unless_one_was_promised() -> None:
    one = engine(slots=4)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    view = view_of(one, floods=floods)
    take(floods, "a", slots=4)
    run_on(one, request("a", "support"))
    assert leaves_a_slot(one, request("a", "sales"), view), "the second of four"
    run_on(one, request("b"))
    assert not leaves_a_slot(one, request("a", "sales"), view), "would be the third"
    assert leaves_a_slot(one, request("a", "support"), view), "it holds its slot already"
    assert leaves_a_slot(one, request("b", "sales"), view), "it does not flood"
    assert leaves_a_slot(one, request(base=True), view)
    one.slot_drain = SlotDrain("a-sales@1", "a", evicted=None)
    assert leaves_a_slot(one, request("a", "sales"), view), "it was promised"


@pytest.mark.parametrize("burst_share", [0.5, 1.0])
def test_the_only_slot_of_a_replica_is_for_a_flood_only_where_nothing_is_kept_for_others(
    burst_share: float,
) -> None:
    one = engine(slots=1)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500}, burst_share)
    view = view_of(one, floods=floods)
    take(floods, "a", slots=4)
    assert leaves_a_slot(one, request("a"), view) is (burst_share == 1.0)


def test_adapters_of_a_flood_take_turns_in_their_own_slot_and_take_no_other_meanwhile() -> None:
    one = engine(slots=2)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    view = view_of(one, floods=floods)
    take(floods, "a", slots=4)
    run_on(one, request("a", "support"))
    one.slot_drain = SlotDrain("a-sales@1", "a", evicted="a-support@1")
    assert promised_to(one, view) is None
    assert not leaves_a_slot(one, request("a", "sales"), view), "the free one is not a's"
    assert respects_promise(one, request("b"), view), "it is for whoever wants it"
    end_on(one, request("a", "support"))
    run_on(one, request("b"))
    assert promised_to(one, view) == "a-sales@1"
    assert leaves_a_slot(one, request("a", "sales"), view), "now it is its turn"
    assert not respects_promise(one, request("b", "sales"), view)


def test_adapters_of_a_tenant_that_does_not_flood_take_turns_in_whatever_comes_free() -> None:
    one = engine(slots=2)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500, "b": 400})
    view = view_of(one, floods=floods)
    run_on(one, request("a", "support"))
    one.slot_drain = SlotDrain("a-sales@1", "a", evicted="a-support@1")
    assert promised_to(one, view) == "a-sales@1"


def test_a_flood_fills_a_replica_up_to_a_part() -> None:
    one = engine(max_sequences=8)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    view = view_of(one, floods=floods)
    take(floods, "a", sequences=16)
    run_on(one, request("a"), times=3)
    assert leaves_room(one, request("a"), view)
    run_on(one, request("b"))
    assert not leaves_room(one, request("a"), view)
    assert leaves_room(one, request("b"), view)
    end_on(one, request("a"))
    assert leaves_room(one, request("a"), view)


def test_an_empty_replica_is_for_everybody() -> None:
    one = engine(max_sequences=1)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    view = view_of(one, floods=floods)
    take(floods, "a", sequences=16)
    assert leaves_room(one, request("a"), view)


@pytest.mark.parametrize("burst_share", [0.25, 1.0])
def test_how_far_a_flood_fills_a_replica_can_be_said(burst_share: float) -> None:
    one = engine(max_sequences=8)
    floods = Floods({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1}, burst_share)
    view = view_of(one, floods=floods)
    for now_s in (100.0, 105.0):
        send(floods, "a", now_s, 500)
        floods.count_arrival("b", now_s)
        floods.refresh(now_s, {"a": 500}, Room(8, 8))
    take(floods, "a", sequences=4)
    run_on(one, request("b"), times=2)
    assert leaves_room(one, request("a"), view) is (burst_share == 1.0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_what_is_held_is_what_was_taken_and_not_given(steps: list[tuple[bool, str]]) -> None:
    floods = Floods({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1, "b": 1, "c": 1})
    held = dict.fromkeys("abc", 0)
    for takes, tenant in steps:
        if takes:
            floods.count_start(tenant, 1, takes_slot=True)
            held[tenant] += 1
        elif held[tenant]:
            floods.count_slot_back(tenant)
            held[tenant] -= 1
    assert floods.leased == {tenant: count for tenant, count in held.items() if count}


def crowd(waiting: int, running: int = 3, *, burst_share: float = 0.5) -> Floods:
    """Tenant a floods while two others run so many each, and have so many waiting each."""
    others = {"b": waiting, "c": waiting} if waiting else {}
    floods = pool(
        dict.fromkeys("abc", 1.0), {"a": 500} | others, burst_share, running={"b": running, "c": running}
    )
    assert floods.flooding == {"a"}
    return floods


def most(floods: Floods) -> int:
    """How many sequences tenant a runs when room is kept from it, taking one after the other."""
    for sequences in range(100):
        if floods.keeps_room_from("a"):
            return sequences
        take(floods, "a", sequences=1)
    raise AssertionError("nothing is kept from it")


def test_while_the_others_are_crowded_a_flood_runs_as_much_as_they_do_by_turns() -> None:
    floods = crowd(waiting=1)
    assert floods.may_fill("a") == 0.0
    assert most(floods) == AT_ONCE * 3
    ran_s, now_s = 0.0, 105.0
    for _ in range(4000):
        now_s += 0.25
        for tenant in "abc":
            floods.count_arrival(tenant, now_s)
        floods.refresh(now_s, {"a": 500, "b": 1, "c": 1}, ROOM)
        if floods.keeps_room_from("a"):
            floods.count_end("a", floods.running["a"])
        else:
            most(floods)
        ran_s += 0.25 * floods.running["a"]
    assert ran_s / 1000 == pytest.approx(3, rel=0.05)


def test_while_hardly_anything_of_the_others_waits_a_flood_has_its_fair_share_and_may_go_beyond() -> None:
    floods = crowd(waiting=1, running=25)
    assert floods.may_fill("a") == 0.5
    assert most(floods) == 11, "32 for three of them"


def test_a_flood_runs_no_more_than_its_fair_share_however_much_the_others_run() -> None:
    assert most(crowd(waiting=3, running=14)) == 11, "32 for three of them"


def test_a_flood_runs_something_even_where_the_others_run_nothing() -> None:
    assert most(crowd(waiting=1, running=0)) == AT_ONCE, "one on average"


def test_others_that_wait_for_a_moment_are_not_crowded() -> None:
    floods = crowd(waiting=0)
    for tenant in "abc":
        floods.count_arrival(tenant, 105.25)
    floods.refresh(105.25, {"a": 500, "b": 2, "c": 2}, ROOM)
    assert floods.may_fill("a") == 0.5
    for tenant in "abc":
        floods.count_arrival(tenant, 110.0)
    floods.refresh(110.0, {"a": 500, "b": 2, "c": 2}, ROOM)
    assert floods.may_fill("a") == 0.0


def test_while_others_have_nothing_at_all_they_are_not_crowded() -> None:
    floods = crowd(waiting=3)
    assert floods.may_fill("a") == 0.0
    for tenant in "bc":
        floods.count_end(tenant, 3)
    floods.refresh(105.25, {"a": 500}, ROOM)
    assert floods.flooding == {"a"}
    assert floods.may_fill("a") == 0.5, "nobody is there whom it could make wait"
    floods.refresh(105.5, {"a": 500, "b": 1}, ROOM)
    assert floods.may_fill("a") == 0.0, "somebody is again"


def test_where_nothing_is_kept_for_others_crowding_changes_nothing() -> None:
    floods = crowd(waiting=3, burst_share=1.0)
    assert floods.may_fill("a") == 1.0
    take(floods, "a", sequences=10)
    assert not floods.keeps_room_from("a")


def test_others_that_ask_for_nothing_do_not_lower_what_a_flood_runs_while_they_are_crowded() -> None:
    floods = pool(dict.fromkeys("abcd", 1.0), {"a": 500, "b": 1}, running={"b": 2}, for_s=0.0)
    assert most(floods) == AT_ONCE * 2


def test_a_tenant_that_floods_is_passed_over_as_a_whole_where_nothing_of_it_may_run() -> None:
    one = engine(slots=2, max_sequences=20)
    floods = pool({"a": 1.0, "b": 1.0}, {"a": 500})
    view = view_of(one, floods=floods)
    run_on(one, request("b"))
    assert may_pass_bounds(one, "a", view, takes_slot=True)
    take(floods, "a", slots=4)
    assert not may_pass_bounds(one, "a", view, takes_slot=True), "one of two slots is kept"
    assert may_pass_bounds(one, "a", view, takes_slot=False)
    take(floods, "a", sequences=16)
    run_on(one, request("b"), times=9)
    assert not may_pass_bounds(one, "a", view, takes_slot=False), "half of the batch is kept"
    assert may_pass_bounds(one, "b", view, takes_slot=True)


def test_who_does_not_flood_may_fill_everything() -> None:
    assert crowd(waiting=1).may_fill("b") == 1.0
