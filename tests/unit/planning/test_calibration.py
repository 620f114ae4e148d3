"""Calibration: what it sends, what it makes of the answers, and of engines that answer otherwise."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from planning.calibration import Extent, calibrate, loads
from planning.requests import DemandError
from planning.served import Served

SMALL = Extent(longest=64, batches=(1, 4), tokens=5, repeats=1)


def event(**content: object) -> str:
    return f"data: {json.dumps(content)}\n\n"


def whole(request: httpx.Request) -> httpx.Response:
    """An engine whose words take two tokens."""
    asked = json.loads(request.content)
    tokens = asked["max_tokens"]
    assert asked["min_tokens"] == tokens
    assert asked["ignore_eos"]
    usage = {
        "prompt_tokens": 2 * len(asked["prompt"].split()),
        "completion_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    lines = [event(choices=[{"text": "x"}])] * tokens + [event(choices=[], usage=usage), "data: [DONE]\n\n"]
    return httpx.Response(200, text="".join([": comment\n\n", "data: {broken\n\n", *lines]))


async def sent(handle: Callable[[httpx.Request], httpx.Response], *models: str) -> Served:
    transport = httpx.MockTransport(handle)
    async with httpx.AsyncClient(base_url="http://gateway", transport=transport) as client:
        return await calibrate(
            client, models, models[1:], extent=SMALL, seed=1, progress=lambda done, of: None
        )


def test_prompts_are_tried_alone_then_batches_then_more_and_more_adapters() -> None:
    planned = list(loads(["base", "a", "b", "c"], SMALL))
    assert [load.prompt for load in planned[:10]] == [8, 8, 16, 32, 64] * 2
    assert [load.models for load in planned[:10]] == [("base",)] * 5 + [("a",)] * 5
    assert [len(load.models) for load in planned[10:12]] == [1, 4]
    assert [Counter(load.models) for load in planned[12:]] == [
        {"base": 2, "a": 2},
        {"base": 1, "a": 1, "b": 1, "c": 1},
    ]


async def test_every_answer_becomes_a_row_with_its_tokens_and_first_token() -> None:
    prompts: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        prompts.append(json.loads(request.content)["prompt"])
        return whole(request)

    served = await sent(handle, "base", "a")
    assert len(served) == 5 + 5 + 1 + 4 + 4
    assert set(served.adapter) == {"", "a"}
    assert sorted(served.fresh)[-1] == pytest.approx(64 - 2, abs=10)  # a word's tokens are found out first
    assert served.completion[-1] == 5
    assert all(0 < first <= run for first, run in zip(served.first_s, served.run_s, strict=True))
    assert len(set(prompts)) == len(prompts)  # no prefix cache answers


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (httpx.Response(404, text="no such model"), "base answers with status 404: no such model"),
        (httpx.Response(200, text="data: [DONE]\n\n"), "without saying its tokens"),
        (httpx.Response(200, text="<html>"), "without saying its tokens"),
    ],
)
async def test_an_engine_that_answers_otherwise_ends_it(answer: httpx.Response, what: str) -> None:
    with pytest.raises(DemandError, match=what):
        await sent(lambda _: answer, "base")


async def test_a_gateway_that_does_not_answer_ends_it() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(DemandError, match="base does not answer: refused"):
        await sent(refuse, "base")


async def test_so_many_models_cannot_be_measured_at_once() -> None:
    with pytest.raises(DemandError, match="1 to 64 models"):
        await sent(whole, *(f"m{number}" for number in range(65)))
