"""Who gets in, how much of a body is read, and how errors look whatever their reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from routing.admin.gate import MAX_JSON_BYTES
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk, error_of

ADAPTERS = "/admin/v1/adapters"
ROUTES = [
    ("GET", ADAPTERS),
    ("POST", ADAPTERS),
    ("GET", f"{ADAPTERS}/support"),
    ("DELETE", f"{ADAPTERS}/support"),
    ("POST", f"{ADAPTERS}/support/versions"),
    ("GET", f"{ADAPTERS}/support/versions/1"),
    ("DELETE", f"{ADAPTERS}/support/versions/1"),
    ("POST", f"{ADAPTERS}/support/versions/1/verify"),
    ("POST", f"{ADAPTERS}/support/promote"),
    ("POST", f"{ADAPTERS}/support/rollback"),
    ("POST", f"{ADAPTERS}/support/rollout"),
    ("POST", f"{ADAPTERS}/support/pin"),
    ("DELETE", f"{ADAPTERS}/support/pin"),
    ("GET", "/admin/v1/fleet"),
    ("POST", "/admin/v1/fleet"),
    ("GET", "/admin/v1/replicas"),
    ("POST", "/admin/v1/replicas/shared-0/drain"),
    ("POST", "/admin/v1/replicas/shared-0/resume"),
    ("GET", "/admin/v1/models"),
    ("POST", "/admin/v1/models/one/wake"),
    ("POST", "/admin/v1/models/one/sleep"),
    ("POST", "/admin/v1/models/one/pin"),
    ("DELETE", "/admin/v1/models/one/pin"),
    ("POST", "/admin/v1/models"),
    ("GET", "/admin/v1/models/one"),
    ("DELETE", "/admin/v1/models/one"),
    ("POST", "/admin/v1/models/one/versions"),
    ("DELETE", "/admin/v1/models/one/versions/1"),
    ("POST", "/admin/v1/models/one/versions/1/verify"),
    ("POST", "/admin/v1/models/one/promote"),
    ("POST", "/admin/v1/models/one/rollback"),
    ("GET", "/admin/v1/pools/shared/restart"),
    ("POST", "/admin/v1/pools/shared/restart"),
    ("GET", "/admin/v1/plan"),
    ("PUT", "/admin/v1/plan"),
    ("PUT", "/admin/v1/plan/look"),
    ("GET", "/admin/v1/scheduler"),
    ("GET", "/admin/v1/live"),
    ("GET", "/admin/v1/live/stream"),
    ("GET", "/admin/v1/tenants"),
    ("POST", "/admin/v1/tenants"),
    ("GET", "/admin/v1/tenants/a"),
    ("PATCH", "/admin/v1/tenants/a"),
    ("DELETE", "/admin/v1/tenants/a"),
    ("POST", "/admin/v1/tenants/a/suspend"),
    ("POST", "/admin/v1/tenants/a/resume"),
    ("GET", "/admin/v1/aliases"),
    ("PUT", "/admin/v1/aliases/chat"),
    ("DELETE", "/admin/v1/aliases/chat"),
    ("GET", "/admin/v1/export"),
    ("GET", "/admin/v1/usage"),
    ("GET", "/admin/v1/events"),
    ("GET", "/admin/v1/batches"),
    ("GET", "/admin/v1/keys"),
    ("POST", "/admin/v1/keys"),
    ("PATCH", "/admin/v1/keys/id1"),
    ("DELETE", "/admin/v1/keys/id1"),
    ("GET", "/admin/v1/whoami"),
    ("GET", "/admin/v1/openapi.json"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("GET", "/admin/v1/nothing"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(None, 401, "invalid_api_key"), ("made-up", 401, "invalid_api_key"), ("calls-key", 403, "forbidden")],
)
async def test_only_admin_keys_get_in(
    desk: Desk, method: str, path: str, key: str | None, status: int, code: str
) -> None:
    answer = await desk.ask(method, path, key=key)
    assert answer.status_code == status
    assert error_of(answer)["code"] == code
    assert desk.management.calls == []
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_two_keys_are_refused(desk: Desk) -> None:
    headers = [("authorization", "Bearer acme-key"), ("authorization", "Bearer operator-key")]
    sent = await raw(desk, "GET", ADAPTERS, headers=headers)
    assert sent[0]["status"] == 400
    assert b"ambiguous_api_key" in sent[1]["body"]


async def test_a_stranger_s_body_is_not_read(desk: Desk) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    answer = await desk.upload(body(), key="made-up")
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/admin/v1/nothing", 404, "unknown_url"),
        ("GET", f"{ADAPTERS}//", 404, "unknown_url"),
        ("GET", f"{ADAPTERS}/a%2Fb", 404, "unknown_url"),
        ("GET", f"{ADAPTERS}/support/versions/../../../keys/x/y", 404, "unknown_url"),
        ("GET", "/admin/v1/docs", 404, "unknown_url"),
        ("PUT", ADAPTERS, 405, "method_not_allowed"),
        ("PATCH", f"{ADAPTERS}/support", 405, "method_not_allowed"),
    ],
)
async def test_what_is_no_route_says_so(desk: Desk, method: str, path: str, status: int, code: str) -> None:
    answer = await desk.ask(method, path)
    assert answer.status_code == status
    assert error_of(answer)["code"] == code
    assert "location" not in answer.headers


async def test_a_wrong_method_names_the_right_ones(desk: Desk) -> None:
    for path, allowed in (
        ("/admin/v1/replicas", "GET, HEAD, OPTIONS"),
        (ADAPTERS, "GET, POST, HEAD, OPTIONS"),
        (f"{ADAPTERS}/support/pin", "DELETE, POST, OPTIONS"),
        ("/v1/load_lora_adapter", "POST, OPTIONS"),
        ("/admin/v1/openapi.json", "GET, HEAD, OPTIONS"),
    ):
        answer = await desk.ask("PUT", path, key="operator-key")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("key", [None, "made-up", "calls-key", "acme-key", "operator-key"])
@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES if path != "/admin/v1/nothing"}))
async def test_options_are_told_to_everybody(desk: Desk, path: str, key: str | None) -> None:
    answer = await desk.ask("OPTIONS", path, key=key)
    methods = {method for method, route in ROUTES if route == path}
    assert answer.status_code == 204 and answer.content == b""
    assert set(answer.headers["allow"].split(", ")) == methods | {"OPTIONS"} | (
        {"HEAD"} if "GET" in methods else set()
    )
    assert desk.management.calls == []


async def test_what_is_no_route_has_no_options(desk: Desk) -> None:
    assert (await desk.ask("OPTIONS", "/admin/v1/nothing", key=None)).status_code == 401
    assert (await desk.ask("OPTIONS", "/admin/v1/nothing")).status_code == 404


@pytest.mark.parametrize("key", [None, "calls-key", "acme-key", "operator-key"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_head_is_that_of_the_answer_without_its_body(
    desk: Desk, method: str, path: str, key: str | None
) -> None:
    head = await desk.ask("HEAD", path, key=key)
    assert head.content == b""
    if method == "GET" and path != "/admin/v1/live/stream":  # which has no end
        answer = await desk.ask("GET", path, key=key)
        assert (head.status_code, head.headers["content-type"]) == (
            answer.status_code,
            answer.headers["content-type"],
        )
    elif method == "GET":
        assert head.status_code == {None: 401, "operator-key": 200}.get(key, 403)
        assert desk.watched.feed.viewers == 0
    elif key == "operator-key" and ("GET", path) not in ROUTES:
        assert head.status_code == 405


@pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if route[1] != "/admin/v1/live/stream"]
)
async def test_a_slash_at_the_end_means_nothing(desk: Desk, method: str, path: str) -> None:
    with_slash = await desk.ask(method, f"{path}/", key="operator-key")
    without = await desk.ask(method, path, key="operator-key")
    assert with_slash.status_code == without.status_code


@pytest.mark.parametrize("path", [ADAPTERS, f"{ADAPTERS}/support/versions", "/v1/load_lora_adapter"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 50_000, "invalid_json"),
        (b"[]", "invalid_type"),
        (b"null", None),
        (b"", None),
    ],
)
async def test_a_body_that_is_no_json_object_is_a_400(
    desk: Desk, path: str, body: bytes, code: str | None
) -> None:
    answer = await desk.ask("POST", path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert code in (None, error_of(answer)["code"])
    assert desk.management.calls == []


@pytest.mark.parametrize("path", [ADAPTERS, f"{ADAPTERS}/support/versions", f"{ADAPTERS}/support/promote"])
async def test_json_has_a_largest_size(desk: Desk, path: str) -> None:
    answer = await desk.ask("POST", path, {"source": "x" * MAX_JSON_BYTES})
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "body_too_large"


async def test_json_of_unknown_length_has_a_largest_size_too(desk: Desk) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 4096

    answer = await desk.ask("POST", ADAPTERS, content=body())
    assert answer.status_code == 413


async def test_json_that_does_not_arrive_is_a_408(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await fakes.desk(tmp_path, read_timeout_s=0.02).ask("POST", ADAPTERS, content=body())
    assert answer.status_code == 408
    assert error_of(answer)["code"] == "body_timeout"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        (ADAPTERS, "application/zip"),
        (f"{ADAPTERS}/support/promote", "application/x-tar"),
        (f"{ADAPTERS}/support/versions", "multipart/form-data; boundary=x"),
        (f"{ADAPTERS}/support/versions", "text/plain"),
        ("/v1/load_lora_adapter", "application/x-www-form-urlencoded"),
    ],
)
async def test_other_kinds_of_bodies_are_a_415(desk: Desk, path: str, content_type: str) -> None:
    answer = await desk.ask("POST", path, content=b"x", headers={"content-type": content_type})
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_media_type"


async def test_a_client_that_leaves_while_it_sends_json_gets_no_answer(desk: Desk) -> None:
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert await raw(desk, "POST", ADAPTERS, messages=messages) == []


async def test_an_unexpected_error_shows_nothing_of_itself(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("cannot open /srv/secret/state.db")

    monkeypatch.setattr(desk.management, "adapters", broken)
    with caplog.at_level(logging.ERROR, "tenantry.admin"):
        answer = await desk.ask("GET", ADAPTERS)
    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "/srv/secret/state.db" in caplog.text


async def raw(
    desk: Desk, method: str, path: str, *, headers: Any = None, messages: Any = None
) -> list[dict[str, Any]]:
    """One ASGI exchange, message by message."""
    waiting = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])
    sent: list[dict[str, Any]] = []
    headers = headers or [("authorization", "Bearer acme-key")]

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    await desk.app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/v1/models/one/sleep?dry_run=true"),
        ("DELETE", "/admin/v1/models/one?version=2"),
        ("DELETE", "/admin/v1/models/one/versions/2?dry_run=true"),
        ("POST", "/admin/v1/replicas/shared-0/drain?dry_run"),
    ],
)
async def test_an_order_with_a_parameter_that_its_route_does_not_know_is_refused(
    desk: Desk, method: str, path: str
) -> None:
    answer = await desk.ask(method, path, key="operator-key")
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "unknown_parameter")
    assert error["param"] == path.partition("?")[2].partition("=")[0]
    assert desk.management.models.asked == desk.management.calls == []


@pytest.mark.parametrize(
    ("method", "path", "param"),
    [
        ("GET", "/admin/v1/usage?tenant=acme&tenant=globex", "tenant"),
        ("GET", "/admin/v1/usage?group_by=day&from=2026-01-01&group_by=tenant", "group_by"),
        ("GET", "/admin/v1/keys?tenant=acme&tenant=acme", "tenant"),
        ("GET", "/admin/v1/events?since=1&since=2", "since"),
        ("DELETE", "/admin/v1/tenants/acme?dry_run=true&dry_run=false", "dry_run"),
        ("DELETE", "/admin/v1/adapters/support?tenant=acme&tenant=globex", "tenant"),
        ("PUT", "/admin/v1/aliases/latest?tenant=acme&tenant=globex", "tenant"),
    ],
)
async def test_a_parameter_that_is_given_twice_is_refused_and_none_of_both_counts(
    desk: Desk, method: str, path: str, param: str
) -> None:
    answer = await desk.ask(method, path, key="operator-key")
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", param)
    assert error["message"] == f"`{param}` was given twice."
    assert desk.management.calls == [] and desk.book.asked == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/v1/models/one/sleep"),
        ("DELETE", "/admin/v1/models/one"),
        ("POST", "/admin/v1/replicas/shared-0/drain"),
        ("DELETE", "/admin/v1/keys/1"),
    ],
)
async def test_an_order_with_a_body_that_its_route_does_not_read_is_refused(
    desk: Desk, method: str, path: str
) -> None:
    answer = await desk.ask(method, path, key="operator-key", json={"dry_run": True})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unknown_parameter")
    assert desk.management.models.asked == desk.management.calls == []
    empty: list[Any] = [{}, None]
    for nothing in empty:
        answer = await desk.ask(method, path, key="operator-key", json=nothing)
        assert answer.status_code != 400, answer.text
