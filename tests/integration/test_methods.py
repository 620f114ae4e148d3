"""Which methods does each route take, for everybody, with and without a slash at its end?"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engines.protocol import Kind
from routing.http.cors import with_cors
from routing.openai.bodies import CONTROL
from tests.fakes import Client, key_of
from tests.integration.conftest import Bench

KEYS = [None, "made-up", "a", "operator"]
POSTED = [*(kind.value for kind in Kind), "/v1/load_lora_adapter"]
READ = [
    *("/v1/models", "/v1/models/support", "/v1/usage", "/metrics", "/docs", "/openapi.json", "/docs.json"),
    *("/console", "/admin/v1/replicas", "/admin/v1/live", "/admin/v1/openapi.json"),
    *("/version", "/load", "/schema.json"),
]
ROUTES = [
    *(("/health", "GET, HEAD, OPTIONS"), ("/ping", "GET, POST, HEAD, OPTIONS")),
    *((path, "POST, OPTIONS") for path in POSTED),
    *((path, "GET, HEAD, OPTIONS") for path in READ),
    *(("/v1/files", "GET, POST, HEAD, OPTIONS"), ("/v1/files/file-1", "DELETE, GET, HEAD, OPTIONS")),
    *(("/v1/batches", "GET, POST, HEAD, OPTIONS"), ("/v1/batches/batch_1/cancel", "POST, OPTIONS")),
    *((path, "GET, HEAD, OPTIONS") for path in ("/v1/files/file-1/content", "/v1/batches/batch_1")),
    *(("/v1/responses/r/cancel", "POST, OPTIONS"), ("/v1/responses/r", "DELETE, GET, HEAD, OPTIONS")),
]
CONTENT = {"messages": [{"role": "user", "content": "who?"}], "prompt": "who?", "input": "who?"}


def ask(bench: Bench, method: str, path: str, key: str | None = None, body: Any = None) -> Client:
    headers = [("authorization", f"Bearer {key_of(key)}")] if key else []
    return Client(
        bench.gateway.app,
        path,
        method=method,
        headers=headers,
        body=b"" if body is None else orjson.dumps(body),
    )


@pytest.mark.parametrize("key", KEYS)
async def test_options_are_told_to_everybody(bench: Bench, key: str | None) -> None:
    for path, allowed in ROUTES:
        for slash in ("", "/"):
            client = await ask(bench, "OPTIONS", path + slash, key)()
            assert (client.status, client.headers["allow"], client.body) == (204, allowed, b""), path
            assert "x-request-id" in client.headers


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
async def test_another_method_is_told_which_there_are(bench: Bench, method: str) -> None:
    for path, allowed in ROUTES:
        if method in allowed.split(", "):
            continue
        client = await ask(bench, method, path, "operator")()
        assert (client.status, client.headers["allow"]) == (405, allowed), path
        if not path.startswith(Kind.MESSAGES.value):  # whose errors have no code
            assert client.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("key", KEYS)
async def test_a_head_is_that_of_the_answer_without_its_body(bench: Bench, key: str | None) -> None:
    for path in READ:
        head, answer = await ask(bench, "HEAD", path, key)(), await ask(bench, "GET", path, key)()
        assert (head.status, head.body) == (answer.status, b""), path
        assert head.headers.keys() == answer.headers.keys()
        assert head.headers["content-type"] == answer.headers["content-type"]


async def test_what_is_posted_has_no_head(bench: Bench) -> None:
    for path in POSTED:
        client = await ask(bench, "HEAD", path, "operator")()
        assert (client.status, client.body, client.headers["allow"]) == (405, b"", "POST, OPTIONS"), path


@pytest.mark.parametrize("kind", list(CONTROL))
async def test_a_slash_at_the_end_of_an_endpoint_means_nothing(bench: Bench, kind: Kind) -> None:
    body = {**CONTROL[kind], "model": "support"}
    client = await ask(bench, "POST", f"{kind}/", "a", body)()
    assert (client.status, client.json()["model"]) == (200, "support")
    assert (await ask(bench, "POST", f"{kind}//", "a", body)()).status == 404


@pytest.mark.parametrize("key", ["a", "operator"])
async def test_a_slash_at_the_end_of_what_is_read_means_nothing(bench: Bench, key: str) -> None:
    for path in READ:
        with_slash, without = await ask(bench, "GET", f"{path}/", key)(), await ask(bench, "GET", path, key)()
        assert with_slash.status == without.status, path
        assert with_slash.headers["content-type"] == without.headers["content-type"]


async def test_what_is_no_route_has_no_options(bench: Bench) -> None:
    assert (await ask(bench, "OPTIONS", "/v1/nothing", "a")()).status == 404


async def test_asking_for_methods_is_not_counted_as_refused(bench: Bench) -> None:
    await ask(bench, "OPTIONS", "/v1/chat/completions")()
    page = await bench.get("/metrics", key=key_of("operator"))()
    assert b"method_not_allowed" not in page.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("key", "status"), [("a", 200), ("made-up", 401)])
async def test_a_page_from_an_origin_that_may_reads_answers_errors_and_streams(
    bench: Bench, key: str, status: int, stream: bool
) -> None:
    app = with_cors(
        bench.gateway.app, {"enabled": True, "access_control_allow_origins": ["https://app.example"]}
    )
    headers = [("authorization", f"Bearer {key_of(key)}"), ("origin", "https://app.example")]
    body = orjson.dumps({"messages": CONTENT["messages"], "stream": stream})
    client = await Client(app, "/v1/chat/completions", headers=headers, body=body)()
    assert client.status == status
    assert client.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-request-id" in client.headers["access-control-expose-headers"]
