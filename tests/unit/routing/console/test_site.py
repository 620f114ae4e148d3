"""The console's files: under which paths, with which headers, and never another file."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from routing.asgi import Exchange, Headers
from routing.console import STATIC, pages
from routing.errors import MethodNotAllowed, RouteNotFound
from routing.site import Site
from tests.fakes import Client

PAGE = (STATIC / "index.html").read_text()
LINKED = re.findall(r'(?:src|href)="(/console/[^"]+)"', PAGE)


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(pages())


async def ask(site: Site, path: str, *, method: str = "GET", accept: str | None = None) -> Client:
    """Ask for a path."""

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        await site.respond(Exchange(scope, receive, send, Headers.of(scope)))  # type: ignore[arg-type]

    headers = [("accept-encoding", accept)] if accept else []
    return await Client(app, path, method=method, headers=headers)()


@pytest.mark.parametrize("path", ["/console", "/console/"])
async def test_the_page_is_asked_for_again_each_time(site: Site, path: str) -> None:
    answer = await ask(site, path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.body.decode() == PAGE


@pytest.mark.parametrize("path", LINKED)
async def test_whatever_the_page_links_is_there_and_kept_for_ever(site: Site, path: str) -> None:
    answer = await ask(site, path)
    assert answer.status == 200
    assert "immutable" in answer.headers["cache-control"]
    assert answer.body == (STATIC / path.rpartition("/")[2]).read_bytes()


@pytest.mark.parametrize("path", ["/console", *LINKED])
async def test_every_file_forbids_what_the_page_does_not_need(site: Site, path: str) -> None:
    headers = (await ask(site, path)).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("accept", "packed"),
    [
        ("gzip, deflate, br", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("br", False),
        (None, False),
    ],
)
async def test_who_takes_gzip_gets_it(site: Site, accept: str | None, packed: bool) -> None:
    answer = await ask(site, "/console", accept=accept)
    assert (answer.headers.get("content-encoding") == "gzip") is packed
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert (gzip.decompress(answer.body) if packed else answer.body).decode() == PAGE
    assert answer.headers["vary"] == "accept-encoding"


async def test_head_says_how_long_it_is_and_sends_nothing(site: Site) -> None:
    answer = await ask(site, "/console", method="HEAD")
    assert (int(answer.headers["content-length"]), answer.body) == (len(PAGE.encode()), b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_but_reading_is_allowed(site: Site, method: str) -> None:
    with pytest.raises(MethodNotAllowed):
        await ask(site, "/console", method=method)


@pytest.mark.parametrize(
    "path",
    [
        "/console/../__init__.py",
        "/console/__init__.py",
        "/console/sources.sha256",
        "/console//index.html",
        "/console/index.html",
        "/console/%2e%2e/__init__.py",
        "/console/static/../../types.py",
        "/console/\x00",
        "/console/console.js",
        "/consoles",
    ],
)
async def test_any_other_path_is_nowhere(site: Site, path: str) -> None:
    with pytest.raises(RouteNotFound):
        await ask(site, path)


def test_without_a_built_page_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make console"):
        pages(tmp_path)
