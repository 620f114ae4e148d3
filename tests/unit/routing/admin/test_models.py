"""The admin API's routes for whole models that take turns."""

from __future__ import annotations

import pytest

from routing.errors import Conflict
from tests.unit.routing.admin.fakes import Desk, error_of

MODELS = "/admin/v1/models"


async def test_models_are_listed_with_their_states_and_the_last_turns(desk: Desk) -> None:
    answer = (await desk.ask("GET", MODELS, key="operator-key")).json()
    (model,) = answer["data"]
    assert (model["host"], model["model"], model["state"]) == ("mesh-0", "one", "awake")
    assert (model["since_s"], model["cost_s"], model["took_s"]) == (12.346, 21.5, {"cold": 21.5})
    assert model["resting"] == {"put": "shape mismatch (1x after two)"}
    (turn,) = answer["turns"]
    assert (turn["at"], turn["model"], turn["instead_of"]) == (1_700_000_000.0, "one", "two")
    assert (turn["what"], turn["why"], turn["way"]) == ("awake", "worth", "cold")


async def test_a_model_is_woken_and_the_answer_says_who_goes_and_how_long_it_takes(desk: Desk) -> None:
    answer = await desk.ask("POST", f"{MODELS}/one/wake", key="operator-key")
    (told,) = answer.json()["data"]
    assert (told["host"], told["instead_of"], told["wait_s"]) == ("mesh-0", "two", 4.0)
    assert told["affected"] == {"running": 2, "waiting": 0}
    assert desk.management.models.asked == [("wake", "one")]


async def test_a_dry_run_says_the_same_and_does_nothing(desk: Desk) -> None:
    answer = await desk.ask("POST", f"{MODELS}/one/wake?dry_run=true", key="operator-key")
    assert answer.json()["data"][0]["instead_of"] == "two"
    assert desk.management.models.asked == []


@pytest.mark.parametrize(
    ("method", "order", "asked"),
    [
        ("POST", "sleep", ("sleep", "one")),
        ("POST", "pin", ("pin", "one", True)),
        ("DELETE", "pin", ("pin", "one", False)),
    ],
)
async def test_an_order_answers_with_the_model_as_it_is(
    desk: Desk, method: str, order: str, asked: tuple[object, ...]
) -> None:
    answer = await desk.ask(method, f"{MODELS}/one/{order}", key="operator-key")
    assert answer.json()["data"][0]["state"] == "awake"
    assert desk.management.models.asked == [asked]


@pytest.mark.parametrize("order", ["wake", "sleep", "pin"])
async def test_what_cannot_be_done_is_told(desk: Desk, order: str) -> None:
    unknown = await desk.ask("POST", f"{MODELS}/nobody/{order}", key="operator-key")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    desk.management.models.error = Conflict("`one` is pinned.", code="pinned")
    refused = await desk.ask("POST", f"{MODELS}/one/{order}", key="operator-key")
    assert (refused.status_code, error_of(refused)["code"]) == (409, "pinned")


@pytest.mark.parametrize("name", ["..", "a%2Fb", "a%0Ab", "x" * 300])
async def test_a_name_that_is_none_is_refused_before_anybody_is_asked(desk: Desk, name: str) -> None:
    answer = await desk.ask("POST", f"{MODELS}/{name}/wake", key="operator-key")
    assert answer.status_code in (400, 404, 405)
    assert desk.management.models.asked == []
