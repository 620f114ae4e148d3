"""Plans that were made elsewhere: kept as far as they are drawn, shown to operators, followed by nothing."""

from __future__ import annotations

from typing import Any

import pytest

from routing.admin.gate import MAX_PLAN_BYTES
from tests.unit.routing.admin.fakes import Desk, error_of
from tests.unit.routing.admin.plans import LOOK, MODEL, PLAN

PATH = "/admin/v1/plan"
KEY = "operator-key"


async def test_without_a_plan_nothing_is_shown(desk: Desk) -> None:
    answer = await desk.ask("GET", PATH, key=KEY)
    assert answer.json() == {"object": "plan", "plan": None, "look": None}


async def test_what_was_published_is_shown_and_what_is_not_drawn_is_left_out(desk: Desk) -> None:
    sent = await desk.ask("PUT", PATH, PLAN | {"tenants": [{"tenant": "shop"}], "gap": 1}, key=KEY)
    assert sent.status_code == 204, sent.text
    await desk.ask("PUT", f"{PATH}/look", LOOK, key=KEY)
    kept = (await desk.ask("GET", PATH, key=KEY)).json()
    assert kept["plan"] == {
        "at": 1_700_000_000.0,
        "actor": "key 12345678",
        "answer": PLAN | {"models_left_out": 0},
    }
    assert kept["look"]["answer"] == LOOK | {"models_left_out": 0}
    assert desk.management.plans.said == [
        "published: 2 devices, 4 in use",
        "2 devices would do, 4 are in use",
    ]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"devices": {"now": -1, "planned": 2}}, "devices.now"),
        ({"models": [MODEL] * 1001}, "models"),
        ({"models": [MODEL | {"why": "x" * 2001}]}, "models.0.why"),
        ({"models": [MODEL | {"first_token_p50_s": [1.0]}]}, "models.0.first_token_p50_s"),
        ({"meets_objectives": None}, "meets_objectives"),
    ],
)
async def test_what_is_no_plan_is_refused_by_its_field(desk: Desk, wrong: dict[str, Any], param: str) -> None:
    answer = await desk.ask("PUT", PATH, PLAN | wrong, key=KEY)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)
    assert desk.management.plans.documents == {}


async def test_advice_that_is_not_known_is_refused(desk: Desk) -> None:
    answer = await desk.ask("PUT", f"{PATH}/look", LOOK | {"advice": "panic"}, key=KEY)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "advice")


async def test_a_plan_may_be_larger_than_other_bodies_and_not_without_bound(desk: Desk) -> None:
    many = await desk.ask("PUT", PATH, PLAN | {"models": [MODEL] * 1000}, key=KEY)
    assert many.status_code == 204
    huge = await desk.ask("PUT", PATH, PLAN | {"padding": "x" * MAX_PLAN_BYTES}, key=KEY)
    assert huge.status_code == 413


async def test_without_the_database_it_is_said_so(desk: Desk) -> None:
    desk.management.gone = True
    answer = await desk.ask("PUT", PATH, PLAN, key=KEY)
    assert answer.status_code == 503
