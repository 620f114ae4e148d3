"""The console on the real service: a flooded model is seen, the fleet is steered. In this order, on one.

`make screenshot` has the picture of the flood kept in docs/.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from demo.answers import QUESTIONS
from tests.browser import ROOT, Tab, tab_of
from tests.e2e.serving import DEMO, Service, key_of, serving, wait_until
from tests.e2e.traffic import Ask, send, session

pytestmark = pytest.mark.engine

OPERATOR = key_of("operator")
HEADERS = {"authorization": f"Bearer {OPERATOR}"}
FLOODED = ("globex", "support")
OTHERS = (("acme", "support"), ("acme", "sales"), ("initech", "support"))
STREAMS = 150  # of the flooded model at once; an engine takes 4
SHORT = 16  # tokens: whoever waits for a place waits for the end of one such answer
USUAL_S = 22.0  # until it is known what is usual: four buckets of time
SLOW_WITHIN_S = 60.0
# Its defaults are for an engine that does some thousand tokens per second; this one does a few hundred.
SCHEDULER = "gateway:\n  scheduler: {locality_bonus_tokens: 0, aging_tokens_per_s: 1}\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo's shared pool, all tenants alike, on an engine that runs four sequences at once."""
    folder = tmp_path_factory.mktemp("console")
    text = (ROOT / "fleet.yaml").read_text()
    for before, after in (
        ("    max_loras: 4", "    max_num_seqs: 4\n    max_loras: 4"),
        ("    priority: low\n", ""),
        ("gateway:\n", SCHEDULER),
        (
            "{support: globex-support}\n",
            "{support: globex-support}\n    budget: {monthly_tokens: 10000000}\n",
        ),
        (".cache/", f"{ROOT}/.cache/"),
    ):
        assert before in text
        text = text.replace(before, after)
    (folder / "fleet.yaml").write_text(text)
    arguments = ("--arg", f"fleet={folder / 'fleet.yaml'}", "--arg", "pool=shared")
    with serving("service:Gateway", folder, *arguments) as service:
        yield service


@pytest.fixture
def tab(browser: Browser, service: Service) -> Iterator[Tab]:
    with tab_of(browser, service.url) as tab:
        tab.enter(OPERATOR)
        yield tab


class Load:
    """Streams of several models, each so many at once, from a thread of its own, until the block ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._numbers = itertools.count()
        self._running: list[Any] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def add(self, tenant: str, model: str, *, at_once: int, tokens: int, pause_s: float = 0.0) -> None:
        """Keep so many streams of a model running."""
        work = self._keep(tenant, model, at_once, tokens, pause_s)
        self._running.append(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _keep(self, tenant: str, model: str, at_once: int, tokens: int, pause_s: float) -> None:
        async with session() as client:

            async def one() -> None:
                while True:
                    number = next(self._numbers)
                    question = QUESTIONS[number % len(QUESTIONS)]
                    ask = Ask(
                        f"load-{number}",
                        tenant,
                        model,
                        question,
                        stream=True,
                        tokens=tokens,
                        past_the_end=True,
                    )
                    await send(client, self._url, ask)
                    await asyncio.sleep(pause_s)

            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(one())

    def __exit__(self, *_: object) -> None:
        for work in self._running:
            work.cancel()
        self._loop.call_soon_threadsafe(lambda: None)
        deadline = time.monotonic() + 10
        while asyncio.all_tasks(self._loop) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def row(tab: Tab, tenant: str, model: str) -> Any:
    return tab.page.locator(f'tr[data-model="{tenant}/{model}"]')


def admin(service: Service, method: str, path: str, **options: Any) -> Any:
    """Ask the admin API as an operator; its answer must be a success."""
    answer = httpx.request(method, f"{service.url}/admin/v1{path}", headers=HEADERS, timeout=30, **options)
    assert answer.is_success, answer.text
    return answer.json()


def test_a_flooded_model_is_seen_to_be_slow_while_the_others_stay_green(service: Service, tab: Tab) -> None:
    with Load(service.url) as load:
        for tenant, model in OTHERS:
            load.add(tenant, model, at_once=1, tokens=SHORT, pause_s=0.4)
        # As much as acme with its two models, whom fairness would otherwise let wait for what it had before.
        load.add(*FLOODED, at_once=3, tokens=SHORT, pause_s=0.4)
        for tenant, model in (*OTHERS, FLOODED):
            expect(row(tab, tenant, model)).to_contain_text("green", timeout=20_000)
        time.sleep(USUAL_S)
        load.add(*FLOODED, at_once=STREAMS, tokens=SHORT)
        expect(row(tab, *FLOODED)).to_contain_text("slow", timeout=1000 * SLOW_WITHIN_S)
        first = tab.page.locator("tr[data-model]").first
        expect(first).to_have_attribute("data-model", "/".join(FLOODED))
        expect(first.locator(".reason")).to_contain_text(
            re.compile("requests wait, the oldest|p99 wait for a replica")
        )
        wait_until(lambda: first_token_s(service) > 2, "what it is slow by", within_s=40)
        picture = os.environ.get("TENANTRY_SCREENSHOT")
        if picture:
            time.sleep(25)  # for lines worth looking at
        for _ in range(10):  # it stays so
            expect(first).to_contain_text("slow")
            for tenant, model in OTHERS:
                expect(row(tab, tenant, model)).to_contain_text("green")
            time.sleep(0.5)
        taken = tab.shot("console-slow-model")
        if picture:
            shutil.copyfile(taken, ROOT / "docs" / "console.png")
        assert tab.violations() == []
        shown = in_a_terminal(service)
        assert "globex/support: " in shown and "acme/sales" in shown and "shared-0" in shown
        first.get_by_role("link").click()
        expect(tab.page.locator(".chart canvas")).to_have_count(2)
        expect(tab.page.locator(".reason.big")).to_be_visible()
        tab.shot("console-slow-model-page")
        tab.go("#/events")
        expect(tab.page.locator(".log .action.queued").first).to_be_visible()
        tab.shot("console-decisions")
    wait_until(service.at_rest, "the service at rest", within_s=60)


def in_a_terminal(service: Service) -> str:
    """What `tenantry top --once` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tenantry", "top", "--once"],
        env={**os.environ, "TENANTRY_ADMIN_KEY": OPERATOR, "TENANTRY_URL": service.url, "COLUMNS": "160"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def first_token_s(service: Service) -> float:
    """p99 of the flooded model, as the same picture has it that the console is drawn from."""
    models = admin(service, "GET", "/live")["models"]
    found = next(m for m in models if (m["tenant"], m["model"]) == FLOODED)
    return float(found["first_token_p99_s"] or 0)


def test_an_adapter_is_pinned_and_its_slot_shows_it(service: Service, tab: Tab) -> None:
    tab.go("#/adapters")
    tab.page.get_by_role("link", name="acme-sales").click()
    tab.page.get_by_role("button", name="Pin", exact=True).click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Pin it").click()
    expect(tab.page.get_by_text("acme-sales is pinned.")).to_be_visible()
    wait_until(lambda: pinned(service) == ["acme-sales"], "the engine's pin", within_s=30)
    expect(tab.page.locator("main")).to_contain_text("shared-0: slot, pinned")
    tab.go("#/")
    slot = tab.page.locator(".slot.pinned")
    expect(slot).to_contain_text("acme-sales")
    tab.go("#/adapters/-/acme-sales")
    tab.page.get_by_role("button", name="Unpin").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Unpin it").click()
    wait_until(lambda: pinned(service) == [], "the engine's pin gone", within_s=30)


def pinned(service: Service) -> list[str]:
    (replica,) = admin(service, "GET", "/replicas")["data"]
    return [name.partition("@")[0] for name in replica["pinned"]]


def test_a_version_is_promoted_and_rolled_back(service: Service, tab: Tab) -> None:
    def add(folder: str, **fields: Any) -> None:
        body = {"source": str(DEMO / "adapters" / folder), **fields}
        number = admin(service, "POST", "/adapters/billing/versions?tenant=acme", json=body)["number"]
        where = f"/adapters/billing/versions/{number}?tenant=acme"
        wait_until(lambda: admin(service, "GET", where)["state"] == "ready", "the version", within_s=60)

    add("globex-support")
    add("initech-support", rollout={"weight": 0.1})
    tab.go("#/adapters/acme/billing")
    expect(tab.page.locator("main")).to_contain_text("version 2 gets 10 % of the requests")
    tab.shot("console-adapter")
    tab.page.get_by_role("button", name="Promote version 2").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Promote version 2").click()
    expect(tab.page.get_by_text("Version 2 of acme/billing answers everything.")).to_be_visible()
    assert admin(service, "GET", "/adapters/billing?tenant=acme")["live"] == 2
    tab.page.get_by_role("button", name="Roll back").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(tab.page.get_by_text("acme/billing was rolled back.")).to_be_visible()
    assert admin(service, "GET", "/adapters/billing?tenant=acme")["live"] == 1


def test_a_key_is_revoked_and_opens_nothing(service: Service, tab: Tab) -> None:
    made = admin(
        service, "POST", "/keys", json={"role": "inference", "tenant": "globex", "note": "of a test"}
    )
    models = {"headers": {"authorization": f"Bearer {made['key']}"}}
    assert service.get("/v1/models", **models).status_code == 200
    tab.go("#/tenants/globex")
    usage = tab.page.get_by_role("region", name="Usage")
    now = tab.page.get_by_role("region", name="Now")
    expect(now).to_contain_text(re.compile(r"Budget of this month: .* of 10\s000\s000 tokens"))
    expect(usage.get_by_role("row")).to_have_count(2)  # the heading, and today
    keys = tab.page.get_by_role("row").filter(has_text="of a test")
    tab.shot("console-tenant")
    keys.get_by_role("button", name="Revoke").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
    expect(keys).to_have_count(0)
    tab.page.get_by_label("revoked or expired").check()
    expect(keys).to_contain_text(re.compile("revoked 2"))
    assert service.get("/v1/models", **models).status_code == 401
    assert made["key"] not in tab.page.content()


def test_an_operators_key_that_is_revoked_ends_the_look(service: Service, browser: Browser) -> None:
    made = admin(service, "POST", "/keys", json={"role": "operator", "note": "for a while"})
    with tab_of(browser, service.url) as tab:
        tab.expected = ("401",)
        tab.enter(made["key"], "#/adapters/-/acme-sales")
        expect(tab.page.locator("main")).to_contain_text("tiny-llama")
        admin(service, "DELETE", f"/keys/{made['id']}")
        expect(tab.page.get_by_role("alert")).to_contain_text("revoked", timeout=15_000)
        expect(tab.page.get_by_label("Operator key")).to_have_value("")


def test_a_replica_is_drained_and_resumed(service: Service, tab: Tab) -> None:
    card = tab.page.get_by_role("article", name="Replica shared-0")
    card.get_by_role("button", name="Drain").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Drain shared-0").click()
    expect(card).to_contain_text("draining")
    assert ask(service).json()["error"]["code"] == "no_replica_ready"
    card.get_by_role("button", name="Resume").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Resume shared-0").click()
    expect(card).to_contain_text("ready")
    assert ask(service).status_code == 200
    tab.go("#/events")
    expect(tab.page.locator("main")).to_contain_text("drained: it gets no new work")


def ask(service: Service) -> httpx.Response:
    body = {"model": "support", "messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 8}
    key = {"authorization": f"Bearer {key_of('acme')}"}
    return httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=key, timeout=60)


def test_an_open_console_does_not_hold_up_the_end(service: Service, tab: Tab) -> None:
    tab.expected = ("ERR_", "Failed to load resource")
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
    began_s = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began_s < 25, "an engine takes some seconds to end; nobody waits for viewers"
    expect(tab.page.get_by_text("No connection, trying again")).to_be_visible()
