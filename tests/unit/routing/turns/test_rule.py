"""Which model goes, which comes, where and when?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from routing.turns.rule import AHEAD, SECOND_COPY, Plan, Switch, TurnEnd, Why, decide
from routing.turns.view import AwakeModel, Demand, Host, TurnSettings, Waiting
from routing.turns.worth import fair_worth

NOW_S = 1000.0
MODELS = ("a", "b", "c", "d")


def host(name: str = "h-0", *awake: AwakeModel, most: int = 1, switch_s: float = 1.0, **more: Any) -> Host:
    return replace(Host(name, most, awake, switch_s=dict.fromkeys(MODELS, switch_s)), **more)


def awake(model: str, *, for_s: float = 30.0, running: int = 0, **more: Any) -> AwakeModel:
    return replace(AwakeModel(model, NOW_S - for_s, NOW_S, running, drain_s=float(bool(running))), **more)


def demand(model: str, *ages_s: float, worth: float = 1.0, **more: Any) -> Demand:
    waiting = tuple(Waiting(NOW_S - age_s, worth) for age_s in sorted(ages_s, reverse=True))
    return replace(Demand(model, waiting), **more)


def plan(hosts: list[Host], *demands: Demand, **settings: float) -> Plan:
    named = {each.model for each in demands}
    others = [Demand(model) for model in MODELS if model not in named]
    return decide(NOW_S, hosts, [*demands, *others], TurnSettings(**{"drain_s": 2.0, **settings}))


def test_nothing_happens_where_nobody_waits() -> None:
    decided = plan([host("h-0", awake("a"))])
    assert (decided.switches, decided.ends, decided.sleeps, decided.held) == ((), (), (), ())


def test_a_model_comes_to_a_free_place() -> None:
    assert plan([host()], demand("a", 0.0)).switches == (Switch("h-0", "a", None, Why.WORTH),)


def test_a_host_in_mid_switch_decides_nothing() -> None:
    decided = plan([host("h-0", awake("b"), most=3, coming="c")], demand("a", 50.0))
    assert (decided.switches, decided.ends) == ((), ())
    assert decided.held == (("a", Why.SWITCHING),)


def test_what_comes_already_is_not_ordered_twice() -> None:
    decided = plan([host("h-0", coming="a"), host("h-1")], demand("a", 5.0))
    assert (decided.switches, decided.held) == ((), ())


def test_an_idle_model_goes_at_once() -> None:
    assert plan([host("h-0", awake("a"))], demand("b", 0.0)).switches == (Switch("h-0", "b", "a", Why.WORTH),)


def test_of_idle_models_the_one_goes_that_is_missed_least() -> None:
    two = host("h-0", awake("a"), awake("b"), most=2)
    decided = plan([two], demand("a", rate_per_s=1.0), demand("b", rate_per_s=0.1), demand("c", 0.0))
    assert decided.switches[0].instead_of == "b"


def test_the_model_comes_whose_requests_are_worth_most() -> None:
    decided = plan([host()], demand("a", 1.0), demand("b", 1.0, 1.0, 1.0))
    assert decided.switches[0].model == "b"


@pytest.mark.parametrize(("worth", "first"), [(4.0, "a"), (0.25, "b")])
def test_a_higher_band_or_weight_comes_first(worth: float, first: str) -> None:
    decided = plan([host()], demand("a", 1.0, worth=worth), demand("b", 1.0, 1.0))
    assert decided.switches[0].model == first


def test_of_models_alike_the_one_comes_whose_tenant_has_had_less() -> None:
    had, fresh = fair_worth(1.0, 1.0, 40_000.0), fair_worth(1.0, 1.0, 0.0)
    decided = plan([host()], demand("a", 1.0, 1.0, worth=had), demand("b", 1.0, worth=fresh))
    assert decided.switches[0].model == "b", "two requests of one that has had much are worth less than one"


def test_timely_requests_go_before_late_ones() -> None:
    decided = plan([host()], demand("a", 6.0), demand("b", 5.0), objective_s=6.5)
    assert decided.switches[0].model == "b", "a would be late whatever is done"


def test_a_busy_model_that_does_more_stays() -> None:
    busy = host("h-0", awake("a", running=3))
    decided = plan([busy], demand("a", rate_per_s=2.0), demand("b", 1.0))
    assert (decided.switches, decided.ends) == ((), ())
    assert decided.held == (("b", Why.BEHIND),)


def test_a_turn_ends_for_who_is_worth_so_much_more() -> None:
    busy = host("h-0", awake("a", running=3))
    decided = plan([busy], demand("a", rate_per_s=0.01), demand("b", 1.0, 1.0))
    assert decided.ends == (TurnEnd("h-0", "a", "b", Why.WORTH),)
    assert decided.held == (("b", Why.DRAINING),)


def test_a_turn_that_is_over_is_open_again_once_nobody_waits() -> None:
    shut = host("h-0", awake("a", running=3, shut=True))
    assert plan([shut], demand("a", 0.5)).ends == ()


def test_a_turn_that_is_over_stays_so_with_less_than_it_took() -> None:
    """`AHEAD` keeps a door from swinging: what ended a turn need not be so far ahead all the time."""
    rate = 0.15  # b's request does 1 / (1 s drain + 1 s switch + 3 s answer) = 0.2 of them a second
    assert 1.0 < 0.2 / rate < AHEAD
    for shut in (False, True):
        busy = host("h-0", awake("a", running=3, shut=shut))
        ends = plan([busy], demand("a", rate_per_s=rate), demand("b", 0.0)).ends
        assert bool(ends) is shut


def test_a_young_turn_goes_on_as_long_as_its_switch_took() -> None:
    for lasted_s, ends in ((4.0, False), (6.0, True)):
        busy = host("h-0", awake("a", for_s=lasted_s, running=1), switch_s=5.0)
        decided = plan([busy], demand("a"), demand("b", 1.0, 1.0, 1.0))
        assert bool(decided.ends) is ends
    assert plan([host("h-0", awake("a", for_s=1.0, running=1))], demand("b", 1.0), min_s=9.0).held == (
        ("b", Why.YOUNG),
    )


def test_a_turn_has_an_end_while_others_wait() -> None:
    busy = host("h-0", awake("a", for_s=61.0, running=9))
    decided = plan([busy], demand("a", rate_per_s=50.0), demand("b", 0.0))
    assert decided.ends == (TurnEnd("h-0", "a", "b", Why.MAX_TURN),)


def test_who_has_waited_for_usual_turns_of_everybody_comes_in_the_order_of_waiting() -> None:
    """Two wait and one is awake: 1.2 rounds of (1.3 * 3 s answers + 1 s switch) are 17.6 s."""
    crowd = demand("b", *[1.0] * 60)
    for age_s, first, why in ((17.0, "b", Why.WORTH), (18.0, "a", Why.LONGEST)):
        idle = host("h-0", awake("d"))
        assert plan([idle], demand("a", age_s), crowd).switches == (Switch("h-0", first, "d", why),)
    decided = plan([host()], demand("a", 11.0), demand("c", 10.0), crowd, starvation_limit_s=8.0)
    assert decided.switches[0].model == "a", "the limit is less, though stretched"
    assert decided.switches[0].why is Why.LONGEST


def test_who_has_waited_long_ends_no_turn_by_that_alone() -> None:
    busy = host("h-0", awake("d", running=3))
    decided = plan([busy], demand("d", rate_per_s=2.0), demand("a", 20.0), demand("b", 5.0))
    assert (decided.switches, decided.ends) == ((), ())


def test_who_would_starve_goes_before_all_that_is_worth_more() -> None:
    decided = plan([host()], demand("a", 31.0), demand("b", *[1.0] * 60))
    assert decided.switches == (Switch("h-0", "a", None, Why.STARVING),)


def test_who_would_starve_ends_any_turn_but_a_pinned_one() -> None:
    busy = host("h-0", awake("a", for_s=0.1, running=60))
    assert plan([busy], demand("a", rate_per_s=99.0), demand("b", 31.0)).ends == (
        TurnEnd("h-0", "a", "b", Why.STARVING),
    )
    decided = plan([busy], demand("a", pinned=True), demand("b", 31.0))
    assert (decided.ends, decided.held) == ((), (("b", Why.NOWHERE),))


def test_a_wait_begins_anew_with_the_end_of_a_turn() -> None:
    decided = plan([host()], demand("a", 50.0, last_turn_s=NOW_S - 1.0), demand("b", 31.0))
    assert decided.switches[0].model == "b"


def test_an_objective_makes_the_limit_shorter() -> None:
    assert plan([host()], demand("a", 1.0), objective_s=5.0, drain_s=1.0).limit_s == 10.0


def test_a_limit_that_leaves_no_time_for_everybody_is_stretched() -> None:
    decided = plan([host("h-0", awake("d", running=1), switch_s=20.0)], *(demand(m, 1.0) for m in "abc"))
    assert decided.limit_s == 1.5 * (2.0 + 20.0) * 3 + 20.0


def test_pinned_and_wanted_models_come_without_a_request_and_before_all_others() -> None:
    demands = [demand("a", 31.0), demand("b", wanted=True), demand("c", pinned=True)]
    first = plan([host()], *demands)
    assert first.switches == (Switch("h-0", "c", None, Why.PINNED),)
    second = plan([host("h-0", awake("c"), most=2)], *demands)
    assert second.switches == (Switch("h-0", "b", None, Why.WANTED),)


def test_a_pinned_model_never_goes() -> None:
    for running in (0, 3):
        pinned = host("h-0", awake("a", running=running))
        decided = plan([pinned], demand("a", pinned=True), demand("b", 500.0), ttl_s=1.0)
        assert (decided.switches, decided.ends, decided.sleeps) == ((), (), ())


def test_an_unused_model_goes_to_disk_after_its_ttl() -> None:
    unused = awake("a", used_s=NOW_S - 11.0)
    assert plan([host("h-0", unused)], ttl_s=10.0).sleeps == (("h-0", "a"),)
    for kept in (replace(unused, used_s=NOW_S - 9.0), replace(unused, running=1)):
        assert plan([host("h-0", kept)], ttl_s=10.0).sleeps == ()


def test_a_model_that_is_full_comes_to_a_second_host_for_a_queue_that_is_worth_it() -> None:
    full = awake("a", running=64, full=True)
    hosts = [host("h-0", full), host("h-1", awake("b"))]
    queue = [1.0] * SECOND_COPY
    assert plan(hosts, demand("a", *queue)).switches == (Switch("h-1", "a", "b", Why.FULL),)
    assert plan(hosts, demand("a", *queue[1:])).switches == ()
    assert plan([host("h-0", replace(full, full=False)), hosts[1]], demand("a", *queue)).switches == ()


def test_cold_copies_have_a_host_of_their_own() -> None:
    hosts = [host(f"h-{number}") for number in range(8)]
    where = {model: plan(hosts, demand(model, 1.0)).switches[0].host for model in MODELS}
    again = {model: plan(hosts[::-1], demand(model, 1.0)).switches[0].host for model in MODELS}
    assert where == again
    assert len(set(where.values())) > 1


def test_a_model_comes_where_it_comes_sooner() -> None:
    hosts = [host("h-0", switch_s=9.0), host("h-1", switch_s=0.5), host("h-2", switch_s=9.0)]
    assert plan(hosts, demand("a", 1.0)).switches[0].host == "h-1"


def test_a_model_that_can_come_nowhere_is_held_and_told() -> None:
    nowhere = replace(host(), switch_s={"b": 1.0})
    assert plan([nowhere], demand("a", 90.0)).held == (("a", Why.NOWHERE),)


def test_several_hosts_take_several_models_at_once_and_none_twice() -> None:
    hosts = [host(f"h-{number}") for number in range(3)]
    decided = plan(hosts, *(demand(model, 1.0) for model in MODELS))
    assert len({s.host for s in decided.switches}) == len({s.model for s in decided.switches}) == 3
    assert len(decided.held) == 1


def test_one_turn_ends_for_one_that_waits() -> None:
    hosts = [host(f"h-{number}", awake(model, running=1)) for number, model in enumerate("abc")]
    decided = plan(hosts, demand("d", 1.0))
    assert len(decided.ends) == 1
