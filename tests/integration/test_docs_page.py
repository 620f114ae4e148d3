"""The page of the inference API in a real browser: whole, of its own gateway alone, under its own policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from engines.protocol import Kind
from tests.browser import Tab, tab_of
from tests.fakes import key_of, small_fleet
from tests.integration.test_console import site_of


@pytest.fixture
def tab(browser: Browser, tmp_path: Path) -> Iterator[Tab]:
    with site_of(small_fleet(), tmp_path) as site, tab_of(browser, site.url) as tab:
        yield tab


def test_a_browser_asks_a_model_from_the_page(tab: Tab) -> None:
    tab.page.goto(f"{tab.url}/docs")
    tab.page.get_by_role("heading", name="Tenantry inference API").wait_for()
    for kind in Kind:
        assert tab.page.locator(f'[data-path="{kind.value}"]').count() == 1
    tab.page.get_by_role("button", name="Authorize").first.click()
    tab.page.get_by_label("auth-bearer-value").fill(key_of("a"))
    tab.page.locator(".auth-btn-wrapper").get_by_role("button", name="Apply").first.click()
    tab.page.locator(".btn-done").first.click()
    tab.page.locator("#operations-Models-model").click()
    own = tab.page.locator("#operations-Models-model", has_text="Yours: ")
    own.wait_for()
    assert "Yours: support, sales, plain." in own.inner_text()
    chat = tab.page.locator("#operations-Models-chat")
    chat.click()
    chat.get_by_role("button", name="Try it out").click()
    chat.get_by_role("button", name="Execute").click()
    chat.locator(".live-responses-table .response-col_status", has_text="200").first.wait_for()
    assert "x-tenantry-model: support" in chat.locator(".live-responses-table").inner_text()
