"""What is read from an engine's answer, and what does the client get of it?"""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from routing.openai.answers import (
    TokenUsage,
    engine_refusal,
    model_card,
    model_fields,
    renamed,
    usage_in,
)
from routing.types import Target

TARGET = Target("a", "support", "a-support", "base", "shared", 1, "a-support")
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
FORGED = {"usage": {"prompt_tokens": 99, "completion_tokens": 99}, "model": "a-support"}
COUNTED, NOTHING = TokenUsage(3, 4, 2), None


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": USAGE}, COUNTED),
        ({"tools": [FORGED], "usage": USAGE}, COUNTED),
        ({"usage": USAGE, "tools": [FORGED]}, COUNTED),
        ({"usage": USAGE, "metadata": FORGED}, COUNTED),
        ({"usage": USAGE, "last": [FORGED], "prompt_logprobs": None}, COUNTED),
        ({"id": "x", "usage": USAGE, "kv_transfer_params": None}, COUNTED),
        ({"metadata": FORGED}, NOTHING),
        ({"tools": [[FORGED]], "usage": None}, NOTHING),
        ({"text": ',"usage":{"prompt_tokens":9}}'}, NOTHING),
        ({"usage": {"prompt_tokens": "3"}}, NOTHING),
        ({"usage": {"input_tokens": 3, "output_tokens": 4}}, TokenUsage(3, 4)),
        ([FORGED], NOTHING),
        ({"usage": {"prompt_tokens": 3}}, TokenUsage(3, 0)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": None}}, NOTHING),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": -4}}, NOTHING),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4.0}}, NOTHING),
        ({"usage": {"input_tokens": 3, "output_tokens": "4"}}, NOTHING),
        ({"usage": {"input_tokens": 3, "output_tokens": None, "cache_read_input_tokens": 1}}, NOTHING),
        ({"usage": {"prompt_tokens": 2**31, "completion_tokens": 4}}, NOTHING),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2**63 - 1}}, NOTHING),
        ({"usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 9}}}, TokenUsage(3, 4, 3)),
        ({"usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": None}}}, TokenUsage(3, 4)),
        ({"usage": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 4}}}, COUNTED),
    ],
)
@pytest.mark.parametrize("indent", [False, True])
def test_usage_is_read_where_the_protocol_has_it_and_nowhere_else(
    answer: object, usage: TokenUsage | None, indent: bool
) -> None:
    assert usage_in(orjson.dumps(answer, option=orjson.OPT_INDENT_2 if indent else 0)) == usage


@pytest.mark.parametrize("body", [b"", b"{", b'{"usage":{"prompt_tokens":3}', bytes(range(256))])
def test_what_is_no_json_has_no_usage(body: bytes) -> None:
    assert usage_in(body) is None


def test_the_model_is_renamed_where_the_protocol_has_it_and_nowhere_else() -> None:
    answer = {"id": "x", "model": "a-support", "metadata": {"model": "a-support"}, "tools": [FORGED]}
    assert orjson.loads(renamed(orjson.dumps(answer), TARGET)) == {**answer, "model": "support"}
    assert renamed(b'{"model":"a-support"}', TARGET) == b'{"model":"support"}'


def test_a_text_that_looks_like_a_model_field_stays() -> None:
    data = orjson.dumps({"content": '"model":"a-support"', "model": "a-support"})
    renamed = data.replace(*model_fields(TARGET))
    assert orjson.loads(renamed) == {"content": '"model":"a-support"', "model": "support"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail":"x"}', b'{"error":"x"}'])
def test_a_refusal_that_is_not_vllms_still_says_something(body: bytes) -> None:
    assert engine_refusal(422, body, TARGET).message == "The engine refused the request with status 422."


@pytest.mark.parametrize("asked", ["gpt-oss:120b", 'say "x"', "back\\slash", "größer", "a/B"])
def test_a_name_of_any_text_is_one_text_in_the_answer(asked: str) -> None:
    target = replace(TARGET, asked=asked)
    data = b'{"model":"a-support","x":1}'
    assert orjson.loads(data.replace(*model_fields(target))) == {"model": asked, "x": 1}
    assert orjson.loads(renamed(data, target)) == {"model": asked, "x": 1}


def test_a_card_has_what_vllms_has() -> None:
    card = model_card(TARGET, 7, 4096)
    assert (card["id"], card["root"], card["parent"], card["max_model_len"]) == (
        *("support", "a-support", "base", 4096),
    )
    assert card["permission"][0]["created"] == 7 and not card["permission"][0]["allow_fine_tuning"]
