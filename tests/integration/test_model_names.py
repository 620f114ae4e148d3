"""A tenant's names for models are its own: what other servers call theirs, everywhere a name may stand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet.types import Fleet
from routing.observing.metrics.definitions import REQUESTS
from tests.fakes import Send, key_of, respond, small_fleet
from tests.integration.conftest import Bench, bench_of

NAMES = ("meta-llama/Llama-3.1-8B-Instruct", "gpt-oss:120b", "Support", 'say "x" \\ {y}', "größer", "a;b c")


def fleet() -> Fleet:
    made = small_fleet()
    models = {name: "a-support" if number % 2 else "base" for number, name in enumerate(NAMES)}
    of_a = replace(made.tenants["a"], models=models, default_model=NAMES[0], fallbacks={NAMES[1]: NAMES[0]})
    return replace(made, tenants=made.tenants | {"a": of_a})


@pytest.fixture(name="bench")
async def bench_fixture(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_of(fleet(), tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_answers_under_its_name(bench: Bench, name: str) -> None:
    whole = await bench.chat("a", model=name)()
    assert (whole.status, whole.json()["model"]) == (200, name)
    assert whole.headers["x-tenantry-model"].isascii()
    streamed = await bench.chat("a", model=name, stream=True)()
    events = [event.removeprefix(b"data: ") for event in streamed.body.split(b"\n\n")[:-2]]
    assert {orjson.loads(event)["model"] for event in events} == {name}
    assert (await bench.chat("b", model=name)()).status == 404


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_card_is_found_by_its_name_in_the_path(bench: Bench, name: str, slash: str) -> None:
    card = (await bench.get(f"/v1/models/{name}{slash}", key=key_of("a"))()).json()
    assert (card["id"], card["object"]) == (name, "model")
    foreign = await bench.get(f"/v1/models/{name}", key=key_of("b"))()
    assert (foreign.status, foreign.error["code"]) == (404, "model_not_found")


async def test_the_list_has_what_vllms_has_and_no_path(bench: Bench) -> None:
    bench.engines["shared-0"].max_model_len = 4096
    cards = (await bench.get("/v1/models", key=key_of("a"))()).json()["data"]
    assert [card["id"] for card in cards] == list(NAMES)
    for card in cards:
        assert {"root", "parent", "max_model_len", "permission"} <= card.keys()
        assert "/" not in card["root"]
        assert card["permission"][0]["object"] == "model_permission"


async def test_a_card_says_how_much_the_model_reads(tmp_path: Path) -> None:
    made = fleet()
    base = replace(made.base_models["base"], max_model_len=2048)
    async with bench_of(replace(made, base_models={"base": base}), tmp_path) as bench:
        cards = (await bench.get("/v1/models", key=key_of("a"))()).json()["data"]
        assert {card["max_model_len"] for card in cards} == {2048}


async def test_metrics_have_each_name_as_it_is(bench: Bench) -> None:
    for name in NAMES:
        await bench.chat("a", model=name)()
    bench.gateway.ended.flush()
    page = bench.gateway.metrics.page().decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    named = {sample.labels["model"] for sample in samples if sample.name == REQUESTS.sample}
    assert named == set(NAMES)


async def test_another_alphabet_stands_in_a_header_as_in_a_url(bench: Bench) -> None:
    answer = await bench.chat("a", model="größer")()
    assert answer.headers["x-tenantry-model"] == quote("größer")


@pytest.mark.parametrize("name", NAMES)
async def test_embeddings_in_bytes_have_the_name_in_a_header(bench: Bench, name: str) -> None:
    async def answer(body: dict[str, Any], send: Send) -> None:
        told = {
            "model": body["model"],
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
            "data": [{"end": 4}],
        }
        more = {"metadata": json.dumps(told), "content-type": "application/octet-stream"}
        await respond(send, 200, 0, more)

    bench.engines["shared-0"].behave = answer
    client = await bench.post("/v1/embeddings", {"model": name, "input": "x", "encoding_format": "bytes"})()
    told = client.headers["metadata"]
    assert (client.status, client.body, told.isascii()) == (200, b"0", True)
    assert (json.loads(told)["model"], json.loads(told)["data"]) == (name, [{"end": 4}])
    used = (await bench.get("/v1/usage", key=key_of("a"))()).json()
    assert used["total"]["prompt_tokens"] == 9


async def test_usage_is_by_name(bench: Bench) -> None:
    await bench.chat("a", model=NAMES[0])()
    told = (await bench.get("/v1/usage?group_by=model", key=key_of("a"))()).json()
    assert [line["model"] for line in told["data"]] == [NAMES[0]]
