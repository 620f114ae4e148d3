"""Which models have series of their own, and that nothing is lost or counted twice as they come and go."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from fleet.types import MetricsSettings, Slo
from routing.observing.metrics import GatewayMetrics
from routing.observing.metrics.models import LINGER_S, REVIEW_S, WORTH_A_PLACE
from routing.types import Target
from tests.fakes import FakeClock
from tests.unit.routing.observing.metrics.scrapes import (
    Scraper,
    ended,
    openmetrics_families,
    samples,
    series_of,
)
from tests.unit.routing.scheduling.busy import busy

ADAPTERS = 2000
MAX_MODELS = 100
IDLE_S = 1800.0
REQUESTS = "tenantry_requests_total"


class Page:
    """A metrics page in the test's hand."""

    def __init__(
        self, serves: Callable[[Target], bool] = lambda _: True, max_models: int = MAX_MODELS
    ) -> None:
        self.clock = FakeClock()
        self.metrics = GatewayMetrics(
            busy().dispatcher,
            clock=self.clock,
            slos={"shared": Slo(ttft_s=1.0), "alone": Slo()},
            serves=serves,
            settings=MetricsSettings(max_models=max_models, idle_after_s=IDLE_S),
        )

    def count(self, number: int, times: int = 1, **changes: Any) -> None:
        for _ in range(times):
            self.metrics.settled([ended(number, **changes)])

    async def read(self, accept: str | None = None) -> bytes:
        return (await self.metrics.read(accept))[1]

    async def models(self) -> dict[str, float]:
        """Requests by model, as the page says now."""
        found = series_of(await self.read(), REQUESTS)
        counts: dict[str, float] = {}
        for labels, value in found.items():
            counts[dict(labels)["model"]] = counts.get(dict(labels)["model"], 0) + value
        return counts

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with a scrape in each minute."""
        for _ in range(round(seconds / REVIEW_S)):
            self.clock.now += REVIEW_S
            await self.read()


async def test_2000_adapters_make_a_page_of_bounded_size() -> None:
    page = Page()
    for number in range(ADAPTERS):
        page.count(number)
    text = await page.read()
    found = samples(text)[REQUESTS]
    assert len(found) == MAX_MODELS + 1
    assert sum(found.values()) == ADAPTERS
    assert len(text) < 3_000_000
    assert text.count(b"\n") < (MAX_MODELS + 1) * 85 + 200
    assert samples(text)["tenantry_metrics_models"] == {
        (("series", "own"),): MAX_MODELS,
        (("series", "other"),): ADAPTERS - MAX_MODELS,
    }


@pytest.mark.parametrize("interval_s", [15.0, 60.0, 290.0])
async def test_a_scraper_adds_up_every_request_once_whatever_comes_and_goes(interval_s: float) -> None:
    retired: set[str] = set()
    page = Page(serves=lambda target: target.model not in retired)
    requests, tokens = Scraper(REQUESTS), Scraper("tenantry_completion_tokens_total")
    chance, sent = random.Random(1), 0
    for step in range(120):
        # The busy ones move on through the fleet, every tenth step nobody calls, some are retired.
        center = step * ADAPTERS // 120
        for _ in range(0 if step % 10 == 9 else 200):
            page.count(min(ADAPTERS - 1, max(0, round(chance.gauss(center, 60)))))
            sent += 1
        retired.add(f"adapter-{chance.randrange(ADAPTERS):04}")
        page.clock.now += interval_s
        text = await page.read()
        assert text.count(f"\n{REQUESTS}{{".encode()) <= MAX_MODELS + 1
        requests.see(text)
        tokens.see(text)
    assert requests.total == sent
    assert tokens.total == sent * 41
    named = [dict(labels)["model"] for labels in requests.increases]
    assert "other" in named and len(set(named)) > MAX_MODELS, "places were given to others"


async def test_no_series_ever_goes_back_while_it_is_on_the_page() -> None:
    page = Page(max_models=5)
    last: dict[Any, float] = {}
    chance = random.Random(2)
    for _ in range(200):
        for _ in range(20):
            page.count(min(40, int(chance.expovariate(0.2))))
        page.clock.now += 30.0
        now = samples(await page.read())
        flat = {
            (name, labels): v for name, each in now.items() if "request" in name for labels, v in each.items()
        }
        for key in flat.keys() & last.keys():
            assert flat[key] >= last[key], key
        last = flat


async def test_a_hot_model_gets_a_place_from_a_quiet_one() -> None:
    page = Page(max_models=2)
    await page.read()
    page.count(0, 50)
    page.count(1, 1)
    page.count(2, 100)
    assert await page.models() == {"adapter-0000": 50, "adapter-0001": 1, "other": 100}
    await page.pass_time(REVIEW_S)
    page.count(1, 1)
    assert await page.models() == {"adapter-0000": 50, "adapter-0001": 1, "other": 101}, (
        "closed: counted in other"
    )
    for _ in range(round(LINGER_S / REVIEW_S)):
        page.count(2, 100)
        await page.pass_time(REVIEW_S)
    found = await page.models()
    assert "adapter-0001" not in found
    page.count(2, 7)
    assert (await page.models())["adapter-0002"] == 7, "from now on, in its own series"


async def test_places_are_not_traded_for_a_few_requests() -> None:
    page = Page(max_models=1)
    await page.read()
    page.count(0)
    page.count(1, WORTH_A_PLACE - 1)
    await page.pass_time(REVIEW_S + LINGER_S + REVIEW_S)
    assert "adapter-0001" not in await page.models()


async def test_a_model_that_nobody_uses_vanishes_after_all_have_seen_its_last_value() -> None:
    page = Page()
    page.count(0, 3)
    await page.pass_time(IDLE_S)
    assert await page.models() == {"adapter-0000": 3}, "it stays for the scrapers"
    await page.pass_time(LINGER_S)
    assert await page.models() == {}


async def test_a_retired_version_vanishes_and_the_new_one_stays() -> None:
    retired: set[int | None] = set()
    page = Page(serves=lambda target: target.version not in retired)
    page.count(0, 3, version=1)
    page.count(0, 2, version=2)
    await page.pass_time(REVIEW_S)
    retired.add(1)
    await page.pass_time(2 * REVIEW_S + LINGER_S)
    found = series_of(await page.read(), REQUESTS)
    assert [dict(labels)["version"] for labels in found] == ["2"]


async def test_one_that_is_used_again_before_it_vanishes_goes_on_where_it_was() -> None:
    page = Page()
    page.count(0, 3)
    await page.pass_time(IDLE_S + REVIEW_S)
    page.count(0, 1)
    await page.pass_time(LINGER_S + REVIEW_S)
    assert await page.models() == {"adapter-0000": 4}


async def test_each_pool_has_an_other_of_its_own() -> None:
    page = Page(max_models=1)
    page.count(0)
    page.count(1)
    page.count(2, pool="alone")
    found = series_of(await page.read(), REQUESTS)
    assert sorted((dict(labels)["pool"], dict(labels)["model"]) for labels in found) == [
        ("alone", "other"),
        ("shared", "adapter-0000"),
        ("shared", "other"),
    ]


async def test_the_whole_page_is_valid_openmetrics() -> None:
    page = Page()
    for number in range(0, ADAPTERS, 10):
        page.count(number)
    families = openmetrics_families(await page.read("application/openmetrics-text"))
    assert families["tenantry_requests"].type == "counter"
    assert families["process_cpu_seconds"].type == "counter"
