"""The console's page of plans, in a real browser: what was published, and what was seen of it since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser import Tab, tab_of
from tests.fakes import key_of
from tests.integration.office import office_in
from tests.integration.test_console import Site
from tests.unit.routing.admin.plans import LOOK, MODEL, PLAN, POOL, SPREAD

OPERATOR = key_of("operator")
expect.set_options(timeout=10_000)
MISSED = MODEL | {
    "model": "whole",
    "pool": "mesh",
    "why": "asleep for 49 % of its requests, a switch takes 0.94 s, objective 1 s: takes turns",
    "missed": "97.0 % of its first tokens within 1 s, p99 1.3 s",
    "in_the_second_plan": {"first_token_p50_s": SPREAD, "first_token_p99_s": [3.0, 2.0, 4.0]},
}
TURNS = POOL | {
    "pool": "mesh",
    "strategy": "model-mesh",
    "awake": 2,
    "switching": SPREAD,
    "switches_per_h": SPREAD,
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with office_in(tmp_path) as office:
        yield office.site


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    with tab_of(browser, site.url) as tab:
        yield tab


def put(site: Site, path: str, body: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {OPERATOR}"}
    answer = httpx.put(f"{site.url}/admin/v1/plan{path}", json=body, headers=headers)
    assert answer.status_code == 204, answer.text


def test_without_a_plan_the_command_that_makes_one_is_named(tab: Tab) -> None:
    tab.enter(OPERATOR, "#/plan")
    expect(tab.page.locator(".empty")).to_contain_text("No plan was published yet. `tenantry plan --publish`")
    assert tab.violations() == []


def test_a_plan_is_shown_with_its_reasons_its_drawings_and_what_misses(tab: Tab, site: Site) -> None:
    two = {"models": [MISSED, MODEL], "pools": [POOL, TURNS], "meets_objectives": False}
    put(site, "", PLAN | two)
    tab.enter(OPERATOR, "#/plan")
    main = tab.page.locator("main")
    expect(main).to_contain_text("2 devices instead of the 4 in use")
    expect(main).to_contain_text("it does not meet all objectives")
    expect(main).to_contain_text("`tenantry plan --watch` does")
    expect(tab.page.locator('tr[data-model="whole"]')).to_contain_text("misses: 97.0 %")
    expect(tab.page.locator('tr[data-model="support"]')).to_contain_text("same base as 2 others")
    expect(tab.page.get_by_role("group", name="Ways to serve these models, table")).to_contain_text(
        "one fleet a model5"
    )
    expect(tab.page.get_by_role("img", name="Busy, hour by hour: base at most 40 %")).to_be_visible()
    expect(tab.page.get_by_role("img", name="base: of 80 GiB, base 18 GiB")).to_be_visible()
    expect(tab.page.get_by_role("img", name="whole: simulated p50 1.00 s")).to_be_visible()
    expect(main).to_contain_text("faults are not simulated")
    assert tab.violations() == []
    tab.shot("console-plan")


def test_what_was_measured_since_stands_beside_it_with_the_advice(tab: Tab, site: Site) -> None:
    put(site, "", PLAN)
    differs = ["`support`: 120 requests a day, planned 40"]
    put(site, "/look", LOOK | {"wish": "stay", "differs": differs})
    tab.enter(OPERATOR, "#/plan")
    since = tab.page.get_by_role("region", name="Since then")
    expect(since.locator(".state")).to_have_text("consolidate")
    expect(since).to_contain_text("2 devices would do, 4 are in use.")
    expect(since).to_contain_text("It will be stay if the next look finds the same.")
    expect(since).to_contain_text(differs[0])
    expect(tab.page.locator('tr[data-model="support"]')).to_contain_text("1.10 s")
    expect(tab.page.get_by_role("img", name="measured p50 400 ms, p99 1.10 s")).to_be_visible()
    assert tab.violations() == []
    tab.go("#/events")
    expect(tab.page.locator("main")).to_contain_text("consolidate: 2 devices would do, 4 are in use")


def test_a_tenants_key_has_no_such_page(tab: Tab, site: Site) -> None:
    put(site, "", PLAN)
    headers = {"authorization": f"Bearer {OPERATOR}"}
    made = httpx.post(f"{site.url}/admin/v1/keys", json={"role": "adapters", "tenant": "a"}, headers=headers)
    tab.enter(made.json()["key"], "#/plan")
    expect(tab.page.get_by_role("heading", name="There is no such page.")).to_be_visible()
    expect(tab.page.get_by_role("link", name="Plan")).to_have_count(0)
