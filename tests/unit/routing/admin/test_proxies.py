"""Whose word is taken for who a user is: of listed proxies alone, for the console's own page alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fleet.current import CurrentFleet
from fleet.types import Fleet, TrustedProxies
from routing.admin.proxies import ProxySignIn, authentication
from routing.asgi import CONNECTION
from routing.catalog.declared import Identity
from routing.catalog.entries import KeyRole
from routing.errors import Forbidden
from tests.fakes import small_fleet

SETTINGS = TrustedProxies(
    addresses=("10.0.0.7/32", "192.168.4.0/24", "fd00:7::/64"),
    user_header="x-forwarded-email",
    groups_header="x-forwarded-groups",
    operators=("ada@example.com", "group:platform"),
    tenants={"acme": ("bob@acme.example", "group:acme"), "globex": ("group:globex",)},
)
PAGE = (("x-tenantry-console", "1"),)
ADA = Identity(KeyRole.OPERATOR, None, "ada@example.com")
BOB = Identity(KeyRole.ADAPTERS, "acme", "bob@acme.example")


@dataclass
class FakeConnection:
    """The other end of a socket."""

    peer: str | None
    is_stranger: bool = True

    def show_key(self) -> None:
        self.is_stranger = False


def scope_of(*headers: tuple[str, str], peer: str | None = "10.0.0.7") -> dict[str, Any]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return {
        "path": "/admin/v1/whoami",
        "headers": raw,
        "client": ("10.0.0.7", 1),
        CONNECTION: FakeConnection(peer),
    }


def user(name: str) -> tuple[str, str]:
    return ("x-forwarded-email", name)


def groups(*names: str) -> tuple[str, str]:
    return ("x-forwarded-groups", ", ".join(names))


@pytest.fixture
def sign_in() -> ProxySignIn:
    return ProxySignIn(SETTINGS)


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ([user("ada@example.com")], ADA),
        ([user(" ada@example.com ")], ADA),
        ([user("bob@acme.example")], BOB),
        ([user("bob@acme.example"), groups("platform")], BOB),
        ([user("eve"), groups("others", "platform", "acme")], Identity(KeyRole.OPERATOR, None, "eve")),
        ([user("eve"), groups("acme")], Identity(KeyRole.ADAPTERS, "acme", "eve")),
        ([user("eve"), groups("x"), groups("globex")], Identity(KeyRole.ADAPTERS, "globex", "eve")),
    ],
)
def test_a_listed_user_has_the_listed_role(
    sign_in: ProxySignIn, headers: list[tuple[str, str]], identity: Identity
) -> None:
    assert sign_in.identify(scope_of(*headers, *PAGE)) == identity


@pytest.mark.parametrize(
    "headers",
    [
        [user("eve")],
        [user("ADA@example.com")],
        [user("")],
        [user("group:platform")],
        [user("group:platform"), groups("others")],
        [user("eve"), groups("group:platform")],
        [user("eve"), groups("acme", "globex")],
        [user("ada@example.com"), user("ada@example.com")],
        [user("eve"), user("ada@example.com")],
        [user("eve, ada@example.com")],
        [user("ada@example.com,")],
        [user("\u00e4da@example.com")],
    ],
)
def test_whoever_is_not_listed_or_not_one_is_told_so(
    sign_in: ProxySignIn, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(Forbidden) as refused:
        sign_in.identify(scope_of(*headers, *PAGE))
    assert refused.value.code == "unknown_user"


def test_an_unknown_user_hears_its_own_name_and_no_others(sign_in: ProxySignIn) -> None:
    with pytest.raises(Forbidden, match="`eve`") as refused:
        sign_in.identify(scope_of(user("eve"), *PAGE))
    assert not any(name in refused.value.message for name in ("ada", "bob", "acme", "platform"))
    with pytest.raises(Forbidden) as refused:
        sign_in.identify(scope_of(user("x" * 10_000), *PAGE))
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("peer", ["10.0.0.7", "192.168.4.200", "fd00:7::1", "::ffff:10.0.0.7"])
def test_a_proxy_is_known_by_the_address_of_its_socket(sign_in: ProxySignIn, peer: str) -> None:
    scope = scope_of(user("ada@example.com"), *PAGE, peer=peer)
    assert sign_in.identify(scope) == ADA
    assert not scope[CONNECTION].is_stranger


@pytest.mark.parametrize(
    "peer", ["10.0.0.8", "127.0.0.1", "::1", "fd00:8::1", "::ffff:10.0.0.8", "", None, "unix:", "10.0.0.7/32"]
)
def test_the_header_of_anybody_else_is_ignored_and_logged_once(
    sign_in: ProxySignIn, peer: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    spoofed = [user("ada@example.com"), ("x-forwarded-for", "10.0.0.7"), ("forwarded", "for=10.0.0.7")]
    with caplog.at_level(logging.WARNING, "tenantry.admin"):
        for _ in range(3):
            scope = scope_of(*spoofed, *PAGE, peer=peer)
            assert sign_in.identify(scope) is None
            assert scope[CONNECTION].is_stranger
    (line,) = (record.getMessage() for record in caplog.records)
    assert "is none of gateway.trusted_proxies.addresses" in line
    assert "ada" not in line


def test_without_the_servers_word_no_address_is_believed(sign_in: ProxySignIn) -> None:
    scope = scope_of(user("ada@example.com"), *PAGE)
    del scope[CONNECTION]  # another server's scope, whose client may come from a header
    assert sign_in.identify(scope) is None


def test_a_proxy_that_names_nobody_signs_nobody_in(sign_in: ProxySignIn) -> None:
    assert sign_in.identify(scope_of(*PAGE)) is None
    assert not sign_in.is_suspicious


def test_groups_are_read_only_where_that_is_set() -> None:
    settings = TrustedProxies(("10.0.0.7/32",), "x-forwarded-email", operators=("ada@example.com",))
    with pytest.raises(Forbidden):
        ProxySignIn(settings).identify(scope_of(user("eve"), groups("platform"), *PAGE))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-tenantry-console", "0")],
        [*PAGE, ("sec-fetch-site", "cross-site")],
        [*PAGE, ("sec-fetch-site", "same-site")],
        [*PAGE, ("sec-fetch-site", "none")],
        [*PAGE, ("origin", "https://elsewhere.example"), ("host", "console.example")],
        [*PAGE, ("origin", "null"), ("host", "console.example")],
    ],
)
def test_a_page_elsewhere_cannot_act_for_the_user(
    sign_in: ProxySignIn, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(Forbidden) as refused:
        sign_in.identify(scope_of(user("ada@example.com"), *headers))
    assert refused.value.code == "console_only"


@pytest.mark.parametrize(
    "headers",
    [
        [("sec-fetch-site", "same-origin"), ("origin", "https://console.example"), ("host", "gateway:3000")],
        [("origin", "https://console.example"), ("host", "console.example")],
        [("origin", "http://[fd00::1]:3000"), ("host", "[fd00::1]:3000")],
        [
            ("origin", "https://console.example"),
            ("host", "gateway:3000"),
            ("x-forwarded-host", "console.example"),
        ],
    ],
)
def test_the_consoles_own_page_may(sign_in: ProxySignIn, headers: list[tuple[str, str]]) -> None:
    assert sign_in.identify(scope_of(user("ada@example.com"), *PAGE, *headers)) == ADA


def fleet_behind(settings: TrustedProxies | None) -> Fleet:
    fleet = small_fleet()
    return replace(fleet, gateway=replace(fleet.gateway, trusted_proxies=settings))


def test_a_key_says_more_than_a_proxy() -> None:
    fleet = CurrentFleet(fleet_behind(SETTINGS))
    authenticate = authentication(lambda key: BOB if key == "key" else None, fleet)
    scope = scope_of(user("ada@example.com"), *PAGE)
    assert authenticate("key", scope) == BOB
    assert authenticate("made-up", scope) is None
    assert authenticate(None, scope) == ADA


def test_what_programs_call_is_not_open_to_users() -> None:
    authenticate = authentication(lambda _: None, CurrentFleet(fleet_behind(SETTINGS)))
    scope = scope_of(user("ada@example.com"), *PAGE)
    for path in ("/v1/load_lora_adapter", "/v1/chat/completions", "/admin", "/metrics"):
        assert authenticate(None, {**scope, "path": path}) is None


def test_the_fleet_as_it_is_now_says_who_is_believed() -> None:
    fleet = CurrentFleet(fleet_behind(None))
    authenticate = authentication(lambda _: None, fleet)
    scope = scope_of(user("ada@example.com"), *PAGE)
    assert authenticate(None, scope) is None
    fleet.replace(fleet_behind(SETTINGS))
    assert authenticate(None, scope) == ADA
    fleet.replace(fleet_behind(None))
    assert authenticate(None, scope) is None
