"""The fleet's routes: what is passed on, what is shown, what is kept back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.problems import Problem
from routing.lifecycle.fleets import FleetInvalid
from tests.unit.routing.admin.fakes import Desk

FLEET = "/admin/v1/fleet"
OPERATOR: dict[str, Any] = {"key": "operator-key"}


async def test_a_document_s_password_is_not_shown(desk: Desk) -> None:
    text = "state: {database: 'postgresql+psycopg://me:pass%40word@host/name?password=other&x=1'}"
    desk.management.fleets.state = replace(desk.management.fleets.state, document=text)
    answer = await desk.ask("GET", FLEET, **OPERATOR)
    shown = answer.json()["document"]
    assert "pass%40word" not in shown and "other" not in shown
    assert shown == "state: {database: 'postgresql+psycopg://me:***@host/name?password=***&x=1'}"


async def test_json_is_a_document_too(desk: Desk) -> None:
    answer = await desk.ask("POST", f"{FLEET}?dry_run=true&revision=3", {"tenants": {}}, **OPERATOR)
    assert answer.status_code == 200
    document, _, expected, dry_run = desk.management.fleets.asked[0]
    assert (document.replace(b" ", b""), expected, dry_run) == (b'{"tenants":{}}', 3, True)
    assert answer.json()["changes"][0]["text"] == "requests_per_minute 60 -> 120"


async def test_every_problem_is_in_the_answer(desk: Desk) -> None:
    problems = [Problem("fleet.yaml", 3, "tenants.a", "is wrong", "correct it")]
    desk.management.fleets.error = FleetInvalid(problems, may_be_more=True)
    answer = await desk.ask("POST", FLEET, {}, **OPERATOR)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "fleet_invalid"
    assert answer.json()["problems"][0]["line"] == 3
    assert answer.json()["may_be_more"] is True


@pytest.mark.parametrize("query", ["dry_run=perhaps", "revision=-1", "revision=x", "unknown=1"])
async def test_a_wrong_question_changes_nothing(desk: Desk, query: str) -> None:
    answer = await desk.ask("POST", f"{FLEET}?{query}", {}, **OPERATOR)
    assert answer.status_code == 400
    assert desk.management.fleets.asked == []


async def test_a_tenant_s_key_is_not_enough(desk: Desk) -> None:
    for method in ("GET", "POST"):
        answer = await desk.ask(method, FLEET, None if method == "GET" else {}, key="acme-key")
        assert answer.status_code == 403
    assert desk.management.fleets.asked == []
