"""Tenants in the console, in a real browser: admitted, looked at, changed, suspended, resumed, removed.

The gateway keeps its state on disk; its engines are fakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, expect

from fleet.types import Band, Budget, Isolation, Tenant
from routing.catalog.entries import KeyRole
from routing.http import connections
from tests.browser import Tab, tab_of
from tests.fakes import key_of
from tests.integration.office import Office, office_in
from tests.integration.test_console import until

connections.install(connections.Bounds())  # as the service does
OPERATOR = key_of("operator")
expect.set_options(timeout=10_000)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with office_in(tmp_path) as office:
        yield office


@pytest.fixture
def tab(browser: Browser, office: Office) -> Iterator[Tab]:
    with tab_of(browser, office.site.url) as tab:
        yield tab


def tenant_of(office: Office, name: str) -> Tenant:
    """The tenant as it counts now."""
    return office.site.bench.gateway.fleet.now.tenants[name]


def patch(office: Office, name: str, **body: Any) -> None:
    """Change a tenant as another operator does."""
    where = f"{office.site.url}/admin/v1/tenants/{name}"
    answer = httpx.patch(where, json=body, headers={"authorization": f"Bearer {OPERATOR}"})
    assert answer.status_code == 200, answer.text


def yes(tab: Tab, verb: str) -> Locator:
    """Answer the question that is asked; returns the dialog."""
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_role("button", name=verb, exact=True).click()
    return dialog


def check(tab: Tab, verb: str = "Check and change") -> Locator:
    """Ask the form what would change; returns the dialog that tells."""
    tab.page.get_by_role("button", name=verb).click()
    return tab.page.get_by_role("dialog")


def figure(tab: Tab, name: str) -> Locator:
    """What stands under a name among the figures of now."""
    return tab.page.locator(".totals > div", has=tab.page.get_by_text(name, exact=True)).locator("dd")


def setting(tab: Tab, path: str) -> Locator:
    """The row of one setting."""
    rows = tab.page.get_by_role("group", name="Settings, table").get_by_role("row")
    return rows.filter(has=tab.page.get_by_role("rowheader", name=path, exact=True))


# -- admitting ---------------------------------------------------------------------------------------------


def test_a_tenant_is_admitted_like_another_and_its_first_key_shown_once(tab: Tab, office: Office) -> None:
    tab.enter(OPERATOR, "#/tenants")
    tab.page.get_by_role("link", name="Admit a tenant").click()
    tab.page.get_by_label("Name", exact=True).first.fill("newcomer")
    tab.page.get_by_label("Like").select_option("a")
    tab.page.get_by_label("Requests in any minute").fill("120")
    dialog = check(tab, "Check and admit")
    expect(dialog.get_by_role("listitem").filter(has_text="requests_per_minute none -> 120")).to_be_visible()
    expect(dialog).to_contain_text("monthly_tokens none -> 100000")
    tab.shot("console-tenants-admit-question")
    assert tab.violations() == []
    assert "newcomer" not in office.site.bench.gateway.fleet.now.tenants, "nothing is done without a yes"
    yes(tab, "Admit it")
    shown = tab.page.get_by_role("dialog", name="The new key")
    key = shown.get_by_label("Key").input_value()
    shown.get_by_role("button", name="Done").click()
    expect(tab.page.get_by_role("heading", name="newcomer", level=1)).to_be_visible()
    expect(tab.page.get_by_text("newcomer is admitted.")).to_be_visible()
    expect(tab.page.locator("main")).to_contain_text("admitted at run time")
    assert key not in tab.page.content()
    assert office.get("/v1/models", key).status_code == 200
    new = tenant_of(office, "newcomer")
    assert (new.caps.requests_per_minute, new.budget) == (120, Budget(100_000))
    expect(setting(tab, "caps.requests_per_minute")).to_contain_text("run time")
    assert tab.violations() == []


def test_a_tenant_is_admitted_with_all_that_the_form_has(tab: Tab, office: Office) -> None:
    tab.enter(OPERATOR, "#/admit")
    page = tab.page
    page.locator("#name").fill("newcomer")
    page.get_by_label("Make its first key").uncheck()
    page.get_by_role("textbox", name="Name").last.fill("chat")
    page.get_by_label("Model of chat").fill("a-support")
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("textbox", name="Name").last.fill("plain")
    page.get_by_label("Model of plain").fill("base")
    page.get_by_label("Fallback of chat").select_option("plain")
    page.get_by_label("Default model").select_option("chat")
    page.get_by_label("Band").select_option("high")
    page.get_by_label("Weight").fill("2.5")
    page.get_by_label("Sequences at once", exact=True).fill("7")
    page.get_by_label("Longest wait, in seconds").fill("12.5")
    page.get_by_label("Kind").select_option("in tokens")
    page.get_by_label("Tokens", exact=True).fill("5000000")
    page.get_by_label("Warnings from, in percent").fill("57")
    page.get_by_label("Isolation").select_option("shared")
    page.get_by_label("shared", exact=True).check()
    page.get_by_label("Adapter sources").fill("s3://bucket/of-its-own\nhf://newcomer\n")
    check(tab, "Check and admit")
    yes(tab, "Admit it")
    expect(page.get_by_role("heading", name="newcomer", level=1)).to_be_visible()
    new = tenant_of(office, "newcomer")
    assert (new.models, new.fallbacks) == ({"chat": "a-support", "plain": "base"}, {"chat": "plain"})
    assert (new.default_model, new.band, new.weight) == ("chat", Band.HIGH, 2.5)
    assert (new.caps.max_concurrency, new.caps.max_queued, new.caps.queue_timeout_s) == (7, 256, 12.5)
    assert (new.budget, new.isolation) == (Budget(5_000_000, soft=0.57), Isolation.SHARED)
    assert new.adapter_sources == ("s3://bucket/of-its-own", "hf://newcomer")
    expect(setting(tab, "models.chat")).to_contain_text("a-support, else plain")
    assert office.site.bench.gateway.directory.keys() == []


def test_what_is_refused_is_told_as_the_gateway_says_it_at_its_field(tab: Tab) -> None:
    tab.expected = ("400", "409")
    tab.enter(OPERATOR, "#/admit")
    name, alert = tab.page.locator("#name"), tab.page.get_by_role("alert")
    name.fill("b")
    tab.page.get_by_label("Like").select_option("a")
    check(tab, "Check and admit")
    expect(alert).to_have_text("There is a tenant `b` already.")
    expect(name).to_be_focused()
    expect(name).to_have_attribute("aria-invalid", "true")
    name.fill("newcomer")
    tab.page.get_by_role("textbox", name="Name").last.fill("chat")
    tab.page.get_by_label("Model of chat").fill("nothing")
    check(tab, "Check and admit")
    expect(alert).to_contain_text("nothing")
    expect(tab.page.get_by_label("Model of chat")).to_be_focused()
    tab.page.get_by_label("Model of chat").fill("base")
    tab.page.get_by_label("Weight").fill("0")
    check(tab, "Check and admit")
    expect(alert).to_contain_text("weight")
    expect(tab.page.get_by_label("Weight")).to_be_focused()
    tab.shot("console-tenants-refused")
    assert tab.violations() == []
    tab.page.get_by_role("button", name="Add a model").click()
    tab.page.get_by_role("textbox", name="Name").last.fill("chat")
    expect(alert.filter(has_text="The name chat stands for two models.")).to_be_visible()
    expect(tab.page.get_by_role("button", name="Check and admit")).to_be_disabled()


# -- changing ----------------------------------------------------------------------------------------------


def test_a_changed_cap_shows_its_effect_beside_it(tab: Tab, office: Office) -> None:
    engine = office.engines["shared-0"]
    engine.behave = engine.hold

    async def ask() -> list[Any]:
        return [office.site.bench.chat("a", model="support").start() for _ in range(3)]

    clients = office.site.call(ask())
    tab.enter(OPERATOR, "#/tenants/a/change")
    expect(figure(tab, "Running")).to_have_text("3 of 64 sequences")
    tab.page.get_by_label("Sequences at once", exact=True).fill("3")
    expect(check(tab)).to_contain_text("max_concurrency 64 -> 3")
    yes(tab, "Change it")
    expect(tab.page.get_by_text("a is changed: max_concurrency 64 -> 3.")).to_be_visible()
    expect(figure(tab, "Running")).to_have_text("3 of 3 sequences")

    async def more() -> int:
        return int((await office.site.bench.chat("a", model="support")()).status)

    assert office.site.call(more()) == 429
    expect(figure(tab, "Refused by its caps, last minute")).to_have_text("1")
    tab.shot("console-tenants-effect")
    assert tab.violations() == []

    async def release() -> None:
        engine.release.set()
        for client in clients:
            await client.done()

    office.site.call(release())
    expect(figure(tab, "Running")).to_have_text("0 of 3 sequences")
    check_nothing = tab.page.get_by_role("button", name="Check and change")
    check_nothing.click()
    expect(tab.page.get_by_text("Nothing would change.")).to_be_visible()


def test_aliases_fallbacks_band_weight_and_budget_are_changed_and_taken_away(
    tab: Tab, office: Office
) -> None:
    tab.enter(OPERATOR, "#/tenants/a/change")
    page = tab.page
    page.get_by_role("button", name="Remove sales").click()
    page.get_by_label("Fallback of support").select_option("plain")
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("textbox", name="Name").last.fill("draft")
    page.get_by_label("Model of draft").fill("base")
    page.get_by_label("Band").select_option("low")
    page.get_by_label("Weight").fill("3")
    page.get_by_label("Tokens in any minute").fill("9000")
    page.get_by_label("Kind").select_option("none")
    dialog = check(tab)
    for words in (
        "alias sales a-sales -> none",
        "priority standard -> low",
        "tokens_per_minute none -> 9000",
    ):
        expect(dialog).to_contain_text(words)
    yes(tab, "Change it")
    expect(page.get_by_text("a is changed:")).to_be_visible()
    a = tenant_of(office, "a")
    assert a.models == {"support": "a-support", "plain": "base", "draft": "base"}
    assert (dict(a.fallbacks), a.band, a.weight) == ({"support": "plain"}, Band.LOW, 3)
    assert (a.budget, a.caps.tokens_per_minute) == (None, 9000)

    page.get_by_label("Tokens in any minute").fill("")
    page.get_by_label("Fallback of support").select_option("")
    page.get_by_label("Default model").select_option("")
    check(tab)
    yes(tab, "Change it")
    until(lambda: tenant_of(office, "a").caps.tokens_per_minute is None, "the change")
    a = tenant_of(office, "a")
    assert (a.caps.tokens_per_minute, dict(a.fallbacks), a.default_model) == (None, {}, None)

    page.get_by_role("link", name="Back to it").click()
    row = setting(tab, "weight")
    tab.shot("console-tenants-settings")
    expect(row).to_contain_text(re.compile(r"run time 2\d{3}-.* by key "))
    expect(setting(tab, "models.plain")).to_contain_text("fleet.yaml")
    expect(setting(tab, "caps.max_queued")).to_contain_text("default")
    row.get_by_role("button", name="Take back").click()
    yes(tab, "Take it back")
    expect(row).to_contain_text("default")
    assert tenant_of(office, "a").weight == 1
    events = page.get_by_role("region", name="Events").get_by_role("row")
    expect(events.nth(1)).to_contain_text("weight 3 -> 1")
    expect(events.nth(3)).to_contain_text("priority standard -> low")


def test_two_operators_at_once_do_not_undo_each_others_changes(tab: Tab, office: Office) -> None:
    tab.expected = ("409",)
    tab.enter(OPERATOR, "#/tenants/a/change")
    tab.page.get_by_label("Weight").fill("3")
    tab.page.get_by_role("button", name="Remove sales").click()
    patch(office, "a", caps={"max_queued": 5}, models={"added": "base"})
    check(tab)
    alert = tab.page.get_by_role("alert")
    expect(alert).to_contain_text(re.compile("Tenant `a` was changed at .* by key .* look at it again"))
    tab.shot("console-tenants-conflict")
    assert tab.violations() == []
    tab.page.get_by_role("button", name="Take that over, and keep what I typed").click()
    expect(alert).to_have_count(0)
    expect(tab.page.get_by_label("Weight")).to_have_value("3")
    expect(tab.page.get_by_label("Requests that wait")).to_have_value("5")
    expect(tab.page.get_by_label("Model of added")).to_have_value("base")
    expect(tab.page.get_by_label("Model of sales")).to_have_count(0)
    expect(check(tab).get_by_role("listitem")).to_have_text(
        ["alias sales a-sales -> none", "weight 1 -> 3"], use_inner_text=True
    )
    patch(office, "a", caps={"max_queued": 6})  # between the check and the yes
    dialog = yes(tab, "Change it")
    expect(dialog.get_by_role("alert")).to_contain_text("look at it again")
    assert tenant_of(office, "a").weight == 1
    dialog.get_by_role("button", name="Cancel").click()
    check(tab)
    tab.page.get_by_role("button", name="Take that over, and keep what I typed").click()
    expect(tab.page.get_by_label("Requests that wait")).to_have_value("6")
    check(tab)
    yes(tab, "Change it")
    until(lambda: tenant_of(office, "a").weight == 3, "the change")
    a = tenant_of(office, "a")
    assert (a.caps.max_queued, a.models) == (6, {"support": "a-support", "plain": "base", "added": "base"})


# -- suspending and removing -------------------------------------------------------------------------------


def test_a_tenant_is_suspended_and_resumed(tab: Tab, office: Office) -> None:
    tab.enter(OPERATOR, "#/tenants/a")
    tab.page.get_by_role("button", name="Suspend").click()
    yes(tab, "Suspend it")
    expect(tab.page.locator("h1 + .state")).to_have_text("suspended")
    assert office.get("/v1/models", key_of("a")).status_code == 403
    assert tab.violations() == []
    tab.go("#/tenants")
    tab.page.get_by_label("Filter").fill("suspended")
    expect(tab.page.locator("main tbody tr")).to_have_text([re.compile("^asuspended")])
    tab.page.get_by_role("link", name="a", exact=True).click()
    tab.page.get_by_role("button", name="Resume").click()
    yes(tab, "Resume it")
    expect(tab.page.locator("h1 + .state")).to_have_text("active")
    assert office.get("/v1/models", key_of("a")).status_code == 200
    events = tab.page.get_by_role("region", name="Events").get_by_role("row")
    expect(events.nth(1)).to_contain_text("resumed")
    expect(events.nth(2)).to_contain_text("suspended")


def test_a_tenant_is_removed_once_its_name_is_typed_with_the_keyboard_alone(tab: Tab, office: Office) -> None:
    tab.enter(OPERATOR, "#/tenants/a")
    tab.page.get_by_role("button", name="Remove", exact=True).focus()
    tab.page.keyboard.press("Enter")
    dialog = tab.page.get_by_role("dialog", name="Remove a?")
    expect(dialog.get_by_label("Type a to go on")).to_be_focused()
    remove = dialog.get_by_role("button", name="Remove it")
    tab.page.keyboard.type("b")
    tab.page.keyboard.press("Enter")
    expect(remove).to_be_disabled()
    tab.shot("console-tenants-remove-question")
    assert tab.violations() == []
    assert "a" in office.site.bench.gateway.fleet.now.tenants
    tab.page.keyboard.press("Backspace")
    tab.page.keyboard.type("a")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_text("a is removed.", exact=True)).to_be_visible()
    expect(tab.page.locator("h1 + .state")).to_have_text("removed")
    expect(tab.page.get_by_role("link", name="Change", exact=True)).to_have_count(0)
    expect(tab.page.get_by_role("alert")).to_have_count(0)
    expect(tab.page.get_by_role("region", name="Events").get_by_role("row").nth(1)).to_contain_text("removed")
    assert "a" not in office.site.bench.gateway.fleet.now.tenants
    assert office.get("/v1/models", key_of("a")).status_code == 401
    tab.go("#/tenants")
    expect(tab.page.locator("main tbody tr")).to_have_count(2)
    tab.go("#/events")
    expect(tab.page.get_by_role("link", name="a", exact=True)).to_have_attribute("href", "#/tenants/a")
    tab.go("#/tenants/a/change")
    expect(tab.page.locator("main")).to_contain_text("There is no tenant a")


def test_a_tenant_that_somebody_else_changed_is_not_removed_unseen(tab: Tab, office: Office) -> None:
    tab.expected = ("409",)
    tab.enter(OPERATOR, "#/tenants/a")
    tab.page.get_by_role("button", name="Remove", exact=True).click()
    patch(office, "a", weight=4)
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_label("Type a to go on").fill("a")
    yes(tab, "Remove it")
    expect(dialog.get_by_role("alert")).to_contain_text("look at it again")
    assert "a" in office.site.bench.gateway.fleet.now.tenants


# -- aliases of its own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["operator", "tenant"])
def test_a_tenants_own_aliases_are_set_changed_and_removed(tab: Tab, office: Office, who: str) -> None:
    tab.expected = ("400", "404", "409")
    office.site.call(office.house.ready(5))
    key = OPERATOR if who == "operator" else office.key(KeyRole.ADAPTERS, "a")
    tab.enter(key, "#/tenants/a" if who == "operator" else "")
    section = tab.page.get_by_role("region", name="Its own aliases")
    section.get_by_role("button", name="New alias").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_label("Alias").fill("latest")
    dialog.get_by_label("Stands for").fill("nothing")
    dialog.get_by_role("button", name="Set it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("nothing")
    dialog.get_by_label("Stands for").fill("billing")
    dialog.get_by_role("button", name="Set it").click()
    row = section.get_by_role("row").filter(has_text="latest")
    expect(row).to_contain_text("billing")
    row.get_by_role("button", name="Change").click()
    dialog.get_by_label("Stands for").fill("support")
    dialog.get_by_role("button", name="Set it").click()
    expect(row).to_contain_text("support")
    row.get_by_role("button", name="Remove").click()
    yes(tab, "Remove it")
    expect(row).to_have_count(0)
    assert list(office.house.manager.aliases.list("a")) == []


# -- for everybody -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_tenants_are_accessible_and_fit(
    browser: Browser, office: Office, scheme: Any, width: int
) -> None:
    patch(office, "a", caps={"requests_per_minute": 60}, weight=2, budget={"monthly_tokens": 2_000_000})
    viewport = {"width": width, "height": 800}
    with tab_of(browser, office.site.url, color_scheme=scheme, viewport=viewport) as tab:
        tab.enter(OPERATOR)
        for where in ("tenants", "tenants/a", "tenants/a/change", "admit", "admit/a"):
            tab.go(f"#/{where}")
            tab.page.get_by_role("heading", level=1).wait_for()
            tab.page.wait_for_timeout(300)  # what the page asks for itself
            tab.shot(f"console-tenants-{scheme}-{width}-{where.replace('/', '-')}")
            assert tab.violations() == [], where
            assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, where
