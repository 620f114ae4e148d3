"""Anthropic's messages through the gateway: keys, errors and streams in its form, tenancy as a chat's."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from engines import protocol
from engines.protocol import Kind
from fleet.types import Caps
from routing.openai.endpoints import TOKENIZED_BYTES
from tests.fakes import Client, Send, begin_stream, key_of, respond, small_fleet
from tests.integration.conftest import Bench, bench_of
from tests.integration.test_other_endpoints import TOKENS, used
from tests.messages import CACHED, PIECES, READ, answer, events

MESSAGES, COUNT = Kind.MESSAGES.value, Kind.COUNT_TOKENS.value
Keys = list[tuple[str, str]]
ASKED: dict[str, Any] = {
    "model": "support",
    "messages": [{"role": "user", "content": "who?"}],
    "max_tokens": 9,
}


def ask(bench: Bench, path: str = MESSAGES, *, keys: Keys | None = None, **fields: Any) -> Client:
    headers = [("x-api-key", key_of("a"))] if keys is None else keys
    body = orjson.dumps({**ASKED, **fields})
    return Client(bench.gateway.app, path, body=body, headers=[*headers, ("anthropic-version", "2023-06-01")])


def errors_type(client: Client) -> str:
    told = client.json()
    assert told.keys() == {"type", "error", "request_id"} and told["type"] == "error"
    assert told["error"].keys() == {"type", "message"}
    return str(told["error"]["type"])


@pytest.fixture(autouse=True)
def _anthropics_engines(bench: Bench) -> None:
    for engine in bench.engines.values():
        engine.behave = answer


BEARER = ("authorization", f"Bearer {key_of('a')}")
OWN = ("x-api-key", key_of("a"))


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ([OWN], 200),
        ([BEARER], 200),
        ([OWN, BEARER], 200),
        ([OWN, OWN], 200),
        ([("x-api-key", "")], 401),
        ([], 401),
        ([("x-api-key", "made-up")], 401),
        ([("x-api-key", key_of("operator"))], 401),
        ([OWN, ("x-api-key", key_of("b"))], 400),
        ([("x-api-key", key_of("b")), BEARER], 400),
    ],
)
async def test_a_key_may_come_in_either_header(
    bench: Bench, keys: list[tuple[str, str]], status: int
) -> None:
    client = await ask(bench, keys=keys)()
    assert client.status == status
    if status != 200:
        assert errors_type(client) == {400: "invalid_request_error", 401: "authentication_error"}[status]


async def test_the_key_opens_nothing_of_the_admin_api_in_that_header(bench: Bench) -> None:
    keys = [("x-api-key", key_of("operator"))]
    client = await Client(bench.gateway.app, "/admin/v1/replicas", method="GET", headers=keys)()
    assert client.status == 401


async def test_a_whole_answer_is_metered_and_renamed(bench: Bench) -> None:
    client = await ask(bench)()
    assert (client.status, client.json()["model"]) == (200, "support")
    assert used(bench, *TOKENS) == [READ + CACHED, len(PIECES), 0]


async def test_a_stream_is_relayed_event_by_event(bench: Bench) -> None:
    client = await ask(bench, stream=True)()
    assert client.body == b"".join(events("support"))
    assert used(bench, *TOKENS) == [READ + CACHED, len(PIECES), 0]
    assert bench.outcomes() == {("completed", ""): 1}


async def test_the_engine_gets_salt_model_and_priority_and_no_key(bench: Bench) -> None:
    for tenant in ("a", "b"):
        await ask(bench, keys=[("x-api-key", key_of(tenant))], cache_salt="mine", request_id="x")()
    engine = bench.engines["shared-0"]
    assert len({body["cache_salt"] for body in engine.seen} | {"mine"}) == 3
    assert [headers[protocol.PRIORITY_HEADER] for headers in engine.headers] == ["1", "2"]
    assert not any(
        "x-api-key" in headers or "request_id" in body
        for headers, body in zip(engine.headers, engine.seen, strict=True)
    )


async def test_tokens_are_counted_without_usage(bench: Bench) -> None:
    async def count(body: dict[str, Any], send: Send) -> None:
        assert body["model"] == "base"
        await respond(send, 200, {"input_tokens": 7})

    bench.engines["shared-0"].behave = count
    client = await ask(bench, COUNT)()
    assert (client.status, client.json()) == (200, {"input_tokens": 7})
    assert used(bench, *TOKENS) == [0, 0, 0]


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"model": "b-support"}, 404, "not_found_error"),
        ({"model": "nothing"}, 404, "not_found_error"),
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"messages": "x"}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": ["x"]}, 400, "invalid_request_error"),
        ({"system": 7}, 400, "invalid_request_error"),
        ({"stop_sequences": ["x"] * 200}, 400, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, 413, "request_too_large"),
    ],
)
async def test_what_is_wrong_is_said_in_anthropics_form(
    bench: Bench, fields: dict[str, Any], status: int, kind: str
) -> None:
    client = await ask(bench, **fields)()
    assert (client.status, errors_type(client)) == (status, kind)
    assert client.json()["request_id"] == client.headers["x-request-id"] == client.headers["request-id"]
    assert bench.engines["shared-0"].seen == []


async def test_what_is_only_counted_is_bounded(bench: Bench) -> None:
    client = await ask(bench, COUNT, system="x" * TOKENIZED_BYTES)()
    assert (client.status, errors_type(client)) == (413, "request_too_large")


async def test_other_methods_and_routes_below_are_refused_in_the_same_form(bench: Bench) -> None:
    for method, path, status in (("GET", MESSAGES, 405), ("POST", f"{MESSAGES}/batches", 404)):
        client = await Client(bench.gateway.app, path, method=method, headers=[OWN])()
        assert client.status == status and errors_type(client)


async def test_a_cap_is_a_429_in_the_same_form(tmp_path: Any) -> None:
    async with bench_of(small_fleet(caps=Caps(requests_per_minute=1)), tmp_path) as bench:
        bench.engines["shared-0"].behave = answer
        await ask(bench)()
        client = await ask(bench)()
        assert (client.status, errors_type(client)) == (429, "rate_limit_error")
        assert "retry-after" in client.headers


async def test_what_the_engine_refuses_is_passed_on(bench: Bench) -> None:
    async def refuse(body: dict[str, Any], send: Send) -> None:
        error = {"type": "BadRequestError", "message": f"bad {body['model']}"}
        await respond(send, 400, {"type": "error", "error": error})

    bench.engines["shared-0"].behave = refuse
    client = await ask(bench)()
    assert (client.status, errors_type(client)) == (400, "invalid_request_error")
    assert client.json()["error"]["message"] == "bad support"


async def test_a_stream_whose_engine_dies_ends_in_an_error_event(bench: Bench) -> None:
    async def die(body: dict[str, Any], send: Send) -> None:
        await begin_stream(send)
        begun = b"".join(events(body["model"])[:3])
        await send({"type": "http.response.body", "body": begun, "more_body": True})
        raise ConnectionAbortedError

    bench.engines["shared-0"].behave = die
    client = await ask(bench, stream=True)()
    *_, last, rest = client.body.split(b"\n\n")
    assert rest == b"" and last.startswith(b"event: error\ndata: ")
    told = json.loads(last.partition(b"data: ")[2])
    assert (told["type"], told["error"]["type"]) == ("error", "api_error")
    assert used(bench, *TOKENS) == [READ + CACHED, 1, 1]


async def test_other_endpoints_take_the_header_and_keep_openais_errors(bench: Bench) -> None:
    for path in ("/v1/models", "/v1/usage"):
        assert (await Client(bench.gateway.app, path, method="GET", headers=[OWN])()).status == 200
    refused = await Client(bench.gateway.app, "/v1/models", method="GET", headers=[("x-api-key", "no")])()
    assert refused.error["code"] == "invalid_api_key"
