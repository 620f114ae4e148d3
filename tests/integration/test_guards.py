"""A tenant's guard looks at prompts and answers: what it refuses reaches nobody, in whichever form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.protocol import Kind
from fleet.content import Guard, OnFailure
from fleet.types import Fleet, KeyLimits
from routing.flights import guards
from routing.openai.bodies import CONTROL
from routing.openai.endpoints import ENDPOINTS
from tests.fakes import (
    Client,
    Send,
    begin_stream,
    completion,
    eventually,
    respond,
    small_fleet,
    stream_events,
)
from tests.integration.conftest import Bench, bench_of

URL = "https://guard.example/v1/moderations"
ENDPOINT = Guard(OnFailure.REFUSE, url=URL, model="omni", timeout_s=0.2, hold_back_chars=8)
RUN = [kind for kind in CONTROL if ENDPOINTS[kind].runs]
BAD = "bomb"


@dataclass
class Moderation:
    """An endpoint that flags a word."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[list[str]], httpx.Response] | None = None
    hangs: bool = False

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        self.seen.append(asked)
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer is not None:
            return self.answer(asked["input"])
        bad = [BAD in text for text in asked["input"]]
        results = [{"flagged": is_bad, "categories": {"violence": is_bad, "hate": False}} for is_bad in bad]
        return httpx.Response(200, json={"id": "x", "model": "omni", "results": results})


def guarded(guard: Guard) -> Fleet:
    fleet = small_fleet()
    return replace(fleet, gateway=replace(fleet.gateway, guards={"a": guard}))


@pytest.fixture
def moderation() -> Moderation:
    return Moderation()


@pytest.fixture
async def bench(moderation: Moderation, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_of(guarded(ENDPOINT), tmp_path) as bench:
        use(bench, moderation)
        yield bench


def use(bench: Bench, moderation: Moderation) -> None:
    transport = httpx.MockTransport(moderation)
    bench.gateway.app.inference.guards._client = httpx.AsyncClient(transport=transport)


def says(bench: Bench, *pieces: str) -> None:
    """Have the engine answer this."""

    async def answer(body: dict[str, Any], send: Send) -> None:
        if not body.get("stream"):
            return await respond(send, 200, completion(body["model"], "".join(pieces)))
        await begin_stream(send)
        for event in stream_events(body["model"], list(pieces), running=True):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    bench.engines["shared-0"].behave = answer


def ask(bench: Bench, kind: Kind, word: str, tenant: str = "a") -> Client:
    body = json.dumps({**CONTROL[kind], "model": "support"}).replace('"hi"', json.dumps(word))
    return bench.post(kind.value, body.encode(), tenant=tenant)


@pytest.mark.parametrize("kind", RUN)
async def test_a_prompt_that_is_refused_reaches_no_engine(
    bench: Bench, moderation: Moderation, kind: Kind
) -> None:
    client = await ask(bench, kind, f"a {BAD}")()
    assert client.status == 400, client.body
    assert "violence" in client.body.decode() and BAD not in client.body.decode()
    assert bench.engines["shared-0"].seen == []
    assert moderation.seen[0]["model"] == "omni"
    assert bench.outcomes() == {("rejected", "prompt_flagged"): 1}
    assert bench.at_rest
    assert (await ask(bench, kind, "a flower")()).status == 200


@pytest.mark.parametrize("of_key", [False, True])
async def test_a_prompt_that_is_refused_counts_as_a_request_of_the_minute(
    tmp_path: Path, moderation: Moderation, of_key: bool
) -> None:
    fleet = guarded(ENDPOINT)
    caps = fleet.tenants["a"].caps
    rated = replace(fleet.tenants["a"], caps=replace(caps, requests_per_minute=2, tokens_per_minute=100))
    if of_key:
        limits = dict.fromkeys(rated.key_hashes, KeyLimits(requests_per_minute=2))
        rated = replace(fleet.tenants["a"], key_limits=limits)
    async with bench_of(replace(fleet, tenants=fleet.tenants | {"a": rated}), tmp_path) as bench:
        use(bench, moderation)
        answers = [await ask(bench, Kind.CHAT, word)() for word in (BAD, "flower", "flower", BAD)]
        assert [answer.status for answer in answers] == [400, 200, 429, 429]
        assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
        assert answers[0].headers.get("x-ratelimit-remaining-tokens") == (None if of_key else "100")
        name = "key_requests_per_minute" if of_key else "requests_per_minute"
        assert {answer.error["code"] for answer in answers[2:]} == {name}
        assert "retry-after" in answers[3].headers
        assert len(bench.engines["shared-0"].seen) == 1
        assert bench.at_rest


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_refused_reaches_no_client(bench: Bench, stream: bool) -> None:
    says(bench, "a ", BAD)
    client = await bench.chat(model="support", stream=stream)()
    assert BAD not in client.body.decode()
    if stream:
        assert client.status == 200
        last = client.body.decode().strip().splitlines()[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "answer_flagged"
    else:
        assert (client.status, client.error["code"]) == (400, "answer_flagged")
    assert bench.outcomes() == {("completed", "answer_flagged"): 1}
    assert bench.at_rest


BROKEN: dict[str, Callable[[list[str]], httpx.Response]] = {
    "status": lambda _: httpx.Response(500, json={"results": [{"flagged": False}]}),
    "redirect": lambda _: httpx.Response(307, headers={"location": "https://other.example"}),
    "no JSON": lambda _: httpx.Response(200, content=b"<html>"),
    "no results": lambda _: httpx.Response(200, json={"results": []}),
    "no object": lambda _: httpx.Response(200, json=[1]),
    "no boolean": lambda _: httpx.Response(200, json={"results": [{"flagged": "no"}]}),
    "endless": lambda _: httpx.Response(200, content=b" " * (guards.MAX_VERDICT_BYTES + 1)),
}


@pytest.mark.parametrize("categories", [None, [], ["violence"], "violence", 7, {}, {"violence": None}])
@pytest.mark.parametrize("on_failure", list(OnFailure))
async def test_what_is_flagged_is_refused_whatever_its_categories_are(
    tmp_path: Path, moderation: Moderation, categories: Any, on_failure: OnFailure
) -> None:
    result = {"flagged": True, "categories": categories}
    moderation.answer = lambda _: httpx.Response(200, json={"results": [result]})
    async with bench_of(guarded(replace(ENDPOINT, on_failure=on_failure)), tmp_path) as bench:
        use(bench, moderation)
        client = await bench.chat(model="support")()
        assert (client.status, client.error["code"]) == (400, "prompt_flagged")
        assert client.error["message"] == "The prompt was refused: flagged."


@pytest.mark.parametrize("why", [*BROKEN, "hangs"])
@pytest.mark.parametrize("on_failure", list(OnFailure))
@pytest.mark.parametrize("stage", ["prompts", "answers"])
async def test_a_guard_that_fails_refuses_or_allows_as_it_is_set(
    tmp_path: Path, moderation: Moderation, why: str, on_failure: OnFailure, stage: str
) -> None:
    guard = replace(ENDPOINT, on_failure=on_failure, timeout_s=0.05)
    guard = replace(guard, prompts=stage == "prompts", answers=stage == "answers")
    moderation.answer, moderation.hangs = BROKEN.get(why), why == "hangs"
    async with bench_of(guarded(guard), tmp_path) as bench:
        use(bench, moderation)
        client = await bench.chat(model="support")()
        if on_failure is OnFailure.ALLOW:
            assert client.status == 200
            assert bench.outcomes() == {("completed", "guard_failed"): 1}
        else:
            assert (client.status, client.error["code"]) == (503, "guard_unavailable")
            outcome = "rejected" if stage == "prompts" else "failed"
            assert bench.outcomes() == {(outcome, "guard_unavailable"): 1}


async def test_nobody_looks_at_other_tenants(bench: Bench, moderation: Moderation) -> None:
    says(bench, BAD)
    assert (await bench.chat("b", model="support", user=BAD)()).status == 200
    assert moderation.seen == []
    assert (await ask(bench, Kind.TOKENIZE, BAD)()).status == 200, "no model reads it"


UNREADABLE: dict[str, Any] = {
    "token ids": {"prompt": [1, 2]},
    "what reads as token ids": {"prompt": ["5", 2.0]},
    "texts that read as token ids": {"prompt": [["5", "600"]]},
    "a tensor beside a text": {"prompt": "x", "prompt_embeds": "AAAA"},
}


@pytest.mark.parametrize("fields", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_is_no_text_cannot_be_looked_at(bench: Bench, fields: dict[str, Any]) -> None:
    client = await bench.post("/v1/completions", {"model": "support", **fields})()
    assert (client.status, client.error["code"]) == (400, "prompt_not_text")
    assert bench.engines["shared-0"].seen == []


async def test_a_tenant_that_is_suspended_meanwhile_is_refused(bench: Bench, moderation: Moderation) -> None:
    now = bench.gateway.fleet.now
    of_a = replace(now.tenants["a"], suspended=True)

    def answer(texts: list[str]) -> httpx.Response:
        bench.gateway.fleet.replace(replace(now, tenants=now.tenants | {"a": of_a}))
        return httpx.Response(200, json={"results": [{"flagged": False}]})

    moderation.answer = answer
    assert (await bench.chat(model="support")()).status == 403
    assert bench.engines["shared-0"].seen == []


async def test_a_client_that_leaves_while_its_answer_is_looked_at(
    bench: Bench, moderation: Moderation
) -> None:
    says(bench, "a long enough answer")
    moderation.answer = lambda _: httpx.Response(200, json={"results": [{"flagged": False}]})
    client = bench.chat(model="support", stream=True).start()
    await eventually(lambda: bool(moderation.seen))
    moderation.hangs = True
    client.leave()
    await client.done()
    await eventually(lambda: bench.at_rest)


async def look(found: Sequence[str], *, of: str, tenant: str, model: str) -> list[str]:
    """A plugin: it flags a word in prompts of tenant a."""
    assert (tenant, model) == ("a", "support")
    return ["words"] if of == "prompt" and any(BAD in text for text in found) else []


async def test_a_plugin_looks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        @staticmethod
        def load() -> guards.Plugin:
            return look

    def installed(*, group: str, name: str) -> list[type[Entry]]:
        return [Entry] if (group, name) == ("tenantry.guards", "words") else []

    monkeypatch.setattr("importlib.metadata.entry_points", installed)
    for name, status in (("words", 200), ("absent", 503)):
        folder = tmp_path / name
        folder.mkdir()
        async with bench_of(guarded(Guard(OnFailure.REFUSE, plugin=name)), folder) as bench:
            assert (await ask(bench, Kind.CHAT, "a flower")()).status == status
            refused = await ask(bench, Kind.CHAT, BAD)()
            assert refused.status == (400 if status == 200 else 503)
            assert ("words" in refused.body.decode()) == (status == 200)
