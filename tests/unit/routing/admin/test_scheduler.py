"""What operators read of a real dispatcher, and what they do to its replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from routing.admin import scheduler_answers as answers
from routing.scheduling import decisions
from routing.scheduling.replica_figures import ReplicaFigures
from routing.types import Outcome
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk, error_of
from tests.unit.routing.scheduling.busy import Busy, busy
from tests.unit.routing.scheduling.whole import Whole

SCHEDULER = "/admin/v1/scheduler"
REPLICAS = "/admin/v1/replicas"
OPERATOR: dict[str, Any] = {"key": "operator-key"}


@pytest.fixture
def house() -> Busy:
    return busy()


@pytest.fixture
def desk(tmp_path: Path, house: Busy) -> Desk:
    """An admin API in front of a dispatcher that is busy."""
    desk = fakes.desk(tmp_path, tenants=house.fleet.tenants)
    desk.management.scheduled = house.dispatcher.report(decisions.KEPT)
    return desk


async def scheduler(desk: Desk, query: str = "") -> dict[str, Any]:
    answer = await desk.ask("GET", SCHEDULER + query, **OPERATOR)
    assert answer.status_code == 200, answer.text
    return cast(dict[str, Any], answer.json())


# -- what is held ------------------------------------------------------------------------------------------


async def test_a_pool_shows_its_queue_its_objectives_and_why_each_model_waits(desk: Desk) -> None:
    shared, alone = (await scheduler(desk))["pools"]
    assert (shared["name"], alone["name"]) == ("shared", "alone")
    assert shared["queued_by_band"] == {"high": 0, "standard": 1, "low": 0}
    assert (shared["ttft_slo_s"], shared["itl_slo_s"]) == (60.0, 0.05)
    first = {"engine_model": "a-sales@1", "queued": 1, "oldest_s": 11.5, "waits_for": "no_slot"}
    assert shared["waiting"] == [first]
    assert alone["waiting"] == alone["tenants"] == []


async def test_a_pool_with_several_base_models_is_listed_once_for_each(desk: Desk) -> None:
    house = Whole(width=1)
    tickets = [house.submit(model) for model in ("large", "large", "small")]
    desk.management.scheduled = house.dispatcher.report()
    pools = (await scheduler(desk))["pools"]
    assert [(pool["name"], pool["base_model"]) for pool in pools] == [("whole", "large"), ("whole", "small")]
    assert [pool["queued_by_band"]["standard"] for pool in pools] == [1, 0]
    house.end(*tickets)


async def test_a_replica_shows_leases_limits_memory_and_the_slot_that_drains(desk: Desk) -> None:
    (replica,) = (await scheduler(desk))["pools"][0]["replicas"]
    assert replica["name"] == "shared-0"
    assert (replica["ready"], replica["draining"], replica["trusted"]) == (True, False, True)
    assert (replica["sequences"], replica["capacity"], replica["max_sequences"]) == (1, 8, 8)
    assert (replica["slots"], replica["free_slots"]) == (1, 0)
    assert replica["leases"] == [{"adapter": "a-support@1", "tenant": "a", "sequences": 1, "leased_s": 12.5}]
    assert replica["resident"] == ["a-sales@1", "a-support@1"]
    assert (replica["slot_drains_for"], replica["slot_evicted"]) == ("a-sales@1", "a-support@1")
    assert (replica["itl_s"], replica["kv_tokens"]) == (0.02, 1000)
    assert replica["health"]["breaker"] == "closed"
    assert replica["health"]["probe_in_s"] is None


async def test_a_tenant_shows_its_counter_and_what_it_has(desk: Desk) -> None:
    (tenant,) = (await scheduler(desk))["pools"][0]["tenants"]
    assert (tenant["name"], tenant["band"], tenant["weight"]) == ("a", "standard", 1.0)
    assert (tenant["queued"], tenant["tickets"], tenant["slots"]) == (1, 2, 1)
    assert tenant["service_tokens"] > 0


async def test_an_open_breaker_shows_what_failed_and_when_it_is_tried_again(desk: Desk, house: Busy) -> None:
    house.fail("shared-0", 3)
    desk.management.scheduled = house.dispatcher.report()
    health = (await scheduler(desk))["pools"][0]["replicas"][0]["health"]
    assert (health["breaker"], health["consecutive_failures"]) == ("open", 3)
    assert health["probe_in_s"] == health["backoff_s"] == 1.0
    assert health["last_failure"] == "it failed while it answered"


async def test_a_gateway_at_rest_shows_its_pools_and_no_tenant(desk: Desk, house: Busy) -> None:
    for ticket in house.tickets:
        house.dispatcher.settle(ticket, Outcome.CANCELLED)
    desk.management.scheduled = house.dispatcher.report()
    shared = (await scheduler(desk))["pools"][0]
    assert shared["waiting"] == shared["tenants"] == shared["replicas"][0]["leases"] == []
    assert shared["queued_by_band"] == {"high": 0, "standard": 0, "low": 0}


# -- what was decided --------------------------------------------------------------------------------------


async def test_decisions_come_newest_first_with_how_long_ago_they_were(desk: Desk) -> None:
    found = (await scheduler(desk))["decisions"]
    assert [(d["ago_s"], d["action"], d["reason"], d["request_id"]) for d in found] == [
        (0.5, "rejected", "max_concurrency", "refused"),
        (0.5, "draining", "takes the slot of a-support@1", "waiting"),
        (11.5, "queued", "no_slot", "waiting"),
        (12.5, "granted", "only", "running"),
    ]
    assert found[-1]["replica"] == "shared-0"
    assert {d["pool"] for d in found} == {"shared"}


@pytest.mark.parametrize(
    ("query", "requests"),
    [
        ("?decisions=2", ["refused", "waiting"]),
        ("?decisions=0", []),
        ("?request=waiting", ["waiting", "waiting"]),
        ("?request=running&tenant=a", ["running"]),
        ("?request=nobody", []),
        ("?tenant=b", []),
        ("?tenant=a&decisions=1", ["refused"]),
    ],
)
async def test_decisions_are_counted_after_they_were_chosen(
    desk: Desk, query: str, requests: list[str]
) -> None:
    assert [d["request_id"] for d in (await scheduler(desk, query))["decisions"]] == requests


async def test_the_last_decision_of_another_request_does_not_hide_an_old_one(desk: Desk, house: Busy) -> None:
    for _ in range(200):
        house.offer("a", "support", "noise")
    desk.management.scheduled = house.dispatcher.report(decisions.KEPT)
    (found,) = (await scheduler(desk, "?request=running&decisions=1"))["decisions"]
    assert found["action"] == "granted"


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("?decisions=-1", 400, "decisions"),
        (f"?decisions={decisions.KEPT + 1}", 400, "decisions"),
        ("?decisions=many", 400, "decisions"),
        ("?tenant=nobody", 404, "tenant"),
        ("?tenant=../x", 400, "tenant"),
        ("?request=", 400, "request"),
        (f"?request={'x' * 129}", 400, "request"),
        ("?pool=shared", 400, "pool"),
    ],
)
async def test_a_bad_question_is_refused_by_name(desk: Desk, query: str, status: int, param: str) -> None:
    answer = await desk.ask("GET", SCHEDULER + query, **OPERATOR)
    assert answer.status_code == status
    assert error_of(answer)["param"] == param


async def test_the_scheduler_is_for_operators(desk: Desk) -> None:
    assert (await desk.ask("GET", SCHEDULER, key="acme-key")).status_code == 403


async def test_the_scheduler_and_the_live_picture_show_every_figure_of_a_replica(desk: Desk) -> None:
    names = {field.name for field in dataclasses.fields(ReplicaFigures)}
    for path in (SCHEDULER, "/admin/v1/live"):
        replica = (await desk.ask("GET", path, **OPERATOR)).json()["pools"][0]["replicas"][0]
        assert names < replica.keys(), path


def test_nothing_of_decisions_is_left_out() -> None:
    of_decision = set(decisions.Decision._fields)
    assert set(answers.DecisionAnswer.model_fields) == of_decision - {"at_s"} | {"ago_s"}


def test_every_field_that_does_not_explain_itself_is_described(tmp_path: Path) -> None:
    plain = {"name", "tenant", "pool", "queued", "leases", "replicas", "pools", "health", "request_id"}
    schemas = fakes.desk(tmp_path).app.openapi()["components"]["schemas"]
    for name, field, schema in fields_of("SchedulerAnswer", schemas):
        assert "description" in schema or field in plain | {"consecutive_failures"}, f"{name}.{field}"


def fields_of(name: str, schemas: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every field of a schema and of those it is made of."""
    for field, schema in schemas[name].get("properties", {}).items():
        yield name, field, schema
        for part in (schema, schema.get("items", {})):
            if "$ref" in part:
                yield from fields_of(part["$ref"].rpartition("/")[2], schemas)


# -- draining ----------------------------------------------------------------------------------------------


async def test_a_replica_is_drained_and_resumed_and_shows_it(desk: Desk) -> None:
    desk.management.reports = [fakes.report(), fakes.report("shared-1")]
    for action, state in (("drain", "draining"), ("resume", "ready")):
        answer = await desk.ask("POST", f"{REPLICAS}/shared-1/{action}", **OPERATOR)
        assert answer.status_code == 200
        assert (answer.json()["name"], answer.json()["state"]) == ("shared-1", state)
        assert answer.json()["in_flight"] == 3, "what runs goes on"
        listed = (await desk.ask("GET", REPLICAS, **OPERATOR)).json()["data"]
        assert [replica["state"] for replica in listed] == ["ready", state]
    assert desk.management.calls == [("set_draining", "shared-1", True), ("set_draining", "shared-1", False)]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"ready": False}, "not_ready"),
        ({"trusted": False}, "not_trusted"),
        ({"trusted": False, "ready": False}, "not_ready"),
        ({"draining": True, "ready": False}, "draining"),
    ],
)
async def test_a_replica_says_why_it_gets_no_work(desk: Desk, changes: dict[str, Any], state: str) -> None:
    desk.management.reports = [replace(fakes.report(), figures=fakes.figures(**changes))]
    assert (await desk.ask("GET", REPLICAS, **OPERATOR)).json()["data"][0]["state"] == state


@pytest.mark.parametrize("action", ["drain", "resume"])
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("nobody", 404, "replica_not_found"), ("a b", 400, "invalid_value"), ("x" * 129, 400, "invalid_value")],
)
async def test_a_replica_that_is_not_there_cannot_be_drained(
    desk: Desk, action: str, name: str, status: int, code: str
) -> None:
    answer = await desk.ask("POST", f"{REPLICAS}/{name}/{action}", **OPERATOR)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert desk.management.calls == []


@pytest.mark.parametrize("action", ["drain", "resume"])
async def test_only_operators_drain(desk: Desk, action: str) -> None:
    desk.management.reports = [fakes.report()]
    answer = await desk.ask("POST", f"{REPLICAS}/shared-0/{action}", key="acme-key")
    assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")
    assert desk.management.calls == []
