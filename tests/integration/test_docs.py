"""The document of the inference API against what the gateway answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engines.protocol import Kind
from routing.http.docs import BENTOML_PATH, OPENAPI_PATH
from routing.http.docs.openapi import document
from routing.openai.bodies import CONTROL
from routing.openai.endpoints import ENDPOINTS
from tests.fakes import Client, key_of
from tests.integration.conftest import Bench

DOCUMENT = document()


def matches(answer: Client, where: dict[str, Any]) -> bool:
    """Whether the answer is of the schema that the document gives for its status."""
    response = where["responses"][str(answer.status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"]["application/json"]["schema"]
    whole = {**schema, "components": DOCUMENT["components"]}
    return Draft202012Validator(whole).is_valid(json.loads(answer.body))


@pytest.mark.parametrize(
    ("accept", "where"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "/console"),
        ("*/*", "/docs"),
        ("application/json", "/docs"),
        (None, "/docs"),
    ],
)
async def test_a_browser_is_led_to_the_console_and_others_to_the_page(
    bench: Bench, accept: str | None, where: str
) -> None:
    headers = [("accept", accept)] if accept else []
    answer = await Client(bench.gateway.app, "/", method="GET", headers=headers)()
    assert (answer.status, answer.headers["location"], answer.body) == (307, where, b"")


@pytest.mark.parametrize("path", [OPENAPI_PATH, BENTOML_PATH])
async def test_the_document_needs_no_key(bench: Bench, path: str) -> None:
    answer = await bench.get(path)()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == DOCUMENT


def models_of(told: dict[str, Any]) -> set[str]:
    """The models that a document's examples name."""
    posts = [where["post"].get("requestBody", {}) for where in told["paths"].values() if "post" in where]
    examples = [body["content"].get("application/json", {}).get("example", {}) for body in posts if body]
    return {example["model"] for example in examples if "model" in example}


async def test_with_a_key_the_document_names_its_own_models_and_those_of_nobody_else(bench: Bench) -> None:
    for tenant in ("a", "b"):
        answer = await bench.get(OPENAPI_PATH, key=key_of(tenant))()
        told = json.loads(answer.body)
        listed = json.loads((await bench.get("/v1/models", key=key_of(tenant))()).body)["data"]
        names = told["paths"]["/v1/models/{id}"]["get"]["parameters"][0]["schema"]["examples"]
        assert sorted(names) == sorted(card["id"] for card in listed)
        assert models_of(told) == {names[0]} and told["paths"].keys() == DOCUMENT["paths"].keys()
        assert answer.headers["cache-control"] == "no-store"
        for kind in CONTROL:
            example = told["paths"][kind.value]["post"]["requestBody"]["content"]["application/json"][
                "example"
            ]
            assert (await bench.post(kind.value, example, tenant=tenant)()).status == 200


async def test_an_operator_has_no_models_and_nobody_s_key_is_refused(bench: Bench) -> None:
    assert json.loads((await bench.get(OPENAPI_PATH, key=key_of("operator"))()).body) == DOCUMENT
    assert (await bench.get(OPENAPI_PATH, key="nobody's")()).status == 401


@pytest.mark.parametrize("kind", list(CONTROL))
async def test_the_example_of_an_endpoint_is_answered(bench: Bench, kind: Kind) -> None:
    where = DOCUMENT["paths"][kind.value]["post"]
    example = where["requestBody"]["content"]["application/json"]["example"]
    assert (await bench.post(kind.value, example)()).status == 200
    del example[ENDPOINTS[kind].usual[0]]
    refused = await bench.post(kind.value, example)()
    assert refused.status == 400 and matches(refused, where)


@pytest.mark.parametrize(
    ("path", "described"),
    [("/v1/models", "/v1/models"), ("/v1/models/support", "/v1/models/{id}"), ("/v1/usage", "/v1/usage")],
)
async def test_what_is_read_has_the_shape_that_is_described(bench: Bench, path: str, described: str) -> None:
    where = DOCUMENT["paths"][described]["get"]
    for key, status in ((key_of("a"), 200), ("nobody's", 401)):
        answer = await bench.get(path, key=key)()
        assert answer.status == status
        assert matches(answer, where)


async def test_a_refusal_is_described_whatever_is_wrong(bench: Bench) -> None:
    where = DOCUMENT["paths"][Kind.CHAT.value]["post"]
    text = [("content-type", "text/plain")]
    authorization = [("authorization", f"Bearer {key_of('a')}")]
    refusals = [
        bench.chat(model="nobody's"),
        bench.chat(model="support", n=1000),
        bench.get(Kind.CHAT.value, key=key_of("a")),
        Client(bench.gateway.app, Kind.CHAT.value, body=b"{}", headers=[*text, *authorization]),
        bench.post(Kind.CHAT.value, b" " * (5 * 2**20)),
    ]
    answers = [await refusal() for refusal in refusals]
    assert [answer.status for answer in answers] == [404, 400, 405, 415, 413]
    assert all(matches(answer, where) for answer in answers)
