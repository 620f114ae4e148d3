"""The console in a real browser, in front of a gateway with fake engines: what it shows, says and does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
from playwright.sync_api import Browser, expect

from fleet.key_hash import hash_key
from fleet.types import Fleet
from routing.types import Outcome, Record
from tests.browser import Tab, tab_of
from tests.fakes import entry_of, key_of, small_fleet
from tests.integration.conftest import Bench, bench_of
from tests.unit.routing.observing.live.records import answered, ended
from tests.unit.routing.requests import target

KEY = key_of("operator")
PAGES = (
    "",
    "#/turns",
    "#/plan",
    "#/models/a/support",
    "#/adapters",
    "#/adapters/-/a-support",
    "#/tenants",
    "#/tenants/a",
    "#/tenants/a/change",
    "#/admit/a",
    "#/keys",
    "#/usage",
    "#/playground",
    "#/events",
)
T = TypeVar("T")


@dataclass
class Site:
    """A gateway on a port, in a loop and thread of its own: Playwright wants this thread for itself."""

    bench: Bench
    loop: asyncio.AbstractEventLoop
    port: int
    server: uvicorn.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def observe(self, *records: Record) -> None:
        """Have these requests counted as settled now."""
        self.observe_history([(0.0, record) for record in records])

    def observe_history(self, records: list[tuple[float, Record]]) -> None:
        """Have requests settled so many seconds ago, the oldest first."""

        async def settle() -> None:
            now = time.monotonic()
            for ago_s, record in records:
                self.bench.gateway.figures.observe(record, now - ago_s)

        self.call(settle())

    async def listen(self) -> None:
        """Accept connections."""
        config = uvicorn.Config(
            self.bench.gateway.app,
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        self.server = uvicorn.Server(config)
        self.server.lifespan = config.lifespan_class(config)
        await self.server.startup()
        self._running = asyncio.ensure_future(self.server.main_loop())

    async def hang_up(self) -> None:
        """Cut every connection and accept none."""
        if self.server is None:
            return
        self.server.should_exit = self.server.force_exit = True
        await self._running
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()
        await self.server.shutdown()
        self.server = None


def site_of(
    fleet: Fleet, folder: Path, *, local_only: frozenset[str] = frozenset()
) -> contextlib.AbstractContextManager[Site]:
    """A running gateway without state, until the block ends."""
    return site_over(bench_of(fleet, folder, local_only=local_only))


@contextlib.contextmanager
def site_over(benches: contextlib.AbstractAsyncContextManager[Bench]) -> Iterator[Site]:
    """Serve what is entered, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stack = contextlib.AsyncExitStack()

    async def start() -> Site:
        site = Site(await stack.enter_async_context(benches), loop, port)
        await site.listen()
        return site

    site = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield site
    finally:
        try:
            site.call(site.hang_up())
            site.call(stack.aclose())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_of(small_fleet(replicas=2), tmp_path) as site:
        yield site


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    with tab_of(browser, site.url) as tab:
        yield tab


def rows(tab: Tab) -> list[str]:
    """Models in the order in which they are shown."""
    found = tab.page.locator("tr[data-model]")
    return [str(found.nth(i).get_attribute("data-model")) for i in range(found.count())]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def busy(site: Site) -> None:
    """One model is slow, one fails, one is well; each has a past of some minutes."""
    past = [(float(ago), answered(0.1, of=of)) for ago in range(240, 5, -4) for of in THREE]
    site.observe_history(past)
    site.observe(
        *(answered(6.0, of=THREE[0], queue_s=5.8, waits_for="no_slot") for _ in range(5)),
        *(ended(Outcome.FAILED, 502, "engine_failed", of=THREE[1]) for _ in range(9)),
        *(answered(0.12, of=THREE[2]) for _ in range(5)),
    )


THREE = (target("a", "sales"), target("b", "support"), target("a", "support"))


# -- the key -----------------------------------------------------------------------------------------------


def test_a_demo_key_from_elsewhere_is_told_where_it_works(browser: Browser, tmp_path: Path) -> None:
    known = frozenset({hash_key(key_of("operator"))})
    through_a_proxy: Any = {"x-forwarded-for": "10.0.0.9"}
    with (
        site_of(small_fleet(), tmp_path, local_only=known) as site,
        tab_of(browser, site.url, extra_http_headers=through_a_proxy) as tab,
    ):
        tab.expected = ("403",)
        tab.open()
        tab.give(key_of("operator"))
        expect(tab.page.get_by_role("alert")).to_contain_text("This is a demo key")


def test_a_wrong_key_is_refused_with_a_reason_and_a_right_one_opens_it(tab: Tab, site: Site) -> None:
    tab.expected = ("401", "403")
    tab.open()
    for key, said in (
        ("wrong", "does not take this key"),
        ("with spaces in it", "does not take this key"),
        ("schlüssel", "does not take this key"),
        (key_of("a"), "This key calls models"),
    ):
        tab.give(key)
        expect(tab.page.get_by_role("alert")).to_contain_text(said)
        expect(tab.page.get_by_label("Operator key")).to_be_focused()
    tab.give(KEY)
    expect(tab.page.get_by_role("heading", name="Fleet")).to_be_visible()
    assert KEY not in tab.page.url
    assert tab.page.evaluate("Object.values(localStorage).length") == 0


def test_the_key_outlives_a_reload_and_is_forgotten_on_demand(tab: Tab) -> None:
    tab.enter(KEY)
    tab.page.reload()
    expect(tab.page.get_by_role("heading", name="Fleet")).to_be_visible()
    tab.page.get_by_role("button", name="Forget key").click()
    expect(tab.page.get_by_label("Operator key")).to_be_focused()
    assert tab.page.evaluate("Object.values(sessionStorage).length") == 0
    tab.page.reload()
    expect(tab.page.get_by_label("Operator key")).to_be_visible()


# -- the fleet ---------------------------------------------------------------------------------------------


def test_a_fleet_at_rest_says_so_and_shows_its_replicas(tab: Tab) -> None:
    tab.enter(KEY)
    expect(tab.page.get_by_text("No request has ended in the last five minutes")).to_be_visible()
    for name in ("shared-0", "shared-1", "alone-0"):
        expect(tab.page.get_by_role("article", name=f"Replica {name}")).to_contain_text("ready")
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()


def test_the_worst_model_comes_first_with_its_reason(tab: Tab, site: Site) -> None:
    busy(site)
    tab.enter(KEY)
    expect(tab.page.locator("tr[data-model]")).to_have_count(3)
    assert rows(tab) == ["b/support", "a/sales", "a/support"]
    failing, slow, green = (tab.page.locator("tr[data-model]").nth(i) for i in range(3))
    expect(failing).to_contain_text("of its requests fail (engine_failed)")
    expect(slow).to_contain_text("since every slot is held by other adapters; usual is below 1.0 s")
    expect(green).to_contain_text("green")
    expect(tab.page.locator(".verdicts")).to_have_text("1 failing1 slow1 green")
    assert tab.page.title().startswith("(2) ")


def test_a_model_that_recovers_leaves_the_top_while_it_is_watched(tab: Tab, site: Site) -> None:
    site.observe_history([(float(ago), answered(0.1, of=THREE[2])) for ago in range(100, 61, -2)])
    tab.enter(KEY)
    site.observe(*(answered(30.0, of=THREE[2]) for _ in range(3)), answered(0.1, of=THREE[0]))
    expect(tab.page.locator("tr[data-model]").first).to_contain_text("slow")
    site.observe(*(ended(Outcome.FAILED, 502, "engine_failed", of=THREE[0]) for _ in range(3)))
    expect(tab.page.locator("tr[data-model]").first).to_contain_text("failing")
    assert rows(tab) == ["a/sales", "a/support"]


def test_a_models_page_draws_its_minutes_and_says_by_what_it_is_judged(tab: Tab, site: Site) -> None:
    busy(site)
    tab.enter(KEY)
    tab.page.get_by_role("link", name="a/sales").click()
    expect(tab.page.get_by_role("heading", name="a/sales", level=1)).to_be_visible()
    expect(tab.page.get_by_text("five times what is usual for it, and at least 1 s")).to_be_visible()
    expect(tab.page.locator(".chart canvas")).to_have_count(2)
    drawn = tab.page.evaluate(
        "() => { const c = document.querySelector('.chart canvas');"
        " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0) }"
    )
    assert drawn
    assert tab.violations() == []


def test_what_is_not_there_says_so(tab: Tab) -> None:
    tab.expected = ("404",)
    tab.enter(KEY)
    for where, text in (
        ("#/models/a/nothing", "nothing ended in the last five minutes"),
        ("#/adapters/-/nothing", "There is no adapter nothing"),
        ("#/tenants/nobody", "There is no tenant nobody"),
        ("#/nowhere", "There is no such page"),
        ("#/%E0%A4%A", "No request has ended"),
    ):
        tab.go(where)
        expect(tab.page.locator("main")).to_contain_text(text)


# -- much of it --------------------------------------------------------------------------------------------


def test_a_thousand_adapters_and_models_stay_bounded_and_can_be_narrowed(tab: Tab, site: Site) -> None:
    long = "x" * 63

    async def fill() -> None:
        for number in range(1000):
            site.bench.gateway.directory.put(entry_of(f"adapter-{number:04}", tenant="a"))
        site.bench.gateway.directory.put(entry_of(long, tenant="a"))

    site.call(fill())
    site.observe(*(answered(of=target("a", f"model-{number}")) for number in range(1000)))
    site.observe(*(answered(20.0, of=target("a", long)) for _ in range(9)))
    tab.enter(KEY)
    expect(tab.page.locator("tr[data-model]")).to_have_count(100)
    expect(tab.page.get_by_text("of rarer models together")).to_be_visible()
    width = tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, "a long name does not widen the page"
    tab.go("#/adapters")
    expect(tab.page.locator("main tbody tr")).to_have_count(200)
    expect(tab.page.get_by_text("The first 200 are shown")).to_be_visible()
    tab.page.get_by_label("Filter").fill("adapter-0777")
    expect(tab.page.locator("main tbody tr")).to_have_count(1)
    tab.page.get_by_label("Filter").fill(long)
    expect(tab.page.locator("main tbody tr")).to_have_count(1)
    assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


# -- the connection ----------------------------------------------------------------------------------------


def test_a_lost_gateway_is_seen_at_once_and_found_again(tab: Tab, site: Site) -> None:
    tab.expected = ("ERR_", "Failed to load resource", "net::")
    tab.enter(KEY)
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
    site.call(site.hang_up())
    expect(tab.page.get_by_text("No connection, trying again")).to_be_visible()
    expect(tab.page.locator(".link")).to_contain_text("what you see is")
    assert tab.page.title().startswith("(no connection)")
    expect(tab.page.get_by_role("heading", name="Fleet")).to_be_visible()
    site.call(site.listen())
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible(timeout=20_000)


def test_a_stream_that_ends_cleanly_is_asked_for_again_unseen(tab: Tab, site: Site) -> None:
    tab.enter(KEY)
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
    feed = site.bench.gateway.live

    async def end_all() -> None:
        for viewer in feed._viewers:
            viewer.close()

    site.call(end_all())
    until(lambda: feed.viewers == 1, "it comes again")
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
    streams = [request for request in tab.asked if request.url.endswith("/live/stream")]
    assert len(streams) == 2


def test_a_tab_that_closes_leaves_nothing_running(browser: Browser, site: Site) -> None:
    with tab_of(browser, site.url) as tab:
        tab.enter(KEY)
        expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
        assert site.bench.gateway.live.viewers == 1
    until(lambda: site.bench.gateway.live.is_idle, "nobody looks on, nothing is computed")


# -- what can be done --------------------------------------------------------------------------------------


def test_a_replica_is_drained_and_resumed_after_a_question(tab: Tab, site: Site) -> None:
    tab.enter(KEY)
    replica = site.bench.gateway.dispatcher.replicas["shared-1"]
    card = tab.page.get_by_role("article", name="Replica shared-1")
    card.get_by_role("button", name="Drain").click()
    dialog = tab.page.get_by_role("dialog", name="Drain shared-1?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert tab.violations() == []
    tab.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert not replica.draining, "nothing is done without a yes"

    card.get_by_role("button", name="Drain").click()
    dialog.get_by_role("button", name="Drain shared-1").click()
    expect(tab.page.get_by_text("shared-1 gets no new work.")).to_be_visible()
    assert replica.draining
    expect(card).to_contain_text("draining")

    card.get_by_role("button", name="Resume").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Resume shared-1").click()
    expect(card.get_by_role("button", name="Drain")).to_be_visible()
    assert not replica.draining


def test_a_refused_action_says_why_and_stays_open(tab: Tab, site: Site) -> None:
    tab.expected = ("503",)
    tab.enter(KEY, "#/adapters/-/a-support")
    tab.page.get_by_role("button", name="Pin", exact=True).click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Pin it").click()
    expect(dialog.get_by_role("alert")).to_be_visible()  # this gateway has no state database
    expect(dialog.get_by_role("button", name="Pin it")).to_be_enabled()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)


def test_decisions_come_as_they_are_made_and_can_be_held_and_filtered(tab: Tab, site: Site) -> None:
    tab.expected = ("503",)  # no state database, so no changes to list
    tab.enter(KEY, "#/events")
    engine = site.bench.engines["alone-0"]
    engine.behave = engine.hold

    async def ask() -> list[Any]:
        return [site.bench.chat("c", model="support").start() for _ in range(9)]

    clients = site.call(ask())
    expect(tab.page.locator(".log .action.queued").first).to_be_visible()
    expect(tab.page.locator(".log .action.granted")).to_have_count(0)
    tab.page.get_by_label("with grants").check()
    expect(tab.page.locator(".log .action.granted")).to_have_count(8)
    tab.page.get_by_label("Filter").fill("no room")
    expect(tab.page.locator(".log .action.granted")).to_have_count(0)
    tab.page.get_by_role("button", name="Hold").click()
    expect(tab.page.get_by_role("button", name="Go on")).to_be_visible()

    async def release() -> None:
        engine.release.set()
        for client in clients:
            await client.done()

    site.call(release())


# -- for everybody -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_in_light_and_dark(browser: Browser, site: Site, scheme: Any) -> None:
    busy(site)
    with tab_of(browser, site.url, color_scheme=scheme) as tab:
        tab.expected = ("404", "503")  # no ledger, no state database
        tab.open()
        tab.page.get_by_role("heading", level=1).wait_for()  # it asks first how users sign in
        assert tab.violations() == []
        tab.give(KEY)
        for where in PAGES:
            tab.go(where)
            tab.page.get_by_role("heading", level=1).wait_for()
            tab.page.wait_for_timeout(300)  # what the page asks for itself
            tab.shot(f"console-{scheme}-{where.strip('#/').replace('/', '-') or 'fleet'}")
            assert tab.violations() == [], where
        background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) > 384) is (scheme == "light")


def test_everything_can_be_done_with_the_keyboard_alone(tab: Tab, site: Site) -> None:
    busy(site)
    tab.open()
    expect(tab.page.get_by_label("Operator key")).to_be_focused()
    tab.page.keyboard.type(KEY)
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="Fleet")).to_be_visible()
    tab.page.reload()
    tab.page.get_by_role("link", name="a/sales").wait_for()
    seen = walk(tab, 20)
    assert seen[:12] == [
        "Skip to the page",
        "Tenantry",
        "Fleet",
        "Turns",
        "Plan",
        "Adapters",
        "Tenants",
        "Keys",
        "Usage",
        "Playground",
        "Events",
        "Forget key",
    ]
    assert {"b/support", "a/sales", "a/support"} <= set(seen)
    tab.page.get_by_role("link", name="a/sales").focus()
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="a/sales", level=1)).to_be_focused()


def walk(tab: Tab, steps: int) -> list[str]:
    """Press Tab so often; what had the focus each time, which must be seen to have it."""
    seen = []
    for _ in range(steps):
        tab.page.keyboard.press("Tab")
        text, outline = tab.page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.textContent.trim().slice(0, 40) , s.outlineStyle + s.outlineWidth] }"
        )
        assert outline != "none0px", f"nothing shows that {text!r} has the focus"
        seen.append(text)
    return seen


def test_a_narrow_screen_needs_no_sideways_scrolling(browser: Browser, site: Site) -> None:
    busy(site)
    with tab_of(browser, site.url, viewport={"width": 375, "height": 800}) as tab:
        tab.expected = ("404", "503")
        tab.enter(KEY)
        for where in PAGES:
            tab.go(where)
            tab.page.get_by_role("heading", level=1).wait_for()
            tab.page.wait_for_timeout(300)
            assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, where
