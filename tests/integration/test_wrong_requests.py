"""Whose fault is it? One client sends what engines find wrong or break on; its neighbours notice nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Client, FakeEngine, Send, begin_stream, respond, small_fleet, sse, stream_events
from tests.integration.conftest import Bench, bench_of

Behaviour = Callable[[dict[str, Any], Send], Awaitable[None]]
PATHS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/responses": "input"}
CONTENT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}
WRONG = {
    "message": "too many for a-support@1",
    "type": "BadRequestError",
    "param": "top_logprobs",
    "code": 400,
}
INNER = {"message": "Traceback: /secret/path", "type": "InternalServerError", "param": None, "code": 500}
CREATED = b"event: response.created\n" + sse({"type": "response.created", "response": {"model": "m"}})


def shared(bench: Bench) -> list[FakeEngine]:
    return [engine for engine in bench.engines.values() if engine.name.startswith("shared")]


def behave(bench: Bench, broken: Behaviour) -> None:
    """Have the shared engines do that with requests that have the mark, and answer all others."""
    for engine in shared(bench):

        async def run(body: dict[str, Any], send: Send, engine: FakeEngine = engine) -> None:
            await (broken(body, send) if "mark" in body else engine.answer(body, send))

        engine.behave = run


def marked(bench: Bench) -> int:
    """How often engines were asked what has the mark."""
    return sum("mark" in body for engine in shared(bench) for body in engine.seen)


def ask(bench: Bench, path: str = "/v1/chat/completions", *, tenant: str = "a", **fields: Any) -> Client:
    content = {PATHS[path]: CONTENT[PATHS[path]]}
    return bench.post(path, {"model": "support", **content, "mark": 1, **fields}, tenant=tenant)


def assert_nobody_is_blamed(bench: Bench) -> None:
    now_s = bench.gateway.dispatcher._clock()
    for replica in bench.gateway.dispatcher.replicas.values():
        assert replica.engine.trusted and replica.ready
        assert replica.engine.health.snapshot(now_s).recent_failures == 0


# -- it asks for too much ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("structured_outputs.choice", {"structured_outputs": {"choice": [f"c{i}" for i in range(100_000)]}}),
        ("structured_outputs.grammar", {"structured_outputs": {"grammar": "root ::= root root"}}),
        ("use_beam_search", {"use_beam_search": True}),
        ("bad_words", {"bad_words": ["x"] * 1000}),
        ("messages", {"messages": [{"role": "user", "content": "x"}] * 50_000}),
    ],
)
async def test_what_asks_for_too_much_is_refused_before_an_engine_sees_it(
    pair: Bench, param: str, fields: dict[str, Any]
) -> None:
    client = await ask(pair, **fields)()
    assert client.status == 400
    assert (client.error["param"], client.error["code"]) == (param, "request_over_limit")
    assert f"`{param}`" in client.error["message"]
    assert marked(pair) == 0


async def test_a_tenant_may_have_bounds_of_its_own(tmp_path: Path) -> None:
    fleet = small_fleet()
    of_a = replace(fleet.tenants["a"], request_limits={"beam_width": 4, "tools": 0})
    async with bench_of(replace(fleet, tenants=fleet.tenants | {"a": of_a}), tmp_path) as bench:
        statuses = [
            (await ask(bench, tenant=tenant, **fields)()).status
            for tenant in "ab"
            for fields in ({"use_beam_search": True, "n": 4}, {"tools": [{"type": "function"}]})
        ]
        assert statuses == [200, 400, 400, 200]


# -- the engine says what is wrong -------------------------------------------------------------------------


async def refuse_whole(body: dict[str, Any], send: Send) -> None:
    await respond(send, 400, {"error": WRONG})


async def refuse_streamed(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    await send({"type": "http.response.body", "body": sse({"error": WRONG}), "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def refuse_after_announcing(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    await send({"type": "http.response.body", "body": CREATED, "more_body": True})
    await send({"type": "http.response.body", "body": sse({"error": WRONG})})


@pytest.mark.parametrize(
    ("path", "stream", "how"),
    [
        *((path, False, refuse_whole) for path in PATHS),
        *((path, True, refuse_whole) for path in PATHS),
        *((path, True, refuse_streamed) for path in PATHS),
        ("/v1/responses", True, refuse_after_announcing),
    ],
)
async def test_what_the_engine_finds_wrong_is_a_400_of_one_replica_with_its_words(
    pair: Bench, path: str, stream: bool, how: Behaviour
) -> None:
    behave(pair, how)
    for number in range(20):
        client = await ask(pair, path, stream=stream)()
        assert client.status == 400
        assert (client.error["param"], client.error["type"]) == ("top_logprobs", "invalid_request_error")
        assert marked(pair) == number + 1, "nobody else was asked"
    assert pair.outcomes() == {("completed", "invalid_request"): 20}
    assert_nobody_is_blamed(pair)
    assert (await pair.chat("b", model="support")()).status == 200


async def refuse_in_mid_stream(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    first = stream_events(body["model"], ["I "], running=True)[:2]
    await send({"type": "http.response.body", "body": b"".join(first), "more_body": True})
    await send({"type": "http.response.body", "body": sse({"error": WRONG}) + b"data: [DONE]\n\n"})


async def test_in_mid_stream_it_is_passed_on_in_openais_shape(pair: Bench) -> None:
    behave(pair, refuse_in_mid_stream)
    for _ in range(10):
        client = await ask(pair, stream=True)()
        *_, error, done, rest = client.body.split(b"\n\n")
        assert json.loads(error.removeprefix(b"data: "))["error"] == {
            "message": "too many for a-support@1",
            "type": "invalid_request_error",
            "param": "top_logprobs",
            "code": "invalid_request",
        }
        assert (done, rest, client.ended) == (b"data: [DONE]", b"", True)
    assert pair.outcomes() == {("completed", "invalid_request"): 10}
    assert_nobody_is_blamed(pair)


# -- the engine breaks on it -------------------------------------------------------------------------------


async def fail(body: dict[str, Any], send: Send) -> None:
    await respond(send, 500, {"error": INNER})


async def drop(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    raise ConnectionAbortedError


async def fail_in_stream(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    await send({"type": "http.response.body", "body": sse({"error": INNER}) + b"data: [DONE]\n\n"})


async def end_early(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    await send({"type": "http.response.body", "body": b""})


async def drop_after_announcing(body: dict[str, Any], send: Send) -> None:
    await begin_stream(send)
    await send({"type": "http.response.body", "body": CREATED, "more_body": True})
    raise ConnectionAbortedError


BREAKS = [
    *((path, stream, fail) for path in PATHS for stream in (False, True)),
    *((path, True, how) for path in PATHS for how in (drop, fail_in_stream, end_early)),
    ("/v1/responses", True, drop_after_announcing),
]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(("path", "stream", "how"), BREAKS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_breaks_engines_that_answer_others_is_the_requests_fault(
    tmp_path: Path, replicas: int, path: str, stream: bool, how: Behaviour
) -> None:
    async with bench_of(small_fleet(replicas=replicas), tmp_path) as bench:
        behave(bench, how)
        for text in ("one", "two", "three"):
            client = await ask(bench, path, stream=stream, **_content(path, text))()
            assert (client.status, client.error["code"]) == (400, "request_breaks_engine")
            assert "secret" not in client.body.decode()
            assert marked(bench) == 2, "its like is refused at once"
        assert_nobody_is_blamed(bench)
        for tenant in ("a", "b"):
            assert (await bench.chat(tenant, model="support")()).status == 200
        await ask(bench, path, stream=stream, tenant="b")()
        assert marked(bench) == 4, "what one tenant sent says nothing of another's"


def _content(path: str, text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} if "chat" in path else {PATHS[path]: text}


@pytest.mark.parametrize("field", ["metadata", "kv_transfer_params"])
@pytest.mark.parametrize("levels", [250, 251, 252, 253, 254, 400])
async def test_what_breaks_engines_is_settled_however_deep_it_is(
    pair: Bench, field: str, levels: int, caplog: pytest.LogCaptureFixture
) -> None:
    behave(pair, fail)
    body = b'{"model":"support","mark":1,"messages":[{"role":"user","content":"x"}],"%b":%b%b}'
    for _ in range(3):
        deep = body % (field.encode(), b"[" * levels, b"]" * levels)
        assert (await pair.post("/v1/chat/completions", deep)()).status == 400
    assert pair.at_rest and not pair.gateway.flights
    assert sum(pair.outcomes().values()) == min(1, marked(pair))
    assert not caplog.records


async def test_what_broke_once_by_chance_is_answered(pair: Bench) -> None:
    async def once(body: dict[str, Any], send: Send) -> None:
        await (fail(body, send) if marked(pair) == 1 else shared(pair)[0].answer(body, send))

    behave(pair, once)
    assert (await ask(pair)()).status == 200
    assert (await ask(pair)()).status == 200
    assert_nobody_is_blamed(pair)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_an_engine_that_breaks_on_everything_is_the_one_to_blame(tmp_path: Path, replicas: int) -> None:
    async with bench_of(small_fleet(replicas=replicas), tmp_path) as bench:
        for engine in shared(bench):
            engine.behave = engine.break_down
        for tenant in ("a", "b") * 3:
            client = await bench.chat(tenant, model="support")()
            assert (client.status, client.error["code"]) == (502, "engine_failed")
        assert any(r.engine.health.last_failure for r in bench.gateway.dispatcher.replicas.values())
        for engine in shared(bench):
            engine.behave = engine.answer
        assert (await bench.chat(model="support")()).status in (200, 503)


@pytest.mark.parametrize(("tenants", "blamed"), [("a", False), ("ab", True)])
async def test_a_replica_is_to_blame_once_two_tenants_suffer_there(
    pair: Bench, tenants: str, blamed: bool
) -> None:
    for engine in shared(pair):
        engine.behave = engine.die_mid_stream
    for _ in range(8):
        for tenant in tenants:
            await pair.chat(tenant, model="support", stream=True)()
    replicas = [pair.gateway.dispatcher.replicas[engine.name] for engine in shared(pair)]
    failures = [r.engine.health.snapshot(pair.gateway.dispatcher._clock()).recent_failures for r in replicas]
    assert any(failures) is blamed


# -- the client leaves when it has everything --------------------------------------------------------------


class Hasty(Client):
    """Closes its connection as soon as it has what it waits for, before the application hears of its send."""

    until = b"data: [DONE]"

    async def _send(self, message: dict[str, Any]) -> None:
        await super()._send(message)
        if self.until in message.get("body", b""):
            self.leave()
            for _ in range(5):
                await asyncio.sleep(0)


@pytest.mark.parametrize("lingers", [False, True])
async def test_a_stream_whose_client_leaves_with_its_last_event_is_completed(
    bench: Bench, lingers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = bench.engines["shared-0"]

    async def answer(body: dict[str, Any], send: Send) -> None:
        await begin_stream(send)
        for event in stream_events(body["model"], ["I ", "am "], running=True):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await (asyncio.sleep(0.05) if lingers else asyncio.sleep(0))
        await send({"type": "http.response.body", "body": b""})

    engine.behave = answer
    for _ in range(5):
        payload = {"model": "support", "messages": CONTENT["messages"], "stream": True}
        client = bench.post("/v1/chat/completions", payload)
        client.__class__ = Hasty
        await client()
        assert client.body.endswith(b"data: [DONE]\n\n") and client.ended
    assert bench.outcomes() == {("completed", ""): 5}


async def test_an_answer_whose_client_leaves_once_it_has_it_is_completed(bench: Bench) -> None:
    client = bench.chat(model="support")
    client.__class__ = Hasty
    client.until = b"I am a-support"  # type: ignore[attr-defined]
    await client()
    assert bench.outcomes() == {("completed", ""): 1}


async def test_one_that_leaves_before_the_end_is_not(bench: Bench) -> None:
    bench.engines["shared-0"].behave = bench.engines["shared-0"].hold_mid_stream
    client = bench.chat(model="support", stream=True)
    client.__class__ = Hasty
    client.until = b"role"  # type: ignore[attr-defined]
    await client()
    assert bench.outcomes() == {("cancelled", "client_gone"): 1}


# -- answers that are not JSON, or do not say what they used -----------------------------------------------

METADATA = {"id": "embd-1", "model": "base", "data": [{"index": 0}] * 300}
USED = {"prompt_tokens": 7, "total_tokens": 7}


@pytest.mark.parametrize(
    ("metadata", "estimated", "tokens"),
    [({**METADATA, "usage": USED}, False, 7), (METADATA, True, 10), (None, True, 10)],
)
async def test_embeddings_as_bytes_go_out_as_they_are_and_are_metered(
    bench: Bench, metadata: dict[str, Any] | None, estimated: bool, tokens: int
) -> None:
    data = bytes(range(256)) + b'"model":"base"'

    async def embed(body: dict[str, Any], send: Send) -> None:
        headers = [(b"content-type", b"application/octet-stream")]
        if metadata is not None:
            headers.append((b"metadata", json.dumps(metadata).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    bench.engines["shared-0"].behave = embed
    client = await bench.post(
        "/v1/embeddings", {"model": "plain", "input": "x" * 40, "encoding_format": "bytes"}
    )()
    assert (client.status, client.body) == (200, data)
    assert client.headers["content-type"] == "application/octet-stream"
    if metadata is None:
        assert "metadata" not in client.headers
    else:
        assert json.loads(client.headers["metadata"]) == {**metadata, "model": "plain"}
    assert await used(bench) == (tokens, 0, int(estimated))


@pytest.mark.parametrize("path", [*PATHS, "/v1/embeddings"])
@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"tools": [{"usage": {"prompt_tokens": 0}}]}])
async def test_an_answer_that_does_not_say_what_it_used_is_estimated(
    bench: Bench, path: str, usage: dict[str, Any]
) -> None:
    async def answer(body: dict[str, Any], send: Send) -> None:
        await respond(send, 200, {"model": body["model"], "text": "x" * 80, **usage})

    bench.engines["shared-0"].behave = answer
    content = {PATHS.get(path, "input"): CONTENT[PATHS.get(path, "input")]}
    assert (await bench.post(path, {"model": "plain", **content})()).status == 200
    prompt, completion, estimated = await used(bench)
    assert prompt > 0 and estimated == 1
    assert completion == 0 if path == "/v1/embeddings" else completion > 0


async def used(bench: Bench) -> tuple[int, int, int]:
    """Prompt and completion tokens so far, and requests whose usage was estimated."""
    bench.gateway.ended.flush()
    lines = bench.gateway.metrics.page().decode().splitlines()
    names = ("prompt_tokens_total", "completion_tokens_total", "usage_estimated_total")
    prompt, completion, estimated = (
        sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(f"tenantry_{name}{{"))
        for name in names
    )
    return prompt, completion, estimated
