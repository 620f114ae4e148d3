"""Users whom a proxy signs in to the console: over real sockets, with and without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from fleet.types import Fleet, TrustedProxies
from routing.http import connections
from tests.browser import tab_of
from tests.fakes import key_of, serving, small_fleet
from tests.integration.conftest import bench_of
from tests.integration.test_console import Site, site_of

connections.install(connections.Bounds())  # as the service does
ADA = {"x-forwarded-email": "ada@example.com"}
PAGE = {"x-tenantry-console": "1"}
WHO = "/admin/v1/whoami"


def fleet_behind(*addresses: str) -> Fleet:
    """The small fleet behind proxies at these addresses."""
    fleet = small_fleet()
    proxies = TrustedProxies(
        addresses,
        "x-forwarded-email",
        "x-forwarded-groups",
        operators=("ada@example.com",),
        tenants={"a": ("bob@a.example",)},
    )
    return replace(fleet, gateway=replace(fleet.gateway, trusted_proxies=proxies))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_of(fleet_behind("127.0.0.1/32"), tmp_path) as site:
        yield site


def ask(site: Site, path: str = WHO, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, f"{site.url}{path}", headers=named)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def test_a_believed_proxy_signs_its_user_in(site: Site) -> None:
    for email, role, tenant in (("ada@example.com", "operator", None), ("bob@a.example", "adapters", "a")):
        answer = ask(site, **{**PAGE, "x-forwarded-email": email})
        assert answer.json() == {"object": "caller", "role": role, "tenant": tenant, "user": email}
    bob = {**PAGE, "x-forwarded-email": "bob@a.example"}
    assert ask(site, "/admin/v1/live", **bob).status_code == 403
    assert [t["name"] for t in ask(site, "/admin/v1/tenants", **bob).json()["data"]] == ["a"]


def test_what_the_user_s_address_is_said_to_be_changes_nothing(site: Site) -> None:
    # uvicorn takes a local proxy's `x-forwarded-for` for the client's address
    assert ask(site, **ADA, **PAGE, x_forwarded_for="203.0.113.9").json()["user"] == "ada@example.com"


def test_the_header_of_somebody_who_is_no_proxy_opens_nothing(tmp_path: Path) -> None:
    with site_of(fleet_behind("10.0.0.7/32"), tmp_path) as site:
        for spoofed in ({}, {"x_forwarded_for": "10.0.0.7"}, {"x_real_ip": "10.0.0.7"}):
            answer = ask(site, **ADA, **PAGE, **spoofed)
            assert (answer.status_code, code(answer)) == (401, "invalid_api_key")
        keyed = ask(site, **ADA, **PAGE, authorization=f"Bearer {key_of('operator')}")
        assert keyed.json() == {"object": "caller", "role": "operator", "tenant": None, "user": None}


def test_without_the_setting_the_header_means_nothing(tmp_path: Path) -> None:
    with site_of(small_fleet(), tmp_path) as site:
        assert ask(site, **ADA, **PAGE).status_code == 401
        assert httpx.get(f"{site.url}/console/sign-in.json").json() == {"by_proxy": False}


def test_the_page_is_told_whether_a_proxy_signs_in_as_the_fleet_is_now(site: Site) -> None:
    async def replace_fleet() -> None:
        site.bench.gateway.fleet.replace(small_fleet())

    where = f"{site.url}/console/sign-in.json"
    assert httpx.get(where).json() == {"by_proxy": True}
    site.call(replace_fleet())
    assert httpx.get(where).json() == {"by_proxy": False}
    assert ask(site, **ADA, **PAGE).status_code == 401


async def test_a_unix_socket_has_no_address_to_be_believed_by(tmp_path: Path) -> None:
    socket = tmp_path / "gateway.sock"
    fleet = fleet_behind("127.0.0.0/8", "::1/128")
    async with bench_of(fleet, tmp_path) as bench, serving(bench.gateway.app, socket):
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get(WHO, headers=ADA | PAGE)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/usage", "/v1/chat/completions", "/v1/load_lora_adapter", "/metrics"]
)
def test_a_proxy_s_user_calls_no_model_and_reads_no_metrics(site: Site, path: str) -> None:
    method = "POST" if path.endswith(("completions", "adapter")) else "GET"
    assert ask(site, path, method, **ADA, **PAGE).status_code in (401, 403)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**PAGE, "origin": "http://elsewhere.example"},
        {**PAGE, "origin": "http://elsewhere.example", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_page_elsewhere_cannot_use_the_user_s_session(
    site: Site, method: str, headers: dict[str, str]
) -> None:
    path = "/admin/v1/keys/x" if method == "DELETE" else "/admin/v1/keys"
    answer = ask(site, path, method, **ADA, **headers)
    assert (answer.status_code, code(answer)) == (403, "console_only")


def test_an_unknown_user_and_several_get_a_clear_refusal(site: Site) -> None:
    eve = ask(site, **PAGE, **{"x-forwarded-email": "eve@example.com"})
    assert (eve.status_code, code(eve)) == (403, "unknown_user")
    assert "`eve@example.com`, who has no rights here" in eve.json()["error"]["message"]
    twice = [("x-tenantry-console", "1"), ("x-forwarded-email", "eve"), *ADA.items()]
    answer = httpx.get(f"{site.url}{WHO}", headers=twice)
    assert (answer.status_code, code(answer)) == (403, "unknown_user")


# -- in a browser ------------------------------------------------------------------------------------------


def options(email: str) -> dict[str, Any]:
    return {"extra_http_headers": {"x-forwarded-email": email}}


def test_the_console_opens_without_a_key_and_can_work(browser: Browser, site: Site) -> None:
    with tab_of(browser, site.url, **options("ada@example.com")) as tab:
        tab.open()
        expect(tab.page.get_by_role("heading", name="Fleet")).to_be_visible()
        expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
        expect(tab.page.locator(".top")).to_contain_text("ada@example.com")
        card = tab.page.get_by_role("article", name="Replica shared-0")
        card.get_by_role("button", name="Drain").click()
        tab.page.get_by_role("dialog").get_by_role("button", name="Drain shared-0").click()
        expect(card).to_contain_text("draining")
        assert tab.violations() == []
        tab.page.get_by_role("button", name="Use a key").click()
        tab.give(key_of("operator"))
        expect(tab.page.get_by_role("button", name="Forget key")).to_be_visible()


def test_a_tenant_s_user_sees_the_tenant(browser: Browser, site: Site) -> None:
    with tab_of(browser, site.url, **options("bob@a.example")) as tab:
        tab.open()
        expect(tab.page.get_by_role("heading", name="a", exact=True)).to_be_visible()
        expect(tab.page.locator(".top")).to_contain_text("a, bob@a.example")
        assert "b-support" not in tab.page.content()


def test_a_user_without_rights_is_told_so_and_may_use_a_key(browser: Browser, site: Site) -> None:
    with tab_of(browser, site.url, **options("eve@example.com")) as tab:
        tab.expected = ("403",)
        tab.open()
        expect(tab.page.get_by_role("alert")).to_contain_text("eve@example.com")
        tab.give(key_of("operator"))
        expect(tab.page.get_by_role("heading", name="Fleet")).to_be_visible()
