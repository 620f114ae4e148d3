"""A day's work in the console, in a real browser: the playground, keys, adapters, usage, a tenant's login.

The gateway keeps its state on disk; its engines are fakes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from engines.residency import TrialReport
from routing.catalog.entries import KeyRole
from routing.http import connections
from tests.browser import Tab, tab_of
from tests.fakes import FakeEngine, key_of
from tests.integration.office import Office, office_in
from tests.integration.test_console import until

connections.install(connections.Bounds())  # as the service does
OPERATOR = key_of("operator")
expect.set_options(timeout=10_000)  # checking an adapter takes a while on a busy machine


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with office_in(tmp_path) as office:
        yield office


@pytest.fixture
def tab(browser: Browser, office: Office) -> Iterator[Tab]:
    with tab_of(browser, office.site.url) as tab:
        yield tab


def side(tab: Tab, name: str) -> Locator:
    return tab.page.get_by_role("region", name=f"{name} answer")


def figure(where: Locator, name: str) -> str:
    """What stands under a name in a list of figures."""
    return where.locator("div", has=where.page.get_by_text(name, exact=True)).locator("dd").inner_text()


# -- the playground ----------------------------------------------------------------------------------------


def enter_playground(tab: Tab, office: Office, *models: str) -> None:
    tab.enter(OPERATOR, "#/playground/" + "/".join(models))
    expect(tab.page.get_by_text("An operator's key calls no models")).to_be_visible()
    tab.page.get_by_label("Key of role inference").fill(key_of("a"))
    tab.page.get_by_role("button", name="Use it").click()


def run(tab: Tab, prompt: str = "who?") -> None:
    tab.page.get_by_label("Prompt", exact=True).fill(prompt)
    tab.page.get_by_role("button", name="Run").click()


def test_two_models_answer_side_by_side_with_their_figures(tab: Tab, office: Office) -> None:
    enter_playground(tab, office, "support", "sales@1")
    tab.page.get_by_label("System prompt").fill("Be brief.")
    tab.page.get_by_label("Temperature").fill("0.5")
    tab.page.get_by_label("Most tokens").fill("12")
    run(tab, "<b>who?</b>")
    for name, text, by in (("Left", "I am a-support", "a-support"), ("Right", "I am a-sales", "a-sales")):
        expect(side(tab, name).get_by_text("Done")).to_contain_text(f"{by}, version 1 on shared-0")
        expect(side(tab, name).get_by_role("group", name="Answer")).to_contain_text(text)
        assert (figure(side(tab, name), "Prompt tokens"), figure(side(tab, name), "Completion tokens")) == (
            "7",
            "3",
        )
        for figures in ("First token", "Total", "In the queue"):
            assert re.fullmatch(r"[\d.]+ (ms|s)", figure(side(tab, name), figures)), figures
    seen = office.engines["shared-0"].seen
    assert len(seen) == 2
    assert all((ask["temperature"], ask["max_tokens"], ask["stream"]) == (0.5, 12, True) for ask in seen)
    assert seen[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<b>who?</b>"},
    ]
    assert tab.violations() == []


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_ends_the_requests_in_the_engine(tab: Tab, office: Office, how: str) -> None:
    tab.expected = ("ERR_ABORTED", "net::")
    engine = office.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    enter_playground(tab, office, "support", "sales")
    run(tab)
    for name in ("Left", "Right"):
        expect(side(tab, name).get_by_role("group", name="Answer")).to_contain_text("I")
    if how == "button":
        tab.page.get_by_role("button", name="Stop").click()
    else:
        tab.page.get_by_label("Prompt", exact=True).press("Escape")
    for name in ("Left", "Right"):
        expect(side(tab, name).get_by_text("Stopped")).to_be_visible()
    until(lambda: engine.aborted == 2 and engine.running == 0, "the end of both in the engine")
    until(lambda: office.site.bench.at_rest, "rest")
    expect(tab.page.get_by_role("button", name="Run")).to_be_enabled()


def test_leaving_the_page_ends_what_runs(tab: Tab, office: Office) -> None:
    tab.expected = ("ERR_ABORTED", "net::")
    engine = office.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    enter_playground(tab, office, "support")
    run(tab)
    expect(side(tab, "Left").get_by_role("group", name="Answer")).to_contain_text("I")
    tab.go("#/adapters")
    until(lambda: engine.aborted == 1 and engine.running == 0, "the end in the engine")


@pytest.mark.parametrize(
    ("behave", "model", "said"),
    [
        (FakeEngine.answer, "nothing", "404 model_not_found: The model `nothing` does not exist."),
        (FakeEngine.refuse_request, "support", "400 invalid_request: max_tokens is too large"),
        (FakeEngine.report_death_mid_stream, "support", "engine"),
        (FakeEngine.die_mid_stream, "support", "engine"),
    ],
)
def test_an_error_is_shown_with_its_code(
    tab: Tab, office: Office, behave: Callable[..., Any], model: str, said: str
) -> None:
    tab.expected = ("400", "404", "502", "net::")
    engine = office.engines["shared-0"]
    engine.behave = lambda body, send: behave(engine, body, send)
    enter_playground(tab, office, model)
    run(tab)
    expect(side(tab, "Left").get_by_role("alert")).to_contain_text(said)
    expect(tab.page.get_by_role("button", name="Run")).to_be_enabled()


def test_a_key_that_calls_no_models_is_told_so(tab: Tab, office: Office) -> None:
    tab.expected = ("401",)
    tab.enter(OPERATOR, "#/playground")
    for wrong in (OPERATOR, "made-up", office.key(KeyRole.ADAPTERS, "a")):
        tab.page.get_by_label("Key of role inference").fill(wrong)
        tab.page.get_by_role("button", name="Use it").click()
        expect(tab.page.get_by_role("alert")).to_contain_text("This key calls no models")


def test_an_operator_makes_a_key_for_an_hour_and_revokes_it(tab: Tab, office: Office) -> None:
    tab.enter(OPERATOR, "#/playground/support")
    tab.page.get_by_label("Or make one for an hour").select_option("b")
    tab.page.get_by_role("button", name="Make a key for an hour").click()
    run(tab)
    expect(side(tab, "Left").get_by_text("Done")).to_contain_text("b-support")
    (made,) = office.site.bench.gateway.directory.keys()
    assert (made.role, made.tenant, made.note) == (KeyRole.INFERENCE, "b", "playground")
    assert made.expires_s is not None and 3500 < made.expires_s - made.created_s <= 3601
    tab.page.get_by_role("button", name="Revoke it").click()
    expect(tab.page.get_by_label("Key of role inference")).to_be_visible()
    until(lambda: office.site.bench.gateway.directory.keys()[0].revoked_s is not None, "the revocation")


# -- keys --------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_and_revoked(tab: Tab, office: Office) -> None:
    tab.expected = ("401",)
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.enter(OPERATOR, "#/keys")
    tab.page.get_by_role("button", name="New key").click()
    dialog = tab.page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Tenant").select_option("b")
    dialog.get_by_label("Name").fill("of <i>ours</i>")
    dialog.get_by_label("Expires").select_option("tomorrow")
    dialog.get_by_role("button", name="Make it").click()
    shown = tab.page.get_by_role("dialog", name="The new key")
    key = shown.get_by_label("Key").input_value()
    shown.get_by_role("button", name="Copy").click()
    expect(shown.get_by_text("Copied.")).to_be_visible()
    assert tab.page.evaluate("navigator.clipboard.readText()") == key
    assert tab.violations() == []
    shown.get_by_role("button", name="Done").click()
    row = tab.page.get_by_role("row").filter(has_text="of <i>ours</i>")
    expect(row).to_contain_text("inference")
    assert key not in tab.page.content()
    assert office.get("/v1/models", key).status_code == 200
    row.get_by_role("button", name="Revoke").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
    expect(row).to_have_count(0)
    assert office.get("/v1/models", key).status_code == 401
    tab.page.get_by_label("1 key revoked or expired").check()
    expect(row).to_contain_text("revoked 2")


def test_a_refusal_of_a_key_stays_in_the_dialog(tab: Tab, office: Office) -> None:
    tab.expected = ("400",)
    tab.enter(OPERATOR, "#/tenants/a")
    tab.page.get_by_role("button", name="New key").click()
    dialog = tab.page.get_by_role("dialog", name="New key of a")
    expect(dialog.get_by_label("Tenant")).to_have_count(0)
    dialog.get_by_label("Name").evaluate("field => { field.removeAttribute('maxlength') }")
    dialog.get_by_label("Name").fill("x" * 201)
    dialog.get_by_role("button", name="Make it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("`note`")
    tab.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert office.site.bench.gateway.directory.keys() == []


# -- adapters ----------------------------------------------------------------------------------------------


def upload(tab: Tab, archive: Path, **fields: str) -> Locator:
    dialog = tab.page.get_by_role("dialog")
    for label, value in fields.items():
        dialog.get_by_label(label, exact=True).fill(value)
    dialog.get_by_label("Archive").set_input_files(archive)
    dialog.get_by_role("button", name="Upload").click()
    return dialog


def test_an_adapter_is_uploaded_and_lives_its_life(tab: Tab, office: Office) -> None:
    tab.enter(OPERATOR, "#/adapters")
    tab.page.get_by_role("button", name="New adapter").click()
    upload(tab, office.archive(1), Name="billing")
    expect(tab.page.get_by_role("heading", name="a/billing", level=1)).to_be_visible()
    versions = tab.page.get_by_role("group", name="Versions, table").locator("tbody tr")
    expect(versions.first).to_contain_text("100 %")

    tab.page.get_by_role("button", name="New version").click()
    upload(tab, office.archive(2), **{"Part of the requests at first, in percent": "25"})
    expect(versions.first).to_contain_text("25 %")
    expect(tab.page.get_by_role("link", name="Try it in the playground")).to_have_attribute(
        "href", "#/playground/billing/billing%402"
    )
    versions.first.get_by_role("button", name="Roll out").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_label("Part of the requests").fill("60")
    dialog.get_by_role("button", name="Roll it out").click()
    expect(versions.first).to_contain_text("60 %")
    assert tab.violations() == []

    for button, yes, said in (
        ("Promote version 2", "Promote version 2", "Version 2 of a/billing answers everything."),
        ("Roll back", "Roll back", "a/billing was rolled back."),
        ("Retire", "Retire it", "a/billing is retired."),
    ):
        summary = tab.page.get_by_role("region", name="Summary")
        summary.get_by_role("button", name=button, exact=True).click()
        tab.page.get_by_role("dialog").get_by_role("button", name=yes).click()
        expect(tab.page.get_by_text(said)).to_be_visible()
    expect(versions.first).to_contain_text("retired")


def test_a_refused_version_says_all_of_its_reason_and_can_be_tried_again(tab: Tab, office: Office) -> None:
    reason = "the answer is empty: " + "why " * 60
    good, bad = TrialReport(True, "", 1.0, 0.01), TrialReport(False, reason, 0.0, 0.01)
    for engine in office.engines.values():
        engine.trial = lambda _: bad
    tab.enter(OPERATOR, "#/adapters")
    tab.page.get_by_role("button", name="New adapter").click()
    upload(tab, office.archive(3), Name="billing")
    row = tab.page.get_by_role("group", name="Versions, table").locator("tbody tr").first
    expect(row).to_contain_text("quarantined")
    expect(row.locator(".reason")).to_contain_text("why why why why")
    for engine in office.engines.values():
        engine.trial = lambda _: good
    row.get_by_role("button", name="Try again").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Try it again").click()
    expect(row).to_contain_text("100 %")

    for engine in office.engines.values():
        engine.trial = lambda _: bad
    tab.page.get_by_role("button", name="New version").click()
    upload(tab, office.archive(4))
    expect(row).to_contain_text("quarantined")
    tab.go("#/adapters/a")
    expect(tab.page.get_by_label("Filter")).to_have_value("a/")
    expect(tab.page.locator("main tbody tr")).to_contain_text("version 2: quarantined")


def test_what_is_no_adapter_is_refused_where_it_was_sent(tab: Tab, office: Office) -> None:
    tab.expected = ("400",)
    tab.enter(OPERATOR, "#/adapters")
    tab.page.get_by_role("button", name="New adapter").click()
    empty = office.folder / "empty.tar"
    empty.write_bytes(b"")
    dialog = upload(tab, empty, Name="billing")
    expect(dialog.get_by_role("alert")).to_contain_text("The upload is empty")
    text = office.folder / "adapter.txt"
    text.write_text("x")
    upload(tab, text)
    assert (
        dialog.get_by_label("Archive")
        .evaluate("field => field.validationMessage")
        .startswith("Choose a .tar")
    )


def test_a_source_that_the_tenant_may_not_use_is_refused_with_the_reason(tab: Tab, office: Office) -> None:
    tab.expected = ("403", "400")
    tab.enter(office.key(KeyRole.ADAPTERS, "a"), "#/adapters")
    tab.page.get_by_role("button", name="New adapter").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("billing")
    dialog.get_by_label("fetched from a source").check()
    dialog.get_by_role("textbox", name="Source").fill("hf://somebody/else")
    dialog.get_by_role("button", name="Register").click()
    expect(dialog.get_by_role("alert")).to_contain_text("may not come from there; allowed: none")
    expect(tab.page.get_by_role("navigation", name="Pages")).to_be_visible()  # it is no reason to sign out


# -- usage -------------------------------------------------------------------------------------------------


def use(office: Office) -> None:
    async def ask() -> None:
        for tenant, model in (("a", "support"), ("a", "sales"), ("b", "support")):
            assert (await office.site.bench.chat(tenant, model=model)()).status == 200

    office.site.call(ask())


def test_usage_is_shown_by_month_and_tenant_and_saved_as_csv(tab: Tab, office: Office) -> None:
    use(office)
    tab.enter(OPERATOR, "#/usage")
    table = tab.page.get_by_role("group", name="Usage by tenant, table")
    expect(table.locator("tbody tr")).to_have_count(2)
    expect(table.locator("tbody tr").first).to_contain_text("a")
    expect(table.locator("tfoot")).to_contain_text("30")
    expect(
        tab.page.get_by_role("img", name=re.compile(r"Tokens of the last 12 months: \d{4}-\d\d 30$"))
    ).to_be_visible()
    with tab.page.expect_download() as saved:
        tab.page.get_by_role("button", name="CSV by tenant and day").click()
    assert re.fullmatch(r"usage-\d{4}-\d\d\.csv", saved.value.suggested_filename)
    lines = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(), newline="")))
    assert sorted((line["tenant"], line["requests"]) for line in lines) == [("a", "2"), ("b", "1")]
    tab.page.get_by_role("combobox", name="Tenant").select_option("a")
    models = tab.page.get_by_role("group", name="Usage by model, table").locator("tbody tr")
    expect(models).to_have_count(2)
    expect(tab.page.locator("main")).to_contain_text(re.compile("Budget of this month: .* of 100"))
    assert tab.violations() == []


# -- a tenant's own login ----------------------------------------------------------------------------------

OWN_PAGES = {
    "": "Models",
    "#/adapters": "Adapters",
    "#/keys": "Keys",
    "#/usage": "Usage",
    "#/playground": "Playground",
}


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_tenant_sees_what_is_its_own_and_no_other_name(
    browser: Browser, office: Office, scheme: Any, width: int
) -> None:
    use(office)
    office.site.call(office.house.ready(5))
    office.key(KeyRole.INFERENCE, "b")
    viewport = {"width": width, "height": 800}
    with tab_of(browser, office.site.url, color_scheme=scheme, viewport=viewport) as tab:
        tab.enter(office.key(KeyRole.ADAPTERS, "a"))
        names = tab.page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
        assert names == list(OWN_PAGES.values())
        for where in (*OWN_PAGES, "#/adapters/a/billing"):
            tab.go(where)
            tab.page.get_by_role("heading", level=1).wait_for()
            tab.page.wait_for_timeout(300)
            expect(tab.page.get_by_role("alert")).to_have_count(0)
            shown = tab.page.locator("body").inner_html()
            assert not [name for name in ("b-support", "c-support", ">b<", ">c<") if name in shown], where
            assert tab.violations() == [], where
            assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, where
        for where in ("#/tenants", "#/admit", "#/events", "#/models/b/support", "#/tenants/b/change"):
            tab.go(where)
            expect(tab.page.get_by_role("heading", level=1)).to_have_text("There is no such page.")


def test_a_tenant_manages_its_adapters_and_reads_its_keys(tab: Tab, office: Office) -> None:
    office.site.call(office.house.ready(6))
    tab.enter(office.key(KeyRole.ADAPTERS, "a"), "#/keys")
    expect(tab.page.get_by_role("group", name="Keys, table").locator("tbody tr")).to_have_count(2)
    expect(tab.page.get_by_role("button", name="New key")).to_have_count(0)
    expect(tab.page.get_by_role("button", name="Revoke")).to_have_count(0)
    tab.go("#/adapters")
    expect(tab.page.locator("main tbody tr")).to_have_count(1)
    tab.page.get_by_role("link", name="a/billing").click()
    tab.page.get_by_role("button", name="New version").click()
    upload(tab, office.archive(7))
    row = tab.page.get_by_role("group", name="Versions, table").locator("tbody tr").first
    expect(row).to_contain_text("100 %")
    tab.go("#/playground")
    expect(tab.page.get_by_text("Your key calls no models")).to_be_visible()
    expect(tab.page.get_by_role("button", name="Make a key for an hour")).to_have_count(0)
