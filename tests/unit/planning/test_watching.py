"""When is another plan better, how often must that be seen, and what is far from what was planned?"""

from __future__ import annotations

import math
from typing import Any

import pytest

from planning.served import ModelSeen, Observed, PoolSeen
from planning.values import DAY_S, HOUR_S
from planning.watching import Advice, look, rest_s

WEEK_S = 7 * DAY_S
Answer = dict[str, Any]


def plan(
    now: int | None = 4, devices: int = 4, *, meets: bool = True, moves: int = 1, **changes: Any
) -> Answer:
    """The answer of a plan for one model in one pool."""
    model = {
        "model": "support",
        "requests_per_day": 100.0,
        "objective_s": 2.0,
        "first_token_p50_s": [0.5, 0.5, 0.5],
        "first_token_p99_s": [1.0, 1.0, 1.0],
    }
    pool = {"pool": "mesh", "busy": [0.2, 0.2, 0.2], "switching": [0.05, 0.05, 0.05]}
    return {
        "meets_objectives": meets,
        "devices": {"now": now, "planned": devices},
        "moves": moves,
        "models": [model],
        "pools": [pool],
    }


def seen(
    requests: int = 700, first_s: float = 0.8, *, late: int = 0, switch_s: float = 100.0, hosts: int = 1
) -> Observed:
    """A week of one model; so many first tokens were late."""
    times = [first_s] * (requests - late) + [9.0] * late
    pool = PoolSeen(hosts, {1: 900.0, 2: 1800.0}, {1: switch_s, 2: 10.0})
    return Observed(0.0, WEEK_S, {"support": ModelSeen(requests, times)}, {"mesh": pool})


def looks(*answers: Answer, observed: Observed | None = None, planned: Answer | None = None) -> list[Answer]:
    """One look after the other, each with the plan that was made then."""
    found: list[Answer] = []
    for anew in answers:
        before = found[-1] if found else None
        found.append(look(planned or plan(), anew, observed or seen(), switching=0.2, before=before))
    return found


def advice(*answers: Answer, observed: Observed | None = None) -> list[str]:
    return [one["advice"] for one in looks(*answers, observed=observed)]


def test_a_better_plan_is_told_once_two_looks_in_a_row_find_it_and_taken_back_so_too() -> None:
    better, same = plan(devices=3), plan()
    assert advice(better, same, better) == ["stay"] * 3
    assert advice(better, better, same, better, same, same) == [
        *("stay", "consolidate", "consolidate", "consolidate", "consolidate", "stay"),
    ]
    assert looks(better)[0]["wish"] == "consolidate"
    assert looks(better)[0]["said"] == "3 devices would do, 4 are in use"
    assert looks(plan(devices=1))[0]["said"] == "1 device would do, 4 are in use"


def test_more_devices_are_advised_only_where_something_falls_short() -> None:
    more = plan(devices=5)
    assert advice(more, more) == ["stay", "stay"]
    assert advice(more, more, observed=seen(late=100)) == ["stay", "split"]
    assert looks(more, observed=seen(late=100))[0]["said"] == (
        "`support` misses its objective: 5 devices instead of 4 would meet all objectives, simulated"
    )


def test_as_many_devices_used_otherwise_are_an_advice_where_models_move() -> None:
    assert advice(plan(), plan(), observed=seen(late=100)) == ["stay", "rearrange"]
    unmoved = plan(moves=0)
    assert advice(unmoved, unmoved, observed=seen(late=100)) == ["stay", "stay"]
    assert "no plan would serve it otherwise" in looks(unmoved, observed=seen(late=100))[0]["said"]


def test_hosts_that_switch_more_than_a_plan_may_fall_short() -> None:
    restless = seen(switch_s=0.3 * HOUR_S)
    assert advice(plan(devices=5), plan(devices=5), observed=restless) == ["stay", "split"]
    assert (
        advice(plan(devices=5), plan(devices=5), observed=seen(switch_s=0.3 * HOUR_S, hosts=2))[1] == "stay"
    )


@pytest.mark.parametrize(
    ("anew", "said"),
    [
        (plan(devices=2, meets=False), "no plan meets all objectives"),
        (plan(now=None, devices=2), "no fleet of today was named, so that nothing can be compared"),
        (plan(), "4 devices, as the plan has it"),
    ],
)
def test_what_cannot_be_better_is_no_advice(anew: Answer, said: str) -> None:
    first, second = looks(anew, anew)
    assert (first["wish"], second["advice"], second["said"]) == (Advice.STAY, Advice.STAY, said)


def test_a_few_late_ones_by_chance_miss_no_objective() -> None:
    assert not looks(plan(), observed=seen(late=8))[0]["models"][0]["is_late"]
    assert looks(plan(), observed=seen(late=14))[0]["models"][0]["is_late"]
    late = Observed(0.0, WEEK_S, {"support": ModelSeen(100, [math.inf] * 100)}, {})
    (one,) = looks(plan(), observed=late)[0]["models"]
    assert (one["in_time"], one["first_token_p99_s"], one["is_late"]) == (0.0, None, True)


def test_planned_and_measured_stand_side_by_side() -> None:
    (one,) = looks(plan())
    (model,), (pool,) = one["models"], one["pools"]
    assert model["requests_per_day"] == model["planned_requests_per_day"] == 100.0
    assert (model["first_token_p99_s"], model["planned_p99_s"], model["in_time"]) == (0.8, 1.0, 1.0)
    assert (pool["busy"], pool["planned_busy"], pool["planned_switching"]) == (0.5, 0.2, 0.05)
    assert pool["switching"] == pytest.approx(100 / HOUR_S)
    assert one["differs"] == []


def test_what_is_far_from_the_plan_is_said() -> None:
    busy = seen(2800, 1.8, switch_s=360.0)
    assert looks(plan(), observed=busy)[0]["differs"] == [
        "`support`: 400 requests a day, planned 100",
        "`support`: first token p99 1.8 s, planned 1 s",
        "pool mesh: switches take 10 % of its busiest hour, planned 5 %",
    ]
    few = looks(plan(), observed=seen(10, 1.8))[0]
    assert few["differs"] == ["`support`: 1 requests a day, planned 100"]


def test_models_and_pools_that_were_not_planned_have_no_plan_beside_them() -> None:
    planned = plan() | {"models": [], "pools": []}
    (one,) = looks(plan(), planned=planned)
    assert one["models"][0]["planned_requests_per_day"] is None
    assert one["pools"][0]["planned_busy"] is None
    nobody = Observed(0.0, 0.0, {}, {})
    assert looks(plan(), observed=nobody)[0]["models"][0]["requests"] == 0


def test_a_restart_of_the_watch_is_no_look() -> None:
    (one,) = looks(plan())
    assert rest_s(None, WEEK_S, 5.0) == 0.0
    assert rest_s(one, WEEK_S, WEEK_S + 1000) == WEEK_S - 1000
    assert rest_s(one, WEEK_S, 3 * WEEK_S) == 0.0
    assert rest_s(one, WEEK_S, 0.0) == WEEK_S
