"""Has every request the cost of its time, and does a budget in money hold?"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.money import COST_UNITS, OwnPrices, Price, Prices
from fleet.types import Budget, Fleet
from tests.fakes import Client, eventually, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of
from tests.integration.test_usage import usage

PRICE = Price(2_000_000, 500_000, 10_000_000)  # 2, 0.5 and 10 for a million tokens: 7 and 3 cost 0.000044
HEADER = "x-tenantry-cost"


def priced(price: Price = PRICE, *, budget: Budget | None = None, own: OwnPrices | None = None) -> Fleet:
    """The small fleet with a price for its base model; tenant a may have a budget, and prices of its own."""
    fleet = small_fleet()
    tenants = {**fleet.tenants, "a": replace(fleet.tenants["a"], budget=budget, prices=own)}
    return replace(fleet, tenants=tenants, prices=Prices("EUR", {"base": price}))


async def ask(bench: Bench, tenant: str = "a", **fields: Any) -> Client:
    """A request that is expected to need at most 1 token for its answer, and uses 7 and 3."""
    return await bench.chat(tenant, model="support", max_tokens=1, **fields)()


def again(folder: Path) -> None:
    for name in ("shared-0", "alone-0"):
        os.unlink(folder / f"{name}.sock")


async def test_without_prices_nothing_is_said_of_costs(bench: Bench) -> None:
    assert HEADER not in (await ask(bench)).headers
    told = await usage(bench)
    assert (told["currency"], told["total"]["cost"], told["total"]["priced_requests"]) == (None, None, 0)


async def test_a_whole_answer_says_its_cost_and_the_ledger_has_the_same(tmp_path: Path) -> None:
    async with bench_of(priced(), tmp_path) as bench:
        answer = await ask(bench)
        assert (answer.status, answer.headers[HEADER]) == (200, "0.000044")
        stream = await ask(bench, stream=True)
        assert (stream.status, HEADER in stream.headers) == (200, False)
        told = await usage(bench)
        assert told["currency"] == "EUR"
        assert (told["total"]["cost"], told["total"]["priced_requests"]) == ("0.000088", 2)


async def test_a_tenant_pays_its_own_prices_and_others_the_fleets(tmp_path: Path) -> None:
    async with bench_of(priced(own=OwnPrices(5_000)), tmp_path) as bench:
        assert (await ask(bench)).headers[HEADER] == "0.000022"
        assert (await ask(bench, "b")).headers[HEADER] == "0.000044"
        assert (await usage(bench, "b"))["total"]["cost"] == "0.000044"


async def test_time_has_a_price_too_which_only_the_ledger_can_tell(tmp_path: Path) -> None:
    by_time = replace(PRICE, engine_hour=36_000_000_000)  # 10 for a second
    async with bench_of(priced(by_time), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        client = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        engine.release.set()
        await client.done()
        assert HEADER not in client.headers
        total = (await usage(bench))["total"]
        assert float(total["cost"]) == pytest.approx(0.000044 + 10 * total["engine_s"], abs=1e-4)


async def test_other_prices_change_nothing_that_has_ended(tmp_path: Path) -> None:
    async with bench_of(small_fleet(), tmp_path) as bench:
        await ask(bench)
    again(tmp_path)
    async with bench_of(priced(), tmp_path) as bench:
        await ask(bench)
        assert (await usage(bench))["total"]["cost"] == "0.000044", "what came before had no price"
    again(tmp_path)
    async with bench_of(priced(Price(9, 9, 9)), tmp_path) as bench:
        total = (await usage(bench))["total"]
        assert (total["cost"], total["requests"], total["priced_requests"]) == ("0.000044", 2, 1)


async def test_refused_and_failed_requests_cost_nothing(tmp_path: Path) -> None:
    async with bench_of(priced(), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.break_down
        assert (await ask(bench)).status == 502
        engine.behave = engine.refuse_request
        refused = await ask(bench)
        assert (refused.status, HEADER in refused.headers) == (400, False)
        total = (await usage(bench))["total"]
        assert (total["cost"], total["priced_requests"]) == ("0", 2)


async def test_a_budget_in_money_refuses_beyond_it_and_holds_across_a_restart(tmp_path: Path) -> None:
    fleet = priced(budget=Budget(monthly_cost=264_000))  # 6 requests
    async with bench_of(fleet, tmp_path) as bench:
        answers = [await ask(bench) for _ in range(9)]
        statuses = [answer.status for answer in answers]
        assert statuses == sorted(statuses) and statuses[0] == 200 and statuses[-1] == 429
        refused = answers[-1]
        assert (refused.error["code"], refused.headers["x-should-retry"]) == ("insufficient_quota", "false")
        assert "budget of 0.000264 EUR is used up" in refused.error["message"]
        assert "x-tenantry-budget-remaining-cost" in refused.headers
        assert "x-tenantry-budget-remaining-tokens" not in refused.headers
        assert (await ask(bench, "b")).status == 200
        served = statuses.count(200)
        budget = (await usage(bench))["budget"]
        assert (budget["monthly_cost"], budget["used_cost"]) == ("0.000264", f"{44 * served / 10**6:.6f}")
    again(tmp_path)
    async with bench_of(fleet, tmp_path) as bench:
        assert (await ask(bench)).status == 429
        assert (await usage(bench))["budget"]["used_cost"] == f"{44 * served / 10**6:.6f}"


async def test_the_soft_limit_of_a_budget_in_money_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench_of(priced(budget=Budget(None, 0.00001, COST_UNITS)), tmp_path) as bench:
        header = "x-tenantry-budget-remaining-cost"
        assert header not in (await ask(bench)).headers
        assert (await ask(bench)).headers[header] == "0.999956"
        await eventually(lambda: "of the month's 1 EUR are used" in caplog.text)
        page = (await bench.get("/metrics", key=key_of("operator"))()).body.decode()
        assert 'tenantry_budget_cost{tenant="a"} 1.0' in page
        assert 'tenantry_budget_used_cost{tenant="a"} 8.8e-05' in page


async def test_what_was_reserved_in_money_comes_back_however_a_request_ends(tmp_path: Path) -> None:
    async with bench_of(priced(budget=Budget(monthly_cost=COST_UNITS)), tmp_path) as bench:
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
        assert told["budget"]["used_cost"] == told["total"]["cost"]


async def test_a_request_pays_the_prices_at_its_arrival_whatever_is_applied_meanwhile(tmp_path: Path) -> None:
    async with bench_of(priced(), tmp_path) as bench:
        engine, current = bench.engines["shared-0"], bench.gateway.fleet
        engine.behave = engine.hold
        client = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        current.replace(priced(replace(PRICE, input=0)))
        engine.release.set()
        await client.done()
        assert client.headers[HEADER] == "0.000044"
        assert (await ask(bench)).headers[HEADER] == "0.00003"
        current.replace(small_fleet())
        assert HEADER not in (await ask(bench)).headers
        total = (await usage(bench))["total"]
        assert (total["requests"], total["priced_requests"]) == (3, 2)


async def test_a_budget_of_the_other_kind_holds_from_the_next_request_on(tmp_path: Path) -> None:
    async with bench_of(priced(budget=Budget(10**6)), tmp_path) as bench:
        for _ in range(3):
            assert (await ask(bench)).status == 200
        current = bench.gateway.fleet
        current.replace(priced(budget=Budget(monthly_cost=132_000)))
        assert (await ask(bench)).status == 429, "three requests have used it up"
        current.replace(priced(budget=Budget(10**6)))
        assert (await ask(bench)).status == 200
        assert (await usage(bench))["budget"]["used_tokens"] == 40
