"""The console's page of whole models that take turns, in a real browser, in front of fake hosts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from routing.http import connections
from routing.turns import seats as seats_module
from routing.turns import switching as switching_module
from tests.browser import Tab, tab_of
from tests.fakes import eventually, key_of
from tests.integration.mesh import Mesh, is_stopped, mesh_fleet, mesh_of
from tests.integration.test_console import Site, site_over

connections.install(connections.Bounds())  # as the service does
OPERATOR = key_of("operator")
expect.set_options(timeout=10_000)


@dataclass
class TurningSite:
    """A gateway on a port, and its hosts."""

    site: Site
    mesh: Mesh

    def chat(self, model: str) -> None:
        """Ask a model, and wait for its answer."""

        async def ask() -> int:
            return (await self.mesh.ask(model)()).status

        assert self.site.call(ask()) == 200

    def start(self, model: str) -> Any:
        """Ask a model, and do not wait."""

        async def ask() -> Any:
            return self.mesh.ask(model).start()

        return self.site.call(ask())

    def eventually(self, condition: Any, what: str) -> None:
        self.site.call(eventually(condition, what))

    def release(self, *clients: Any) -> None:
        """Let all engines answer, and wait until they have."""

        async def release() -> None:
            for engine in self.mesh.engines.values():
                engine.release.set()
            for client in clients:
                await client.done()

        self.site.call(release())


@contextlib.contextmanager
def turning(folder: Path, **options: Any) -> Iterator[TurningSite]:
    found: list[Mesh] = []

    @contextlib.asynccontextmanager
    async def bench() -> AsyncIterator[Mesh]:
        async with mesh_of(mesh_fleet(**options), folder) as mesh:
            found.append(mesh)
            yield mesh

    with site_over(bench()) as site:
        yield TurningSite(site, found[0])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(seats_module, "LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(switching_module, "GRACE_S", 0.2)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[TurningSite]:
    """Three models on one host, one awake."""
    with turning(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def tab(browser: Browser, fleet: TurningSite) -> Iterator[Tab]:
    with tab_of(browser, fleet.site.url) as tab:
        yield tab


def row(tab: Tab, model: str) -> Locator:
    return tab.page.locator(f'tr[data-model="{model}"]')


def events(tab: Tab) -> Locator:
    return tab.page.get_by_role("group", name="Turns of mesh, table").locator("tbody tr")


def confirm(tab: Tab, name: str) -> None:
    tab.page.get_by_role("dialog").get_by_role("button", name=name).click()


def test_each_models_state_its_cost_and_the_turns_are_shown(tab: Tab, fleet: TurningSite) -> None:
    fleet.chat("one")
    fleet.chat("two")
    tab.enter(OPERATOR, "#/turns")
    expect(row(tab, "two").locator(".state")).to_have_text("awake")
    expect(row(tab, "one").locator(".state")).to_have_text("on disk")
    expect(row(tab, "two")).to_contain_text("cold 10 ms")
    expect(row(tab, "three")).to_contain_text("not measured yet")
    expect(events(tab).first).to_contain_text("two is awake instead of one")
    expect(events(tab).first).to_contain_text("worth")
    lanes = tab.page.get_by_role("img", name="at mesh-0")
    expect(lanes).to_have_count(2)
    expect(tab.page.get_by_role("img", name="two at mesh-0: waking from")).to_be_visible()
    assert tab.violations() == []


def test_what_waits_is_shown_with_the_reason_why_it_is_held(tab: Tab, fleet: TurningSite) -> None:
    fleet.chat("one")
    busy = fleet.mesh.engine("one")
    busy.behave = busy.hold
    running = fleet.start("one")
    fleet.eventually(lambda: busy.running == 1, "the request")
    waiting = fleet.start("two")
    tab.enter(OPERATOR, "#/turns")
    expect(tab.page.get_by_role("heading", name="Pool mesh")).to_contain_text("1 request waits for 1 model")
    expect(row(tab, "two")).to_contain_text(
        "draining: a turn has ended for it, and what runs there ends first"
    )
    expect(row(tab, "one").locator(".state")).to_have_text("draining")
    expect(row(tab, "one")).to_contain_text("1 in flight")
    expect(events(tab).first).to_contain_text("the turn of one has ended for two; what it runs ends first")
    fleet.release(running, waiting)
    expect(row(tab, "two").locator(".state")).to_have_text("awake")


def test_a_wake_says_first_what_it_would_do_and_does_nothing_if_it_is_not_wanted(
    tab: Tab, fleet: TurningSite
) -> None:
    fleet.chat("one")
    tab.enter(OPERATOR, "#/turns")
    row(tab, "two").get_by_role("button", name="Wake").click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Pool mesh at mesh-0 instead of one: it would come now, about")
    assert tab.violations() == []
    tab.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert fleet.mesh.awake() == {"one"}
    row(tab, "two").get_by_role("button", name="Wake").click()
    confirm(tab, "Wake two")
    expect(tab.page.get_by_role("status").filter(has_text="two is to be awake.")).to_be_visible()
    expect(row(tab, "two").locator(".state")).to_have_text("awake")


def test_a_busy_model_is_put_to_sleep_and_what_it_runs_ends(tab: Tab, fleet: TurningSite) -> None:
    fleet.chat("one")
    busy = fleet.mesh.engine("one")
    busy.behave = busy.hold
    running = fleet.start("one")
    fleet.eventually(lambda: busy.running == 1, "the request")
    tab.enter(OPERATOR, "#/turns")
    expect(row(tab, "one")).to_contain_text("1 in flight")
    row(tab, "one").get_by_role("button", name="Sleep").click()
    expect(tab.page.get_by_role("dialog")).to_contain_text("its 1 sequence in flight end")
    confirm(tab, "Put one to sleep")
    expect(row(tab, "one").locator(".state")).to_have_text("draining")
    fleet.release(running)
    expect(row(tab, "one").locator(".state")).to_have_text("on disk")
    assert is_stopped(busy) and busy.cut == 0


def test_a_model_is_pinned_and_unpinned_and_a_refusal_is_in_the_gateways_words(
    browser: Browser, tmp_path: Path
) -> None:
    with turning(tmp_path, awake=2) as fleet, tab_of(browser, fleet.site.url) as tab:
        tab.expected = ("409",)
        tab.enter(OPERATOR, "#/turns")
        row(tab, "one").get_by_role("button", name="Pin").click()
        confirm(tab, "Pin one")
        expect(row(tab, "one")).to_contain_text("pinned")
        expect(row(tab, "one").locator(".state")).to_have_text("awake")
        row(tab, "two").get_by_role("button", name="Pin").click()
        confirm(tab, "Pin two")
        expect(tab.page.get_by_role("dialog").get_by_role("alert")).to_contain_text("could never come")
        tab.page.keyboard.press("Escape")
        row(tab, "one").get_by_role("button", name="Unpin").click()
        confirm(tab, "Unpin one")
        expect(row(tab, "one").get_by_role("button", name="Pin", exact=True)).to_be_visible()


def test_a_model_that_fails_comes_first_with_its_engines_words(tab: Tab, fleet: TurningSite) -> None:
    fleet.mesh.engine("three").never_loads = "CUDA out of memory: 3 GiB wanted"
    waiting = fleet.start("three")
    fleet.chat("one")
    tab.enter(OPERATOR, "#/turns")
    expect(row(tab, "three").locator(".state")).to_have_text("quarantined")
    expect(tab.page.locator("tr[data-model]").first).to_contain_text("CUDA out of memory: 3 GiB wanted")
    fleet.release(waiting)
    assert tab.violations() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_needs_no_sideways_scrolling_on_a_narrow_screen(
    browser: Browser, fleet: TurningSite, scheme: Any
) -> None:
    fleet.chat("one")
    fleet.chat("two")
    viewport: Any = {"width": 375, "height": 800}
    with tab_of(browser, fleet.site.url, color_scheme=scheme, viewport=viewport) as tab:
        tab.enter(OPERATOR, "#/turns")
        expect(row(tab, "two").locator(".state")).to_have_text("awake")
        tab.shot(f"console-turns-{scheme}")
        assert tab.violations() == []
        assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_hundreds_of_models_are_filtered(browser: Browser, tmp_path: Path) -> None:
    models = tuple(f"model-{number:03}" for number in range(210))
    with turning(tmp_path, models=models) as fleet, tab_of(browser, fleet.site.url) as tab:
        fleet.chat("model-207")
        tab.enter(OPERATOR, "#/turns")
        expect(tab.page.get_by_text("The first 200 are shown; narrow it down.")).to_be_visible()
        expect(tab.page.locator("tr[data-model]").first).to_contain_text("model-207")
        tab.page.get_by_label("Filter").fill("model-12")
        expect(tab.page.locator("tr[data-model]")).to_have_count(10)
        tab.page.get_by_label("Filter").fill("awake")
        expect(tab.page.locator("tr[data-model]")).to_have_count(1)
