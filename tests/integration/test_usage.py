"""Does the ledger tell of every request what it used, to its tenant and to nobody else?"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Budget, Caps, Fleet
from tests.fakes import Client, eventually, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of

DIMENSIONS = "model,adapter,version,outcome"


async def usage(bench: Bench, tenant: str = "a", **fields: str) -> dict[str, Any]:
    """The answer to a tenant's query."""
    text = "&".join(f"{name.rstrip('_')}={value}" for name, value in fields.items())
    answer = await bench.get(f"/v1/usage?{text}", key=key_of(tenant))()
    assert answer.status == 200, answer.body
    told: dict[str, Any] = answer.json()
    return told


async def outcomes(bench: Bench, tenant: str = "a") -> dict[str, tuple[int, int, int]]:
    """Requests, prompt and completion tokens by outcome."""
    told = await usage(bench, tenant, group_by="outcome")
    lines = told["data"]
    return {n["outcome"]: (n["requests"], n["prompt_tokens"], n["completion_tokens"]) for n in lines}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ],
)
async def test_a_request_counts_with_what_the_engine_counted_whoever_asked_for_it(
    bench: Bench, fields: dict[str, Any]
) -> None:
    answer = await bench.chat(model="support", **fields)()
    assert answer.status == 200
    assert (b'"usage"' in answer.body) is (not fields.get("stream") or "stream_options" in fields)
    told = await usage(bench, group_by=DIMENSIONS)
    (line,) = told["data"]
    run_s, slot_s, engine_s = line.pop("run_s"), line.pop("slot_s"), line.pop("engine_s")
    assert line.pop("queue_s") >= 0
    assert line == {
        "model": "support", "adapter": "a-support", "version": 1, "outcome": "completed",
        "requests": 1, "estimated_requests": 0,
        "prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 0,
        "priced_requests": 0, "cost": None, "switch_s": 0,
    }  # fmt: skip
    assert 0 < slot_s <= engine_s * 1.001 <= run_s * 1.01, "it ran alone"


async def test_a_stream_that_its_client_leaves_counts_up_to_what_the_engine_had_sent(bench: Bench) -> None:
    bench.engines["shared-0"].behave = bench.engines["shared-0"].hold_mid_stream
    client = bench.chat(model="support", stream=True).start()
    await eventually(lambda: b'"I ' in client.body)
    client.leave()
    await client.done()
    told = await usage(bench, group_by="outcome")
    (line,) = told["data"]
    assert (line["outcome"], line["prompt_tokens"], line["completion_tokens"]) == ("cancelled", 7, 1)
    assert line["estimated_requests"] == 0


async def test_what_is_left_before_the_engine_has_said_anything_is_estimated(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    client = bench.chat(model="support").start()
    await eventually(lambda: engine.running == 1)
    client.leave()
    await client.done()
    told = await usage(bench, group_by="outcome")
    (line,) = told["data"]
    assert (line["outcome"], line["estimated_requests"], line["completion_tokens"]) == ("cancelled", 1, 0)
    assert line["prompt_tokens"] > 0 and line["slot_s"] > 0


async def test_refused_and_failed_requests_are_there_without_tokens(tmp_path: Path) -> None:
    async with bench_of(small_fleet(caps=Caps(max_concurrency=1)), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        running = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        assert (await bench.chat(model="support")()).status == 429
        engine.release.set()
        await running.done()
        engine.behave = engine.break_down
        assert (await bench.chat(model="support")()).status == 502
        engine.behave = engine.refuse_request
        assert (await bench.chat(model="support")()).status == 400
        assert await outcomes(bench) == {
            "completed": (2, 7, 3), "failed": (1, 0, 0), "rejected": (1, 0, 0)
        }  # fmt: skip


async def test_a_request_that_moves_to_another_replica_counts_once_with_its_share_of_both(
    pair: Bench,
) -> None:
    first = pair.engines["shared-0"]
    first.behave = first.say_loading
    for _ in range(2):
        assert (await pair.chat(model="support")()).status == 200
    assert await outcomes(pair) == {"completed": (2, 14, 6)}


async def test_embeddings_and_completions_count_too(bench: Bench) -> None:
    await bench.post("/v1/completions", {"model": "support", "prompt": "x"})()
    await bench.post("/v1/embeddings", {"model": "plain", "input": "x"})()
    told = await usage(bench, group_by="adapter")
    assert [(line["adapter"], line["requests"]) for line in told["data"]] == [(None, 1), ("a-support", 1)]


async def test_a_tenant_sees_its_own_usage_and_nothing_of_others(bench: Bench) -> None:
    await bench.chat(model="support")()
    await bench.chat("b", model="support")()
    for tenant in ("a", "b"):
        told = await usage(bench, tenant, group_by=DIMENSIONS)
        assert [line["adapter"] for line in told["data"]] == [f"{tenant}-support"]
        assert told["total"]["requests"] == 1
    assert (await usage(bench, "c"))["total"]["requests"] == 0


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("tenant=b", "tenant", "unknown_parameter"),
        ("group_by=tenant", "group_by", "invalid_value"),
        ("group_by=pool", "group_by", "invalid_value"),
        ("from=1", "from", "invalid_value"),
        ("from=2026-01-01&from=2026-01-02", "from", "invalid_value"),
        ("from=%ff", None, "invalid_value"),
        ("&".join(["x=1"] * 60), None, "invalid_value"),
        ("from=2026-01-03&to=2026-01-01", "from", "invalid_value"),
    ],
)
async def test_a_query_that_is_wrong_gets_openais_error(
    bench: Bench, query: str, param: str | None, code: str
) -> None:
    answer = await bench.get(f"/v1/usage?{query}", key=key_of("a"))()
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (param, code)


async def test_who_has_no_key_of_a_tenant_sees_nothing(bench: Bench) -> None:
    assert (await bench.get("/v1/usage")()).status == 401
    assert (await bench.get("/v1/usage", key="wrong")()).status == 401
    answer = await bench.get("/v1/usage", key=key_of("operator"))()
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert (await bench.post("/v1/usage", {})()).status == 405


async def test_one_query_of_a_tenant_is_answered_at_a_time(bench: Bench) -> None:
    first = bench.get("/v1/usage", key=key_of("a")).start()
    second = bench.get("/v1/usage", key=key_of("a")).start()
    others = bench.get("/v1/usage", key=key_of("b")).start()
    for client in (first, second, others):
        await client.done()
    assert [first.status, second.status, others.status] == [200, 429, 200]
    assert second.error["code"] == "usage_query_running"
    assert (await bench.get("/v1/usage", key=key_of("a"))()).status == 200


@pytest.fixture
async def hedging(tmp_path: Path) -> AsyncIterator[Bench]:
    fleet = small_fleet(replicas=2)
    pools = {name: replace(pool, hedge_after_s=0.02) for name, pool in fleet.pools.items()}
    async with bench_of(replace(fleet, pools=pools), tmp_path) as bench:
        yield bench


async def test_a_hedged_request_counts_once_and_bears_the_time_of_both(hedging: Bench) -> None:
    slow, quick = hedging.engines["shared-0"], hedging.engines["shared-1"]
    slow.behave, quick.behave = slow.hold, quick.hold
    client = hedging.chat(model="support").start()
    await eventually(lambda: slow.running == 1 and quick.running == 1)
    quick.release.set()
    await client.done()
    told = await usage(hedging)
    assert told["total"]["requests"] == 1
    assert told["total"]["engine_s"] > 0
    assert told["total"]["prompt_tokens"] == 7


# -- budgets -----------------------------------------------------------------------------------------------


def with_budget(tokens: int, soft: float = 0.8) -> Fleet:
    """The small fleet, where tenant a has a budget."""
    fleet = small_fleet()
    tenants = {**fleet.tenants, "a": replace(fleet.tenants["a"], budget=Budget(tokens, soft))}
    return replace(fleet, tenants=tenants)


async def ask(bench: Bench, tenant: str = "a") -> Client:
    """A request that is expected to need at most 1 token for its answer, and uses 7 and 3."""
    return await bench.chat(tenant, model="support", max_tokens=1)()


async def test_past_its_budget_a_tenant_gets_openais_insufficient_quota_and_others_are_served(
    tmp_path: Path,
) -> None:
    async with bench_of(with_budget(60), tmp_path) as bench:
        answers = [await ask(bench) for _ in range(8)]
        statuses = [answer.status for answer in answers]
        assert statuses == sorted(statuses) and statuses[0] == 200 and statuses[-1] == 429
        refused = answers[-1]
        assert (refused.error["code"], refused.error["type"]) == ("insufficient_quota",) * 2
        assert refused.headers["x-should-retry"] == "false"
        assert "x-tenantry-budget-remaining-tokens" in refused.headers
        assert (await ask(bench, "b")).status == 200
        told = await usage(bench, group_by="outcome")
        assert {line["outcome"]: line["requests"] for line in told["data"]} == {
            "completed": statuses.count(200), "rejected": statuses.count(429)
        }  # fmt: skip
        assert told["budget"]["used_tokens"] == 10 * statuses.count(200) <= 60
        assert (await usage(bench, "b"))["budget"] is None


async def test_a_budget_holds_across_a_restart(tmp_path: Path) -> None:
    async with bench_of(with_budget(60), tmp_path) as bench:
        while (await ask(bench)).status == 200:
            pass
    for name in ("shared-0", "alone-0"):
        os.unlink(tmp_path / f"{name}.sock")
    async with bench_of(with_budget(60), tmp_path) as bench:
        assert (await ask(bench)).status == 429
        assert (await ask(bench, "b")).status == 200


async def test_the_soft_limit_shows_in_answers_log_events_and_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench_of(with_budget(1000, soft=0.02), tmp_path) as bench:
        header = "x-tenantry-budget-remaining-tokens"
        assert header not in (await ask(bench)).headers
        assert header not in (await ask(bench)).headers
        told = await ask(bench)
        assert (told.status, told.headers[header]) == (200, "980")
        await eventually(lambda: "20 of the month's 1000 tokens" in caplog.text or "30 of" in caplog.text)
        page = (await bench.get("/metrics", key=key_of("operator"))()).body.decode()
        assert 'tenantry_budget_tokens{tenant="a"} 1000.0' in page
        assert 'tenantry_budget_used_tokens{tenant="a"} 30.0' in page


async def test_what_was_reserved_comes_back_however_a_request_ends(tmp_path: Path) -> None:
    async with bench_of(with_budget(10_000), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        for behave in (engine.break_down, engine.refuse_request, engine.die_mid_stream):
            engine.behave = behave
            await bench.chat(model="support", stream=behave == engine.die_mid_stream)()
        engine.behave = engine.hold
        client = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        status = bench.gateway.ledger.budgets.status("a", time.time())
        assert status is not None and status.used > 0, "what runs is reserved"
        client.leave()
        await client.done()
        told = await usage(bench)
        counted = told["total"]["prompt_tokens"] + told["total"]["completion_tokens"]
        assert told["budget"]["used_tokens"] == counted
