"""A real browser for tests: the machine's own Chromium, never a download, and what it complained of."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "test-output"
NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 10_000.0
SIZE: Any = {"width": 1280, "height": 800}
_ARGUMENTS = [
    "--no-sandbox",  # tests may run as root; the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--font-render-hinting=none",
]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's Chromium; where it has none, what needs it is skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install --no-install-recommends chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """One tab with the console in it, and everything it complained of or asked for."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)  # errors, warnings, CSP violations
    asked: list[Request] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # parts of complaints that the test provokes

    def open(self, where: str = "") -> None:
        """Load the console afresh, at one of its pages."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/console{where}")

    def enter(self, key: str, where: str = "") -> None:
        """Load it and give it a key."""
        self.open(where)
        self.give(key)
        self.page.get_by_role("navigation", name="Pages").wait_for()

    def give(self, key: str) -> None:
        """Fill the key in and send it."""
        self.page.get_by_label("Operator key").fill(key)
        self.page.get_by_role("button", name="Open").click()

    def go(self, where: str) -> None:
        """Follow a link within the page: `#/tenants`."""
        self.page.evaluate("where => { location.hash = where }", where)

    def violations(self) -> list[str]:
        """What axe-core has against the page as it is now."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found
            for node in one["nodes"]
        ]

    def shot(self, name: str) -> Path:
        """Keep a picture of it in test-output/."""
        path = OUTPUT / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        self.page.screenshot(path=path)
        return path

    def check(self) -> None:
        """It asked its own gateway alone, kept the key out of addresses, and complained of nothing."""
        left = [said for said in self.complaints if not any(part in said for part in self.expected)]
        assert not left, left
        for request in self.asked:
            parts = urlsplit(request.url)
            assert f"{parts.scheme}://{parts.netloc}" == self.url, request.url
            assert "key" not in parts.query, request.url
        assert self.page.context.cookies() == []


# The browser says in the log what its policy refused; this says it even where that is worded anew.
_WATCH = "addEventListener('securitypolicyviolation', e => console.error('CSP: ' + e.violatedDirective))"


@contextlib.contextmanager
def tab_of(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
    """Open a tab of its own; at its end nothing may be amiss."""
    context = browser.new_context(**{"viewport": SIZE, "reduced_motion": "reduce", **options})
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(_WATCH)
    page = context.new_page()
    tab = Tab(page, url)
    page.on("request", lambda request: tab.asked.append(request) if request.url.startswith("http") else None)
    page.on(
        "console",
        lambda said: tab.complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    try:
        yield tab
        tab.check()
    finally:
        context.close()
