"""Anthropic's streams: what is metered and renamed, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.protocol import Kind
from fleet.types import MediaTokens, RequestLimits
from routing.errors import (
    BodyTooLarge,
    CapReached,
    Forbidden,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    OverLimit,
    RequestError,
    Unavailable,
)
from routing.openai.answers import TokenUsage, usage_in
from routing.openai.bodies import parse
from routing.openai.events import EventStream
from routing.openai.limits import check
from routing.types import Target
from tests.fakes import stream_events
from tests.messages import CACHED, PIECES, READ, event, events, message

TARGET = Target("a", "support", "a-support", "base", "shared", 1, "a-support")
EVENTS = events("a-support")
WHOLE = b"".join(EVENTS)
COUNTED = TokenUsage(READ + CACHED, len(PIECES), CACHED)
MANY = {"enum": ["x" * 9] * 99_999}
ASKED = {"messages": [{"role": "user", "content": "x" * 40}], "max_tokens": 9, "stream": True}


def follow() -> EventStream:
    return EventStream(parse(Kind.MESSAGES, orjson.dumps(ASKED)), TARGET, 9)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=30))
def test_a_stream_is_metered_and_renamed_wherever_its_bytes_are_cut(edges: list[int]) -> None:
    stream, cuts = follow(), [0, *sorted(edges), len(WHOLE)]
    out = b"".join(stream.feed(WHOLE[a:b]) for a, b in pairwise(cuts))
    assert (stream.tokens(), stream.complete, stream.failed) == (COUNTED, True, False)
    assert out.count(b"\n\n") == len(EVENTS)
    first, *others = out.split(b"\n\n")
    assert json.loads(first.partition(b"data: ")[2])["message"]["model"] == "support"
    assert others[:-1] == [each.removesuffix(b"\n\n") for each in EVENTS[1:]]


@pytest.mark.parametrize("number", range(len(EVENTS) - 2))
def test_one_that_breaks_off_has_the_prompt_as_it_was_counted_and_an_event_for_a_token(number: int) -> None:
    stream = follow()
    stream.feed(b"".join(EVENTS[: number + 1]))
    brought = min(max(0, number - 1), len(PIECES))
    assert stream.tokens() == TokenUsage(READ + CACHED, brought, estimated=True)
    assert stream.begun is (number > 0), "its first event announces, and others may still be asked"


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_ends_it_and_its_words_go_no_further(begun: bool) -> None:
    stream = follow()
    stream.feed(EVENTS[0] + (EVENTS[1] if begun else b""))
    error = event("error", error={"type": "internal_error", "message": "/secret/path"})
    assert stream.feed(error + EVENTS[-1]) == b""
    assert stream.failed and not stream.complete


def test_a_ping_is_passed_on_and_begins_nothing() -> None:
    stream = follow()
    assert stream.feed(event("ping")) == event("ping") and not stream.begun


def test_what_the_model_says_is_no_event() -> None:
    stream = follow()
    text = 'event: message_stop\n\n{"model":"a-support"}event: error\n'
    said = event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    assert stream.feed(EVENTS[0] + said).endswith(said) and not stream.complete and not stream.failed


def test_a_whole_answer_has_its_usage() -> None:
    assert usage_in(orjson.dumps(message("a-support"))) == COUNTED


@pytest.mark.filterwarnings("ignore")  # of what vLLM imports
def test_vllms_own_events_are_understood() -> None:
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

    async def chunks() -> AsyncIterator[str]:
        for number, chunk in enumerate(stream_events("a-support", list(PIECES), running=True)):
            yield chunk.decode().replace('"id": "x"', f'"id": "{number}", "created": 1')

    async def converted() -> bytes:
        made = AnthropicServingMessages.message_stream_converter(None, chunks())
        return "".join([text async for text in made]).encode()

    stream = follow()
    out = stream.feed(asyncio.run(converted()))
    assert stream.complete and not stream.failed and b'"model":"support"' in out
    assert (stream.tokens().prompt_tokens, stream.tokens().completion_tokens) == (7, len(PIECES))


def test_the_system_prompt_and_the_user_are_read_where_this_form_has_them() -> None:
    fields = {**ASKED, "system": [{"type": "text", "text": "x" * 40}], "metadata": {"user_id": "u"}}
    call = parse(Kind.MESSAGES, orjson.dumps(fields))
    assert (call.size.tokens(MediaTokens()), call.user, call.max_completion_tokens) == (20, "u", 9)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop_sequences": ["x"] * 200}, "stop_sequences"),
        ({"output_config": {"format": {"schema": MANY}}}, "output_config.format.schema"),
        ({"tools": [{"name": "f", "input_schema": {}}] * 3000}, "tools"),
    ],
)
def test_what_asks_for_too_much_is_refused(fields: dict[str, object], param: str) -> None:
    with pytest.raises(OverLimit) as refused:
        check({**ASKED, **fields}, RequestLimits(), content="messages", prompts=1, size_bytes=10**7)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (InvalidKey("x"), "authentication_error"),
        (Forbidden("x"), "permission_error"),
        (ModelNotFound("x"), "not_found_error"),
        (BodyTooLarge("x"), "request_too_large"),
        (CapReached("x"), "rate_limit_error"),
        (Unavailable("x"), "overloaded_error"),
        (RequestError("x"), "api_error"),
    ],
)
def test_an_error_has_anthropics_name(error: RequestError, kind: str) -> None:
    shown = {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "r"}
    assert json.loads(error.anthropic_body("r")) == shown
