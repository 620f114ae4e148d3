"""How many tokens is a body taken for? Only what a model reads counts, and never more than it can read."""

from __future__ import annotations

import base64
import string
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.protocol import Kind
from fleet.types import MediaTokens
from routing.errors import InvalidRequest
from routing.openai.bodies import CONTROL, _required, _size, parse, refuse_too_long
from routing.openai.endpoints import ENDPOINTS
from routing.openai.prompts import longest

MEDIA = MediaTokens(image=1000, audio=500, video=4000)
LONG = "x" * 400_000
PICTURE = "data:image/png;base64," + base64.b64encode(bytes(300_000)).decode()


# What vLLM takes for 50 token ids of one or two prompts.
TOKEN_IDS: list[list[Any]] = [
    *([1.0] + [7] * 49, [True] + [7] * 49, ["5"] + [7] * 49, ["5"] * 49 + [7.0]),
    *([["5"] * 50], [[1.0] + [7] * 49], [["5"] * 25, [True] * 25], [[], [7] * 50]),
]


def tokens(kind: Kind, **fields: Any) -> int:
    """Estimate a body whatever the types of its other fields, which are checked elsewhere."""
    return _size(kind, fields, _required(fields, ENDPOINTS[kind])).tokens(MEDIA)


def chat(content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


PLAIN: dict[Kind, dict[str, Any]] = {
    Kind.CHAT: chat("x" * 40),
    Kind.COMPLETION: {"prompt": "x" * 40},
    Kind.EMBEDDING: {"input": "x" * 40},
    Kind.RESPONSE: {"input": "x" * 40},
    Kind.CHAT_BATCH: {"messages": [chat("x" * 20)["messages"]] * 2},
    Kind.POOLING: {"input": "x" * 40},
    Kind.SCORE: {"queries": "x" * 10, "documents": ["x" * 10, {"content": [{"text": "x" * 10}]}]},
    Kind.RERANK: {"query": "x" * 10, "documents": ["x" * 10] * 2},
    Kind.TOKENIZE: {"prompt": "x" * 40},
    Kind.MESSAGES: chat("x" * 20, system="x" * 20, max_tokens=1),
    Kind.COUNT_TOKENS: chat("x" * 40),
}


@pytest.mark.parametrize("kind", list(PLAIN))
@pytest.mark.parametrize(
    "field",
    [
        "some_client_metadata",
        "metadata",
        "user",
        "response_format",
        "stop",
        "structured_outputs",
        "logit_bias",
    ],
)
@pytest.mark.parametrize("value", [LONG, [LONG], {"deep": {"deeper": LONG}}], ids=["text", "list", "object"])
def test_fields_that_no_model_reads_count_nothing(kind: Kind, field: str, value: Any) -> None:
    assert tokens(kind, **PLAIN[kind], **{field: value}) == 10


@given(
    name=st.text(string.ascii_lowercase + "_", min_size=1, max_size=20).filter(
        lambda n: n not in {"messages", "prompt", "input", "instructions", "tools", "model", "n", "stream"}
    ),
    kind=st.sampled_from(list(PLAIN)),
)
def test_no_unknown_field_counts(name: str, kind: Kind) -> None:
    assert tokens(kind, **{**PLAIN[kind], "x_" + name: LONG[:4000]}) == 10


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": PICTURE}}, MEDIA.image),
        ({"type": "input_image", "image_url": PICTURE}, MEDIA.image),
        ({"image_url": PICTURE}, MEDIA.image),
        ({"type": "image_embeds", "image_embeds": PICTURE}, MEDIA.image),
        ({"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}}, MEDIA.audio),
        ({"type": "audio_url", "audio_url": {"url": PICTURE}}, MEDIA.audio),
        ({"type": "video_url", "video_url": {"url": PICTURE}}, MEDIA.video),
        ({"type": "text", "text": "x" * 40}, 10),
        ({"type": "input_text", "text": "x" * 40}, 10),
        ({"type": "text", "text": "x" * 40, "cache_control": LONG}, 10),
        ({"type": "refusal", "refusal": "x" * 40}, 10),
    ],
)
def test_a_part_counts_for_what_it_is_and_not_for_its_bytes(part: dict[str, Any], expected: int) -> None:
    assert tokens(Kind.CHAT, **chat([part])) == expected
    assert tokens(Kind.CHAT, **chat([part, part])) == 2 * expected
    assert tokens(Kind.RESPONSE, input=[{"role": "user", "content": [part]}]) == expected


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (Kind.COMPLETION, {"prompt": [1000] * 50}, 50),
        (Kind.COMPLETION, {"prompt": [[1000] * 50, [1] * 30]}, 80),
        (Kind.COMPLETION, {"prompt": ["x" * 40, "x" * 80]}, 30),
        (Kind.EMBEDDING, {"input": [100_000] * 50}, 50),
        (Kind.EMBEDDING, {"input": [[1] * 10, "x" * 40]}, 20),
        *(
            (kind, {name: prompt}, 50)
            for kind, name in (
                (Kind.COMPLETION, "prompt"),
                (Kind.EMBEDDING, "input"),
                (Kind.POOLING, "input"),
            )
            for prompt in TOKEN_IDS
        ),
        (Kind.EMBEDDING, {"input": [{"role": "user", "content": "x" * 40}]}, 10),
        (Kind.RESPONSE, {"input": "x" * 40, "instructions": "x" * 40}, 20),
        (
            Kind.RESPONSE,
            {"input": [{"type": "function_call_output", "call_id": LONG, "output": "x" * 40}]},
            10,
        ),
        (Kind.RESPONSE, {"input": [{"type": "function_call", "name": "abcd", "arguments": "x" * 36}]}, 10),
        (Kind.CHAT, {"messages": [{"role": "tool", "tool_call_id": LONG, "content": "x" * 40}]}, 10),
        (Kind.CHAT, {"messages": ["x" * 40, 1, None, {"role": LONG}]}, 10),
        (Kind.EMBEDDING, {"messages": [[{"role": "user", "content": "x" * 40}]] * 3}, 30),
    ],
)
def test_prompts_of_every_form_are_measured(kind: Kind, fields: dict[str, Any], expected: int) -> None:
    assert tokens(kind, **fields) == expected


@pytest.mark.parametrize("prompt", TOKEN_IDS)
def test_whatever_reads_as_a_number_is_a_token_id(prompt: list[Any]) -> None:
    call = parse(Kind.COMPLETION, orjson.dumps({"prompt": prompt}))
    assert (call.size.token_ids, call.size.text_bytes) == (50, 0)
    assert call.sequences == (len(prompt) if type(prompt[0]) is list else 1)


def test_calls_of_tools_and_tools_are_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "abcd", "arguments": "x" * 36}}
    assert tokens(Kind.CHAT, messages=[{"role": "assistant", "content": None, "tool_calls": [call]}]) == 10
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert tokens(Kind.CHAT, **chat("x" * 40), tools=tools) == (40 + len(orjson.dumps(tools))) // 4


@pytest.mark.parametrize(
    ("text", "expected"), [("й" * 40, 20), ("語" * 40, 30), ("😀" * 40, 40), ("é" * 40, 20)]
)
@pytest.mark.parametrize("escaped", [False, True])
def test_text_in_other_scripts_counts_the_same_however_it_is_escaped(
    text: str, expected: int, escaped: bool
) -> None:
    import json

    body = json.dumps(chat(text), ensure_ascii=escaped).encode()
    assert parse(Kind.CHAT, body).size.tokens(MEDIA) == expected


WORDS = "word " * 4000  # 20 000 characters


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.CHAT, chat(WORDS)),
        (Kind.CHAT, {"messages": [{"role": "system", "content": WORDS[:9000]}] * 2}),
        (Kind.COMPLETION, {"prompt": WORDS}),
        (Kind.COMPLETION, {"prompt": ["x", WORDS]}),
        (Kind.COMPLETION, {"prompt": [1] * 2000}),
        (Kind.COMPLETION, {"prompt": [[1], [1] * 2000]}),
        (Kind.EMBEDDING, {"input": [1] * 2000}),
        (Kind.EMBEDDING, {"input": [WORDS, "x"]}),
        (Kind.RESPONSE, {"input": WORDS}),
        (Kind.RESPONSE, {"input": [{"role": "user", "content": WORDS}]}),
    ],
)
def test_what_is_surely_too_long_is_refused_with_vllms_words(kind: Kind, fields: dict[str, Any]) -> None:
    asked = parse(kind, orjson.dumps(fields))
    with pytest.raises(InvalidRequest, match="maximum context length is 1000 tokens") as refused:
        refuse_too_long(asked, 1000, 16)
    assert (refused.value.param, refused.value.code) == (asked.content, "context_length_exceeded")
    refuse_too_long(asked, 2000, 16)
    truncated = parse(kind, orjson.dumps({**fields, "truncate_prompt_tokens": 100}))
    refuse_too_long(truncated, 1000, 16)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.CHAT, chat(WORDS[:16_000])),
        (Kind.CHAT, chat("x", x_unknown=WORDS)),
        (
            Kind.CHAT,
            {"messages": [{"role": "assistant", "content": WORDS}]},
        ),
        (Kind.CHAT, chat([{"type": "image_url", "image_url": {"url": WORDS}}])),
        (Kind.COMPLETION, {"prompt": ["x" * 100] * 1000}),
        (Kind.COMPLETION, {"prompt": [[1] * 1000] * 10}),
    ],
)
def test_what_only_may_be_too_long_is_the_engines_to_judge(kind: Kind, fields: dict[str, Any]) -> None:
    refuse_too_long(parse(kind, orjson.dumps(fields)), 1000, 16)


def test_of_a_vocabulary_that_is_not_known_no_text_is_too_long() -> None:
    refuse_too_long(parse(Kind.CHAT, orjson.dumps(chat(LONG))), 1000, 0)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "image_url", "tool_calls", "function", "output"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(list(CONTROL)), st.lists(json_values, min_size=1, max_size=4), json_values)
def test_nothing_that_a_client_sends_breaks_the_estimate(kind: Kind, content: list[Any], tools: Any) -> None:
    names = ENDPOINTS[kind].usual
    size = _size(kind, {**dict.fromkeys(names, content), "tools": tools, "instructions": tools}, names)
    assert size.tokens(MEDIA) >= 1 and size.prompts >= 1
    assert longest(content, 8) >= 0
