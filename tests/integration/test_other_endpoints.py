"""Endpoints beside OpenAI's: metered as chats are; what only tokenizes costs nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.protocol import Kind
from fleet.money import PRICE_UNITS, Price, Prices
from fleet.types import Budget, Caps
from routing.openai.bodies import CONTROL
from routing.openai.endpoints import TOKENIZED_BYTES
from tests.fakes import Client, Send, key_of, respond, small_fleet
from tests.integration.conftest import Bench, bench_of

READ = [Kind.TOKENIZE, Kind.DETOKENIZE]
ALIASES = {"/v1/score": Kind.SCORE, "/v1/rerank": Kind.RERANK}
USAGE = {"prompt_tokens": 9, "total_tokens": 9}


def ask(bench: Bench, kind: Kind, tenant: str = "a", /, **fields: Any) -> Client:
    return bench.post(kind.value, {**CONTROL[kind], "model": "support", **fields}, tenant=tenant)


def used(bench: Bench, *names: str) -> list[float]:
    bench.gateway.ended.flush()
    lines = bench.gateway.metrics.page().decode().splitlines()
    return [
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"tenantry_{name}"))
        for name in names
    ]


TOKENS = ("prompt_tokens_total{", "completion_tokens_total{", "usage_estimated_total{")


@pytest.mark.parametrize(("path", "kind"), ALIASES.items())
async def test_an_endpoint_has_its_older_path_too(bench: Bench, path: str, kind: Kind) -> None:
    assert (await bench.post(path, {**CONTROL[kind], "model": "support"})()).status == 200


@pytest.mark.parametrize("kind", [Kind.POOLING, Kind.SCORE, Kind.RERANK, Kind.EMBEDDING])
async def test_what_the_engine_counted_is_metered(bench: Bench, kind: Kind) -> None:
    async def answer(body: dict[str, Any], send: Send) -> None:
        results = [{"index": 0, "document": {"text": ',"usage":{"prompt_tokens":1}}'}}]
        await respond(send, 200, {"id": "x", "model": body["model"], "usage": USAGE, "results": results})

    bench.engines["shared-0"].behave = answer
    client = await ask(bench, kind)()
    assert (client.status, client.json()["model"]) == (200, "support")
    assert used(bench, *TOKENS) == [9, 0, 0]


async def test_a_batch_of_chats_counts_as_many_sequences(tmp_path: Path) -> None:
    fleet = small_fleet(caps=Caps(max_concurrency=2))
    async with bench_of(fleet, tmp_path) as bench:
        chats = [[{"role": "user", "content": "x"}]] * 3
        refused = await ask(bench, Kind.CHAT_BATCH, messages=chats)()
        assert (refused.status, refused.error["code"]) == (400, "max_concurrency")
        assert (await ask(bench, Kind.CHAT_BATCH, messages=chats[:2])()).status == 200


@pytest.mark.parametrize("kind", READ)
async def test_what_only_tokenizes_is_no_usage(tmp_path: Path, kind: Kind) -> None:
    price = Price(1, 1, 1, slot_hour=PRICE_UNITS, engine_hour=PRICE_UNITS)
    fleet = small_fleet(caps=Caps(tokens_per_minute=100))
    of_a = replace(fleet.tenants["a"], budget=Budget(monthly_tokens=1))
    fleet = replace(fleet, prices=Prices("EUR", {"base": price}), tenants=fleet.tenants | {"a": of_a})
    async with bench_of(fleet, tmp_path) as bench:
        for _ in range(5):
            answer = await ask(bench, kind)()
            assert answer.status == 200
            assert answer.headers["x-ratelimit-remaining-tokens"] == "100"
            assert "x-tenantry-cost" not in answer.headers
        assert used(bench, *TOKENS) == [0, 0, 0]
        told = (await bench.get("/v1/usage", key=key_of("a"))()).json()
        assert (told["total"]["requests"], told["total"]["prompt_tokens"]) == (5, 0)
        assert float(told["total"]["cost"] or 0) == 0
        assert told["budget"]["used_tokens"] == 0


@pytest.mark.parametrize("kind", READ)
async def test_what_only_tokenizes_teaches_the_scheduler_nothing(bench: Bench, kind: Kind) -> None:
    group = bench.gateway.dispatcher.groups["shared", "base"]
    before = group.mean_completion_tokens["a"]
    await ask(bench, kind)()
    assert group.mean_completion_tokens["a"] == before
    await bench.chat("a")()
    assert group.mean_completion_tokens["a"] != before


@pytest.mark.parametrize("kind", READ)
async def test_a_body_that_is_only_tokenized_is_bounded(bench: Bench, kind: Kind) -> None:
    text = "x" * (TOKENIZED_BYTES + 1)
    refused = await ask(bench, kind, prompt=text)()
    assert (refused.status, refused.error["code"]) == (413, "body_too_large")
    assert bench.engines["shared-0"].seen == []


@pytest.mark.parametrize("kind", READ)
async def test_no_other_model_tokenizes_in_the_place_of_one(tmp_path: Path, kind: Kind) -> None:
    fleet = small_fleet()
    of_a = replace(fleet.tenants["a"], fallbacks={"support": "plain"})
    async with bench_of(replace(fleet, tenants=fleet.tenants | {"a": of_a}), tmp_path) as bench:
        bench.gateway.directory.remove(
            next(e.key for e in bench.gateway.directory.adapters() if e.key.name == "a-support")
        )
        assert (await ask(bench, Kind.CHAT)()).status == 200
        refused = await ask(bench, kind)()
        assert (refused.status, refused.error["code"]) == (503, "adapter_unavailable")


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (Kind.SCORE, {"queries": None}, "queries"),
        (Kind.SCORE, {"documents": []}, "documents"),
        (Kind.SCORE, {"queries": 7}, "queries"),
        (Kind.RERANK, {"documents": ["x"] * 3000}, "documents"),
        (Kind.RERANK, {"query": ""}, "query"),
        (Kind.RERANK, {"top_n": {}}, "top_n"),
        (Kind.TOKENIZE, {"prompt": ["x"]}, "prompt"),
        (Kind.TOKENIZE, {"prompt": None, "messages": "x"}, "messages"),
        (Kind.DETOKENIZE, {"tokens": "x"}, "tokens"),
        (Kind.DETOKENIZE, {"tokens": [None]}, "tokens[0]"),
        (Kind.POOLING, {"input": None}, "input"),
        (Kind.CHAT_BATCH, {"messages": [{"role": "user", "content": "x"}]}, "messages[0]"),
        (Kind.CHAT_BATCH, {"messages": [[{"role": "user", "content": "x"}]] * 2049}, "messages"),
        (Kind.CHAT_BATCH, {"prompt_logprobs": 1}, "prompt_logprobs"),
        (Kind.CHAT_BATCH, {"echo": True}, "echo"),
    ],
)
async def test_what_is_wrong_is_refused_before_an_engine_sees_it(
    bench: Bench, kind: Kind, fields: dict[str, Any], param: str
) -> None:
    refused = await ask(bench, kind, **fields)()
    assert (refused.status, refused.error["param"]) == (400, param)
    assert bench.engines["shared-0"].seen == []


@pytest.mark.parametrize("field", ["input", "messages"])
async def test_an_embedding_is_of_texts_or_of_one_conversation(bench: Bench, field: str) -> None:
    content: dict[str, Any] = {"input": "x", "messages": [{"role": "user", "content": "x"}]}
    answer = await bench.post(Kind.EMBEDDING.value, {"model": "plain", field: content[field]})()
    assert answer.status == 200
