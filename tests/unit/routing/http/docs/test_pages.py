"""The page of the inference API: what it loads is there, kept, and of nobody else's server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from routing.http.docs import SWAGGER_UI, pages, shipped
from routing.http.docs.openapi import document

PAGES = pages()
PAGE = PAGES["/docs"].body.decode()
LINKED = re.findall(r'(?:src|href)="(/docs/[^"]+)"', PAGE)


def header(path: str, name: bytes) -> bytes:
    return dict(PAGES[path].headers)[name]


def test_the_root_leads_to_the_page() -> None:
    assert (PAGES["/"].status, header("/", b"location")) == (307, b"/docs")


def test_whatever_the_page_links_is_there_and_kept_for_ever() -> None:
    assert len(LINKED) == 4
    for path in LINKED:
        assert b"immutable" in header(path, b"cache-control")
    assert header("/docs", b"cache-control") == b"no-cache"


def test_the_page_names_nothing_else_to_load() -> None:
    assert set(re.findall(r'(?:src|href)="([^"]+)"', PAGE)) == {*LINKED, "/openapi.json", "data:,"}
    assert "<script>" not in PAGE and "<style" not in PAGE


@pytest.mark.parametrize("path", ["/docs", *LINKED])
def test_nothing_may_be_loaded_from_elsewhere(path: str) -> None:
    directives = header(path, b"content-security-policy").decode().split("; ")
    assert "default-src 'none'" in directives and "frame-ancestors 'none'" in directives
    assert {source for directive in directives for source in directive.split()[1:]} == {
        "'none'", "'self'", "data:",
    }  # fmt: skip
    assert [directive for directive in directives if "data:" in directive] == ["img-src 'self' data:"]


def test_the_document_has_bentomls_path_too() -> None:
    assert json.loads(PAGES["/openapi.json"].body) == document()
    assert PAGES["/docs.json"] is PAGES["/openapi.json"]


@pytest.mark.parametrize("name", SWAGGER_UI)
def test_swagger_ui_is_bentomls_byte_for_byte(name: str) -> None:
    stem, _, suffix = name.rpartition(".")
    (path,) = [path for path in LINKED if path.startswith(f"/docs/{stem}-") and path.endswith(suffix)]
    assert PAGES[path].body == (shipped() / name).read_bytes()


def test_without_swagger_ui_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="swagger-ui"):
        pages(tmp_path)
