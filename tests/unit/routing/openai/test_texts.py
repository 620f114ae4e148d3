"""Which texts are looked at? All that a model reads, and all that it writes, wherever a form has them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engines.protocol import Kind
from routing.openai import texts
from routing.openai.bodies import CONTROL
from routing.openai.endpoints import ENDPOINTS
from tests.fakes import sse

WORD = "the-word"
SAID = {"role": "user", "content": WORD}
PARTS = [{"type": "text", "text": WORD}]
CALL = {"id": "x", "type": "function", "function": {"name": "f", "arguments": WORD}}
TOOL = {"type": "function", "function": {"name": "f", "description": WORD, "parameters": {}}}
USE = {"type": "tool_use", "id": "x", "name": "f", "input": {"a": [WORD]}}
PROMPTS: list[tuple[Kind, dict[str, Any]]] = [
    (Kind.CHAT, {"messages": [SAID]}),
    (Kind.CHAT, {"messages": [{"role": "user", "content": PARTS}]}),
    (Kind.CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]}),
    (Kind.CHAT, {"messages": [{"role": "assistant", "content": "x", "reasoning_content": WORD}]}),
    (Kind.CHAT, {"tools": [TOOL]}),
    (
        Kind.CHAT,
        {"tools": [{"function": {"name": "f", "parameters": {"enum": [WORD]}}}]},
    ),
    (Kind.CHAT_BATCH, {"messages": [[{"role": "user", "content": "x"}], [SAID]]}),
    (Kind.COMPLETION, {"prompt": ["x", WORD]}),
    (Kind.RESPONSE, {"input": WORD}),
    (Kind.RESPONSE, {"instructions": WORD}),
    (Kind.RESPONSE, {"input": [{"type": "function_call_output", "call_id": "x", "output": WORD}]}),
    (Kind.RESPONSE, {"previous_input_messages": [SAID]}),
    (Kind.EMBEDDING, {"input": [WORD]}),
    (Kind.EMBEDDING, {"messages": [SAID]}),
    (Kind.POOLING, {"input": WORD}),
    (Kind.SCORE, {"queries": "x", "documents": [{"content": PARTS}]}),
    (Kind.SCORE, {"text_1": WORD, "text_2": "x"}),
    (Kind.RERANK, {"query": WORD, "documents": ["x"]}),
    (Kind.SCORE, {"instruction": WORD}),
    (Kind.RERANK, {"instruction": WORD}),
    (Kind.CHAT, {"chat_template_kwargs": {"a": [{"b": WORD}]}}),
    (Kind.RESPONSE, {"chat_template_kwargs": {"a": WORD}}),
    (Kind.CHAT, {"messages": [{"role": WORD, "content": "x"}]}),
    (Kind.CHAT, {"documents": [{"text": "x"}, {"snippet": WORD}]}),
    (Kind.MESSAGES, {"system": PARTS}),
    (Kind.MESSAGES, {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": PARTS}]}]}),
    (
        Kind.MESSAGES,
        {"messages": [{"role": "assistant", "content": [USE]}]},
    ),
]
ANSWERS: list[Any] = [
    {"choices": [{"message": {"role": "assistant", "content": WORD}}]},
    {"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]},
    {"choices": [{"message": {"content": "", "reasoning": WORD}}]},
    {"choices": [{"text": "x"}, {"text": WORD}]},
    {"output": [{"type": "message", "content": PARTS}]},
    {"output": [{"type": "function_call", "arguments": WORD}]},
    {"output": [{"type": "reasoning", "summary": PARTS}]},
    {"content": PARTS},
    {"content": [{"type": "tool_use", "input": {"a": WORD}}]},
]
EVENTS: list[Any] = [
    {"choices": [{"index": 0, "delta": {"content": WORD}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]},
    {"choices": [{"index": 1, "text": WORD}]},
    {"type": "response.output_text.delta", "delta": WORD},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": WORD}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": WORD}},
]


@pytest.mark.parametrize(("kind", "fields"), PROMPTS)
def test_what_a_model_reads(kind: Kind, fields: dict[str, Any]) -> None:
    assert WORD in " ".join(texts.of_prompt(CONTROL[kind] | fields, ENDPOINTS[kind]))


def test_switches_of_a_template_are_no_text() -> None:
    fields = {"chat_template_kwargs": {"enable_thinking": False, "budget": 7}}
    assert texts.of_prompt(CONTROL[Kind.CHAT] | fields, ENDPOINTS[Kind.CHAT]) == ["hi"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_model_writes(answer: Any) -> None:
    assert WORD in " ".join(texts.of_answer(orjson.dumps(answer)))


@pytest.mark.parametrize("event", EVENTS)
def test_what_a_stream_adds(event: Any) -> None:
    assert WORD in [text for _, text in texts.of_events(sse(event))]


def test_what_a_stream_repeats_at_its_end_adds_nothing() -> None:
    for event in (
        {"type": "response.output_text.done", "text": WORD},
        {"type": "response.completed", "response": {"output": [{"content": PARTS}]}},
    ):
        assert list(texts.of_events(sse(event))) == []


def test_texts_of_several_choices_are_told_apart() -> None:
    one, two = ({"choices": [{"index": i, "delta": {"content": "x"}}]} for i in (0, 1))
    assert len({of for event in (one, two) for of, _ in texts.of_events(sse(event))}) == 2


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"null", b'{"choices": 7, "content": {"a": 1}}'])
def test_what_is_no_answer_has_no_text(body: bytes) -> None:
    assert texts.of_answer(body) == []
    assert list(texts.of_events(b"data: " + body + b"\n\n: comment\n\n")) == []
