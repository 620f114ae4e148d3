"""What passes through a stream, however its bytes are cut?"""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.protocol import Kind
from routing.openai.answers import MOST_TOKENS, TokenUsage
from routing.openai.bodies import parse
from routing.openai.events import EventStream
from routing.types import Target
from tests.fakes import chunk, sse, stream_events

TARGET = Target("a", "support", "a-support", "base", "shared", 1, "a-support")
PIECES = ["I ", "am ", "here"]
EVENTS = stream_events("a-support", PIECES)
COUNTED = stream_events("a-support", PIECES, running=True)
WHOLE = b"".join(EVENTS)
SEEN = (b"".join(EVENTS[:-2]) + EVENTS[-1]).replace(b'"model":"a-support"', b'"model":"support"')


def follow(kind: Kind = Kind.CHAT, **fields: object) -> EventStream:
    import orjson

    content: dict[Kind, dict[str, object]] = {Kind.CHAT: {"messages": [{}]}, Kind.COMPLETION: {"prompt": "x"}}
    body = {**content.get(kind, {"input": "x"}), "stream": True, **fields}
    return EventStream(parse(kind, orjson.dumps(body)), TARGET, 9)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=40))
def test_chunk_edges_make_no_difference(edges: list[int]) -> None:
    stream, cuts = follow(), [0, *sorted(edges), len(WHOLE)]
    out = b"".join(stream.feed(WHOLE[a:b]) for a, b in pairwise(cuts))
    assert out == SEEN
    assert stream.complete and not stream.failed
    assert stream.usage == TokenUsage(7, 3)


@given(st.lists(st.integers(0, sum(map(len, COUNTED))), max_size=40))
def test_running_counts_are_taken_out_wherever_the_bytes_are_cut(edges: list[int]) -> None:
    whole = b"".join(COUNTED)
    stream, cuts = follow(), [0, *sorted(edges), len(whole)]
    assert b"".join(stream.feed(whole[a:b]) for a, b in pairwise(cuts)) == SEEN
    assert (stream.tokens(), stream.events) == (TokenUsage(7, 3), len(EVENTS) - 1)


@pytest.mark.parametrize(
    "tail",
    [
        b',"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b',"usage":{"prompt_tokens":7,"completion_tokens":3},"later":{"a":1}}',
        b',"usage":{"prompt_tokens":7,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens":3}}',
        b',"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}',
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_running_count_is_taken_out_wherever_it_stands_and_whatever_it_holds(
    tail: bytes, times: int
) -> None:
    head = b'data: {"model":"a-support","choices":[{"index":0,"delta":{"content":"}}"}}]'
    stream = follow()
    left = b',"later":{"a":1}}' if b"later" in tail else b"}"
    seen = head.replace(b"a-support", b"support") + left + b"\n\n"
    assert stream.feed((head + tail + b"\n\n") * times) == seen * times
    assert (stream.tokens().prompt_tokens, stream.tokens().completion_tokens) == (7, 3)
    assert stream.events == times


@pytest.mark.parametrize("options", [{"include_usage": False}, {}, {"include_usage": None}])
def test_running_counts_alone_are_not_sent(options: dict[str, object]) -> None:
    stream = follow(stream_options={**options, "continuous_usage_stats": True})
    assert stream.feed(b"".join(COUNTED)) == SEEN


def test_running_counts_go_out_where_they_were_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    whole = b"".join(COUNTED)
    stream = follow(stream_options=options)
    assert stream.feed(whole) == whole.replace(b'"model":"a-support"', b'"model":"support"')


def test_only_whole_events_go_out() -> None:
    stream = follow()
    assert stream.feed(EVENTS[0][:-1]) == b""
    assert stream.feed(EVENTS[0][-1:] + b"data: {") == EVENTS[0].replace(b"a-support", b"support")


def test_the_usage_event_goes_out_where_it_was_asked_for() -> None:
    stream = follow(stream_options={"include_usage": True})
    assert stream.feed(WHOLE) == WHOLE.replace(b'"model":"a-support"', b'"model":"support"')


def test_a_stream_without_its_closing_event_is_not_complete() -> None:
    stream = follow()
    stream.feed(b"".join(EVENTS[:-1]))
    assert not stream.complete


def test_an_error_event_ends_it_and_what_came_before_goes_out() -> None:
    stream = follow()
    out = stream.feed(EVENTS[0] + sse({"error": {"message": "inner"}}) + EVENTS[-1])
    assert out == EVENTS[0].replace(b"a-support", b"support")
    assert stream.failed and not stream.complete


@pytest.mark.parametrize(
    "text",
    ['data: {"error": "x"}', "\n\ndata: [DONE]\n\n", '"usage":{"prompt_tokens":9}', '"model":"a-support"'],
)
def test_what_a_model_writes_cannot_be_taken_for_the_protocol(text: str) -> None:
    stream = follow()
    event = sse(chunk("a-support", {"content": text}))
    assert stream.feed(event) == event.replace(
        b'"model":"a-support","choices"', b'"model":"support","choices"'
    )
    assert not stream.failed and not stream.complete and stream.usage is None


def test_tokens_of_a_stream_that_was_cut_are_those_that_the_engine_had_counted() -> None:
    stream = follow()
    stream.feed(b"".join(COUNTED[:3]))
    assert stream.tokens() == TokenUsage(7, 2)


def test_a_stream_that_was_cut_before_any_count_is_estimated_and_says_so() -> None:
    stream = follow()
    stream.feed(b"".join(EVENTS[:3]))
    assert stream.tokens() == TokenUsage(stream.tokens().prompt_tokens, 3, estimated=True)
    assert stream.tokens().prompt_tokens > 0


def choice_event(index: int, prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    choices = [{"index": index, "text": "x", "finish_reason": None}]
    return sse({"id": "x", "model": "a-support", "choices": choices, "usage": usage})


def test_choices_that_were_cut_off_are_added_up_and_share_their_prompt() -> None:
    stream = follow(Kind.COMPLETION, n=2, prompt=["one", "two"])
    stream.feed(choice_event(0, 5, 1) + choice_event(1, 5, 1) + choice_event(0, 5, 2))
    stream.feed(choice_event(3, 6, 4))
    assert stream.tokens() == TokenUsage(11, 7)


def test_a_prompt_that_no_choice_has_begun_to_answer_is_estimated() -> None:
    stream = follow(Kind.COMPLETION, prompt=["one", "two"])
    stream.feed(choice_event(0, 5, 1))
    tokens = stream.tokens()
    assert (tokens.completion_tokens, tokens.estimated) == (1, True)
    assert tokens.prompt_tokens > 5


@pytest.mark.parametrize("index", [None, "1", 1.0, True])
def test_a_choice_whose_number_is_none_is_counted_all_the_same(index: object) -> None:
    stream = follow(Kind.COMPLETION, n=2)
    event = choice_event(0, 5, 1).replace(b'"index":0', b'"index":' + json.dumps(index).encode())
    assert stream.feed(event)
    assert stream.tokens().completion_tokens == 1


def test_choices_add_up_to_no_more_than_the_ledger_holds() -> None:
    stream = follow(Kind.COMPLETION, n=2)
    stream.feed(choice_event(0, MOST_TOKENS, MOST_TOKENS) + choice_event(1, MOST_TOKENS, MOST_TOKENS))
    assert stream.tokens() == TokenUsage(MOST_TOKENS, MOST_TOKENS)


@pytest.mark.parametrize(
    "event",
    [b"data: [DONE]\n\n", b": a comment\n\n", sse({"choices": []}), sse({"choices": [], "usage": None})],
)
@pytest.mark.parametrize("wanted", [False, True])
def test_an_event_that_brings_nothing_is_no_token(event: bytes, wanted: bool) -> None:
    stream = follow(stream_options={"include_usage": wanted})
    stream.feed(event)
    assert (stream.tokens().completion_tokens, stream.tokens().estimated) == (0, True)
    stream.feed(EVENTS[0] + event)
    assert stream.tokens().completion_tokens == 1


@pytest.mark.parametrize("count", [None, -1, 3.0, 2**31, 10**30])
def test_a_last_count_that_is_none_leaves_the_one_before(count: object) -> None:
    stream = follow()
    stream.feed(b"".join(COUNTED[:4]))
    usage = {"prompt_tokens": 7, "completion_tokens": count}
    stream.feed(
        b"data: " + json.dumps({"choices": [], "usage": usage}, separators=(",", ":")).encode() + b"\n\n"
    )
    assert stream.tokens() == TokenUsage(7, 3)


def test_cached_tokens_come_with_the_usage_of_the_whole() -> None:
    stream = follow()
    details = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    stream.feed(sse({"choices": [], "usage": details}))
    assert stream.tokens() == TokenUsage(7, 3, 4)


def test_a_response_stream_ends_with_its_own_event() -> None:
    stream = follow(Kind.RESPONSE)
    usage = {"input_tokens": 4, "output_tokens": 2}
    stream.feed(b"event: response.created\n" + sse({"response": {"usage": None}}))
    assert not stream.complete
    out = stream.feed(
        b"event: response.completed\n" + sse({"response": {"model": "a-support", "usage": usage}})
    )
    assert stream.complete
    assert stream.usage == TokenUsage(4, 2)
    assert b'"model":"support"' in out and b'"usage":{' in out


# -- what the client sent is repeated, and is not the protocol ---------------------------------------------

FORGED = {"usage": {"input_tokens": 1, "output_tokens": 1, "prompt_tokens": 1}, "model": "a-support"}
ECHO = {
    "model": "a-support",
    "tools": [{"type": "function", "name": "f", "parameters": {"properties": FORGED}}],
    "metadata": {"model": "a-support"},
    "usage": None,
}
COUNTS = {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}


def response_event(name: str, **response: object) -> bytes:
    payload = {"response": {**ECHO, **response}, "type": f"response.{name}"}
    return f"event: response.{name}\n".encode() + sse(payload)


def delta(text: str) -> bytes:
    payload = {"delta": text, "type": "response.output_text.delta"}
    return b"event: response.output_text.delta\n" + sse(payload)


OPENING = response_event("created") + response_event("in_progress")
RESPONSE = OPENING + delta("I ") + delta("am ") + response_event("completed", usage=COUNTS)


@pytest.mark.parametrize("events", [1, 2, 3, 4])
def test_a_response_that_is_cut_off_is_estimated_whatever_its_tools_look_like(events: int) -> None:
    stream = follow(Kind.RESPONSE)
    stream.feed(b"".join(part + b"\n\n" for part in RESPONSE.split(b"\n\n")[:events]))
    assert stream.tokens() == TokenUsage(9, max(0, events - 2), estimated=True)


@given(st.lists(st.integers(0, len(RESPONSE)), max_size=20))
def test_a_whole_response_is_metered_and_renamed_where_the_protocol_says(edges: list[int]) -> None:
    stream, cuts = follow(Kind.RESPONSE), [0, *sorted(edges), len(RESPONSE)]
    out = b"".join(stream.feed(RESPONSE[a:b]) for a, b in pairwise(cuts))
    assert (stream.tokens(), stream.complete) == (TokenUsage(4, 2, 1), True)
    seen = [json.loads(event.partition(b"data: ")[2]) for event in out.split(b"\n\n")[:-1]]
    whole = [event["response"] for event in seen if "response" in event]
    assert [response["model"] for response in whole] == ["support"] * 3
    for response in whole:
        assert (response["tools"], response["metadata"]) == (ECHO["tools"], ECHO["metadata"])


@pytest.mark.parametrize("name", ["completed", "incomplete", "failed"])
def test_every_terminal_event_of_a_response_has_its_usage_and_ends_it(name: str) -> None:
    stream = follow(Kind.RESPONSE)
    stream.feed(OPENING)
    assert not stream.begun and not stream.complete
    stream.feed(response_event(name, usage=COUNTS))
    assert (stream.complete, stream.begun, stream.usage) == (True, True, TokenUsage(4, 2, 1))


@pytest.mark.parametrize(
    "usage", [None, {}, [], 1, {"input_tokens": "4"}, {"input_tokens": -1}, {"input_tokens": True}]
)
def test_a_usage_that_is_none_is_estimated(usage: object) -> None:
    stream = follow(Kind.RESPONSE)
    stream.feed(OPENING + delta("x") + response_event("completed", usage=usage))
    assert stream.tokens() == TokenUsage(9, 1, estimated=True)


# -- what the engine finds wrong with the request ----------------------------------------------------------


def error_event(kind: Kind, code: object) -> bytes:
    error = {"message": "bad for a-support", "type": "BadRequestError", "param": "top_logprobs", "code": code}
    if kind is Kind.RESPONSE and code == "400":
        return b"event: error\n" + sse({**error, "type": "error", "sequence_number": 3})
    return sse({"error": error})


BEFORE = {Kind.CHAT: b"", Kind.COMPLETION: b"", Kind.RESPONSE: OPENING}
BEGUN = {Kind.CHAT: EVENTS[0], Kind.COMPLETION: EVENTS[0], Kind.RESPONSE: OPENING + delta("x")}
STREAMED = [Kind.CHAT, Kind.COMPLETION, Kind.RESPONSE]


@pytest.mark.parametrize("kind", STREAMED)
@pytest.mark.parametrize("code", [400, 422, "400"])
@pytest.mark.parametrize("begun", [False, True])
def test_an_error_that_is_the_requests_is_told_apart_from_the_engines(
    kind: Kind, code: object, begun: bool
) -> None:
    stream = follow(kind)
    stream.feed((BEGUN if begun else BEFORE)[kind])
    assert stream.begun is begun
    out = stream.feed(error_event(kind, code) + EVENTS[-1])
    assert not stream.failed and stream.complete and stream.refusal is not None
    assert (stream.refusal.param, stream.refusal.status) == ("top_logprobs", int(str(code)))
    assert stream.refusal.message == "bad for support"
    assert b"top_logprobs" in out, "in mid-stream it is passed on"


@pytest.mark.parametrize("kind", STREAMED)
@pytest.mark.parametrize("code", [500, 503, None, "server_error", 200, True, [], "400x", "4" * 5000])
@pytest.mark.parametrize("begun", [False, True])
def test_an_error_without_a_code_of_the_requests_is_the_engines(
    kind: Kind, code: object, begun: bool
) -> None:
    stream = follow(kind)
    stream.feed((BEGUN if begun else BEFORE)[kind])
    out = stream.feed(error_event(kind, code) + EVENTS[-1])
    assert stream.failed and not stream.complete and stream.refusal is None
    assert out == b""


@pytest.mark.parametrize("kind", STREAMED)
@pytest.mark.parametrize("text", ['{"error": {"code": 400}}', 'data: {"error":{"code":400}}', "event: error"])
def test_no_text_is_taken_for_an_error(kind: Kind, text: str) -> None:
    stream = follow(kind)
    stream.feed(delta(text) if kind is Kind.RESPONSE else sse(chunk("a-support", {"content": text})))
    assert not stream.failed and not stream.complete and stream.refusal is None
