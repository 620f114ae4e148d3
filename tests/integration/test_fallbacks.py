"""Does a fallback answer where its model cannot, only then, and is it told?"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.states import VersionState
from fleet.money import Price, Prices
from fleet.types import BaseModel, Budget, Caps, Fleet, Pool, RequestLimits, Slo, Strategy
from routing.catalog.entries import AdapterKey
from tests.fakes import Client, entry_of, eventually, small_fleet, version_of
from tests.integration.conftest import Bench, bench_of
from tests.integration.test_usage import usage

MODEL = "x-tenantry-model"
KEY = AdapterKey(None, "a-support")


def fleet_of(caps: Caps | None = None, **changes: Any) -> Fleet:
    """The small fleet, where tenant a's `support` falls back to a base model in another pool of its own."""
    fleet = small_fleet(caps=caps, max_num_seqs=1)
    a = fleet.tenants["a"]
    a = replace(a, models={**a.models, "spare": "spare"}, fallbacks={"support": "spare"}, **changes)
    return replace(
        fleet,
        base_models={**fleet.base_models, "spare": BaseModel("spare", "/models/spare", max_num_seqs=8)},
        tenants={**fleet.tenants, "a": a},
        pools={
            **fleet.pools,
            "shared": replace(fleet.pools["shared"], slo=Slo(ttft_s=1.0)),
            "spare": Pool("spare", Strategy.REPLICA_PER_MODEL, ("spare",), 1, (), ("a",)),
        },
        gateway=replace(fleet.gateway, log_requests=True),
        prices=Prices("EUR", {"base": Price(10**6, 10**6, 10**6), "spare": Price(2 * 10**6, 2 * 10**6, 0)}),
    )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_of(fleet_of(), tmp_path) as bench:
        yield bench


def quarantine(bench: Bench, state: VersionState = VersionState.QUARANTINED) -> None:
    """No version of tenant a's adapter answers."""
    bench.gateway.directory.put(entry_of(KEY.name, versions=[version_of(KEY, state=state)], live=None))


async def overload(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Fill the shared pool, and have it expect a wait beyond its objective; returns what fills it."""
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    client = bench.chat("a", model="sales").start()
    await eventually(lambda: engine.running == 1)
    monkeypatch.setattr(bench.gateway.dispatcher.groups["shared", "base"], "sheds", lambda request: 9.0)
    return client


def fallbacks(bench: Bench) -> list[str]:
    """The lines of the page that count fallbacks."""
    bench.gateway.ended.flush()
    page = bench.gateway.metrics.page().decode()
    return [line for line in page.splitlines() if line.startswith("tenantry_fallbacks_total")]


async def is_answered_by_the_fallback(bench: Bench, reason: str) -> None:
    """Ask in every way, and see who answers and that it is told."""
    spare = bench.engines["spare-0"]
    for stream in (False, True):
        answer = await bench.chat(model="support", stream=stream)()
        assert (answer.status, answer.headers[MODEL]) == (200, "support; fallback=spare")
        assert "x-tenantry-adapter" not in answer.headers
        body = answer.body.replace(b'": "', b'":"')
        assert b'"model":"support"' in body and b'"model":"spare"' not in body
        assert spare.seen[-1]["model"] == "spare"
    (counted,) = fallbacks(bench)
    assert counted == f'tenantry_fallbacks_total{{tenant="a",model="support",reason="{reason}"}} 2.0'


async def test_a_model_that_can_answer_needs_no_fallback(bench: Bench) -> None:
    answer = await bench.chat(model="support")()
    assert (answer.status, answer.headers[MODEL]) == (200, "support")
    assert bench.engines["spare-0"].seen == [] and fallbacks(bench) == []


@pytest.mark.parametrize(
    ("state", "reason"),
    [(VersionState.QUARANTINED, "quarantined"), (VersionState.VERIFYING, "not_ready")],
)
async def test_a_model_without_a_version_is_answered_by_its_fallback(
    bench: Bench, state: VersionState, reason: str
) -> None:
    quarantine(bench, state)
    await is_answered_by_the_fallback(bench, reason)


async def test_a_model_without_a_replica_is_answered_by_its_fallback(bench: Bench) -> None:
    bench.gateway.dispatcher.set_draining("shared-0", True)
    await is_answered_by_the_fallback(bench, "no_replica")
    bench.gateway.dispatcher.set_draining("shared-0", False)
    assert (await bench.chat(model="support")()).headers[MODEL] == "support"


async def test_a_model_whose_engine_restarts_is_answered_by_its_fallback(bench: Bench) -> None:
    bench.gateway.dispatcher.set_ready("shared-0", False)
    answer = await bench.chat(model="support")()
    assert (answer.status, answer.headers[MODEL]) == (200, "support; fallback=spare")


async def test_a_model_that_would_come_too_late_is_answered_by_its_fallback(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await overload(bench, monkeypatch)
    await is_answered_by_the_fallback(bench, "overloaded")
    plain = await bench.chat(model="plain")()
    assert (plain.status, plain.error["code"]) == (503, "overloaded"), "it has no fallback"
    bench.engines["shared-0"].release.set()
    await running.done()


async def test_the_ledger_has_who_answered_for_whom_at_whose_price(bench: Bench, tmp_path: Path) -> None:
    quarantine(bench)
    answer = await bench.chat(model="support")()
    assert answer.headers["x-tenantry-cost"] == "0.000014", "7 prompt tokens at 2 for a million"
    told = await usage(bench, group_by="model,adapter")
    (line,) = told["data"]
    assert (line["model"], line["adapter"], line["cost"]) == ("spare", None, "0.000014")
    with sqlite3.connect(tmp_path / "usage.db") as database:
        rows = database.execute("SELECT model, adapter, pool, fallback_of FROM usage_records").fetchall()
    database.close()
    assert rows == [("spare", "", "spare", "support")]


async def test_the_log_and_the_scheduler_say_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    quarantine(bench)
    with caplog.at_level(logging.INFO, "tenantry.request"):
        await bench.chat(model="support")()
        (line,) = bench.logged(caplog)
    assert (line["model"], line["fallback_of"], line["fallback_reason"]) == (
        "spare",
        "support",
        "quarantined",
    )
    decisions = bench.gateway.dispatcher.decisions.last()
    assert [(d.action.value, d.reason, d.model) for d in decisions][1] == (
        "fallback", "quarantined of support", "spare"
    )  # fmt: skip


# -- when it does not answer -------------------------------------------------------------------------------


async def test_where_the_fallback_cannot_either_the_model_that_was_asked_for_says_why(bench: Bench) -> None:
    for replica in ("shared-0", "spare-0"):
        bench.gateway.dispatcher.set_draining(replica, True)
    answer = await bench.chat(model="support")()
    assert (answer.status, answer.error["code"], answer.headers[MODEL]) == (
        503,
        "no_replica_ready",
        "support",
    )
    quarantine(bench)
    answer = await bench.chat(model="support")()
    assert (answer.status, answer.error["code"]) == (409, "adapter_quarantined")
    assert fallbacks(bench) == []


async def test_the_caps_of_the_fallback_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench_of(fleet_of(Caps(max_concurrency_per_model=1)), tmp_path) as bench:
        running = await overload(bench, monkeypatch)
        spare = bench.engines["spare-0"]
        spare.behave = spare.hold
        other = bench.chat(model="spare").start()
        await eventually(lambda: spare.running == 1)
        answer = await bench.chat(model="support")()
        assert (answer.status, answer.error["code"], answer.headers[MODEL]) == (503, "overloaded", "support")
        for engine in bench.engines.values():
            engine.release.set()
        await running.done()
        await other.done()
        assert (await usage(bench, group_by="model"))["total"]["requests"] == 3


async def test_a_cap_that_is_reached_is_no_reason(tmp_path: Path) -> None:
    async with bench_of(fleet_of(Caps(requests_per_minute=1)), tmp_path) as bench:
        assert (await bench.chat(model="support")()).status == 200
        answer = await bench.chat(model="support")()
        assert (answer.status, answer.headers[MODEL]) == (429, "support")
        assert bench.engines["spare-0"].seen == []


async def test_a_budget_has_what_both_tries_reserved_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(10_000, soft=0.0001)
    async with bench_of(fleet_of(budget=budget), tmp_path) as bench:
        running = await overload(bench, monkeypatch)
        answer = await bench.chat(model="support")()
        assert answer.headers[MODEL] == "support; fallback=spare"
        bench.engines["shared-0"].release.set()
        await running.done()
        second = await bench.chat(model="support")()
        assert "x-tenantry-budget-remaining-tokens" in second.headers
        told = await usage(bench)
        total = told["total"]
        assert told["budget"]["used_tokens"] == total["prompt_tokens"] + total["completion_tokens"]


async def test_a_version_that_is_asked_for_has_no_fallback(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await overload(bench, monkeypatch)
    answer = await bench.chat(model="support@1")()
    assert (answer.status, answer.error["code"]) == (503, "overloaded")
    bench.engines["shared-0"].release.set()
    await running.done()
    quarantine(bench)
    assert (await bench.chat(model="support@1")()).status == 404


async def test_other_tenants_have_none_of_it(bench: Bench) -> None:
    bench.gateway.dispatcher.set_draining("shared-0", True)
    answer = await bench.chat("b", model="support")()
    assert (answer.status, answer.error["code"]) == (503, "no_replica_ready")
    assert (await bench.chat("b", model="spare")()).status == 404


async def test_a_client_that_leaves_its_fallback_leaves_nothing_behind(bench: Bench) -> None:
    quarantine(bench)
    spare = bench.engines["spare-0"]
    spare.behave = spare.hold
    client = bench.chat(model="support").start()
    await eventually(lambda: spare.running == 1)
    client.leave()
    await client.done()
    await eventually(lambda: bench.at_rest)
    assert (await usage(bench, group_by="outcome"))["data"][0]["outcome"] == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_where_the_fallback_fails_the_client_is_told_why_it_was_needed(
    bench: Bench, stream: bool
) -> None:
    quarantine(bench)
    spare = bench.engines["spare-0"]
    spare.behave = spare.break_down
    answer = await bench.chat(model="support", stream=stream)()
    assert (answer.status, answer.error["code"]) == (409, "adapter_quarantined")
    assert answer.headers[MODEL] == "support; fallback=spare", "it was tried"
    spare.behave = spare.refuse_request
    answer = await bench.chat(model="support", stream=stream)()
    assert answer.status == 400, "what is wrong with the request is the client's to know"


async def test_what_is_too_much_for_the_fallback_is_refused_as_the_model_was(tmp_path: Path) -> None:
    fleet = fleet_of()
    spare = replace(fleet.base_models["spare"], request_limits=RequestLimits(messages=1))
    fleet = replace(fleet, base_models={**fleet.base_models, "spare": spare})
    async with bench_of(fleet, tmp_path) as bench:
        quarantine(bench)
        messages = [{"role": "user", "content": "who?"}] * 2
        answer = await bench.chat(model="support", messages=messages)()
        assert (answer.status, answer.error["code"]) == (409, "adapter_quarantined")
        assert MODEL not in answer.headers


async def test_a_fallback_comes_and_goes_with_the_fleet(bench: Bench) -> None:
    quarantine(bench)
    fleet, current = fleet_of(), bench.gateway.fleet
    without = replace(fleet.tenants["a"], fallbacks={})
    current.replace(replace(fleet, tenants=fleet.tenants | {"a": without}))
    assert (await bench.chat(model="support")()).status == 409
    current.replace(fleet)
    assert (await bench.chat(model="support")()).status == 200
