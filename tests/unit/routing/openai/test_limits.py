"""What may a request ask for? Up to its bound every field passes; one more is refused, with both named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.protocol import Kind
from fleet.types import RequestLimits
from routing.errors import InvalidRequest, OverLimit
from routing.openai.bodies import for_engine, parse
from routing.openai.limits import BOUNDED_TIMES, MAX_DEPTH, MAX_PROMPTS, MAX_WORDS, check
from routing.types import Target

LIMITS = RequestLimits(
    messages=20,
    tools=4,
    choices=5,
    beam_width=3,
    logprobs=6,
    list_entries=7,
    constraint_entries=40,
    constraint_kib=1,
)
KIB = 1024
CONTENT: dict[Kind, dict[str, Any]] = {
    Kind.CHAT: {"messages": [{"role": "user", "content": "x"}]},
    Kind.COMPLETION: {"prompt": "x"},
    Kind.EMBEDDING: {"input": "x"},
    Kind.RESPONSE: {"input": "x"},
}


def refused(limits: RequestLimits = LIMITS, kind: Kind = Kind.CHAT, **fields: Any) -> OverLimit | None:
    body = orjson.dumps({"model": "m", **CONTENT[kind], **fields})
    call = parse(kind, body)
    try:
        check(call.payload, limits, content=call.content, prompts=call.size.prompts, size_bytes=len(body))
    except OverLimit as error:
        assert (error.status, error.code) == (400, "request_over_limit")
        return error
    return None


def message(parts: int = 0) -> dict[str, Any]:
    text = {"type": "text", "text": "x"}
    return {"role": "user", "content": [text] * parts if parts else "x"}


def tool(**schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object", **schema}}}


def properties(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(count)}}


def as_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


def as_tag(schema: Any) -> str:
    content = {"type": "json_schema", "json_schema": schema}
    return orjson.dumps({"type": "structural_tag", "format": content}).decode()


def filled(count: int) -> str:
    """A schema's text of so many bytes."""
    return orjson.dumps({"title": "x" * (count - 12)}).decode()


def as_object(count: int) -> dict[str, str]:
    return {"k": "x" * (count - 8)}


SO = "structured_outputs"
C = LIMITS.constraint_entries
B = LIMITS.constraint_bytes
OBJECTS = ("chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs", "metadata", "reasoning")
# Field that is named, fields of the body that ask for so much of it, bound.
CASES: list[tuple[str, Any, int]] = [
    ("messages", lambda n: {"messages": [message()] * n}, 20),
    ("messages", lambda n: {"messages": [message(n - 1)]}, 20),
    ("n", lambda n: {"n": n}, 5),
    ("best_of", lambda n: {"best_of": n}, 5),
    ("n", lambda n: {"use_beam_search": True, "n": n}, 3),
    ("logprobs", lambda n: {"logprobs": n}, 6),
    ("top_logprobs", lambda n: {"logprobs": True, "top_logprobs": n}, 6),
    ("prompt_logprobs", lambda n: {"prompt_logprobs": n}, 6),
    ("stop", lambda n: {"stop": ["x"] * n}, MAX_WORDS),
    ("stop", lambda n: {"stop": "x" * n}, 16 * KIB),
    ("stop", lambda n: {"stop": ["é" * (n // 4), "x" * (n - n // 4 * 2)]}, 16 * KIB),
    ("bad_words", lambda n: {"bad_words": ["x"] * n}, MAX_WORDS),
    ("bad_words", lambda n: {"bad_words": ["x" * (n - 1), "y"]}, 16 * KIB),
    *(
        (name, lambda n, name=name: {name: [1] * n}, 7)
        for name in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids", "bad_words_token_ids")
    ),
    ("logit_bias", lambda n: {"logit_bias": {str(i): 1 for i in range(n)}}, 7),
    ("documents", lambda n: {"documents": [{"text": "x"}] * n}, 7),
    ("tools", lambda n: {"tools": [tool()] * n}, 4),
    ("tools", lambda n: {"tools": [{"type": "function", "function": {"name": "x" * (n - 44)}}]}, 4 * B),
    ("tools[1]", lambda n: {"tools": [tool(), tool(**properties(n))]}, C),
    (f"{SO}.choice", lambda n: {SO: {"choice": ["x"] * n}}, C),
    (f"{SO}.choice", lambda n: {SO: {"choice": ["x", "y" * (n - 1)]}}, B),
    (f"{SO}.regex", lambda n: {SO: {"regex": "x" * n}}, B // 16),
    (f"{SO}.whitespace_pattern", lambda n: {SO: {"json": {}, "whitespace_pattern": "x" * n}}, B // 16),
    (f"{SO}.grammar", lambda n: {SO: {"grammar": "x" * n}}, B),
    (f"{SO}.json", lambda n: {SO: {"json": orjson.loads(filled(n))}}, B),
    (f"{SO}.json", lambda n: {SO: {"json": filled(n)}}, B),
    (f"{SO}.structural_tag", lambda n: {SO: {"structural_tag": filled(n)}}, B),
    ("response_format", lambda n: {"response_format": {"type": "json_object", "x": "x" * (n - 29)}}, B),
    *(
        (name, lambda n, name=name, name_of=make: {name.partition(".")[0]: name_of(properties(n))}, C)
        for name, make in {
            f"{SO}.json": lambda schema: {"json": schema},
            f"{SO}.structural_tag": lambda schema: {"structural_tag": as_tag(schema)},
            "response_format": as_format,
        }.items()
    ),
    *(
        (f"{SO}.json", lambda n, key=key: {SO: {"json": {key: [0] * n}}}, C)
        for key in ("enum", "anyOf", "oneOf", "allOf", "prefixItems", "required")
    ),
    *(
        (f"{SO}.json", lambda n, key=key: {SO: {"json": {"x": [{key: 1}] * n}}}, C // BOUNDED_TIMES)
        for key in ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
    ),
    *(
        (name, lambda n, name=name: {name: as_object(n)}, 64 * KIB)
        for name in OBJECTS
    ),
    ("chat_template", lambda n: {"chat_template": "x" * n}, 64 * KIB),
    (
        "repetition_detection.max_pattern_size",
        lambda n: {"repetition_detection": {"max_pattern_size": n}},
        1024,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("param", "fields", "bound"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_up_to_its_bound_a_field_passes_and_one_more_is_refused(param: str, fields: Any, bound: int) -> None:
    assert refused(**fields(bound)) is None
    error = refused(**fields(bound + 1))
    assert error is not None
    assert error.param == param
    assert f"`{param}`" in error.message
    assert str(bound) in error.message


@pytest.mark.parametrize(
    ("kind", "param", "fields", "bound"),
    [
        (Kind.COMPLETION, "prompt", lambda n: {"prompt": ["x"] * n}, MAX_PROMPTS),
        (Kind.EMBEDDING, "input", lambda n: {"input": [[1, 2]] * n}, MAX_PROMPTS),
        (Kind.RESPONSE, "input", lambda n: {"input": [message()] * n}, 20),
        (Kind.RESPONSE, "include", lambda n: {"include": ["x"] * n}, 7),
        (Kind.RESPONSE, "text.format", lambda n: {"text": {"format": as_format(properties(n))}}, C),
        (Kind.COMPLETION, "prompt_embeds", lambda n: {"prompt_embeds": ["x"] * n}, 7),
    ],
)
def test_so_it_is_on_the_other_routes(kind: Kind, param: str, fields: Any, bound: int) -> None:
    assert refused(kind=kind, **fields(bound)) is None
    error = refused(kind=kind, **fields(bound + 1))
    assert error is not None
    assert error.param == param
    assert str(bound) in error.message


def test_a_prompt_of_many_token_ids_is_one_prompt() -> None:
    for kind, name in ((Kind.COMPLETION, "prompt"), (Kind.EMBEDDING, "input")):
        ids: dict[str, Any] = {name: [1] * 10_000}
        assert refused(kind=kind, **ids) is None


ROW = "a?" * 100
RULES = 'root ::= root "+" root | "a"'


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        (f"{SO}.regex", {SO: {"regex": ROW}}),
        (f"{SO}.grammar", {SO: {"grammar": RULES}}),
        (f"{SO}.json", {SO: {"json": {"properties": {"a": {"type": "string", "pattern": ROW}}}}}),
        (f"{SO}.json", {SO: {"json": {"patternProperties": {ROW: {}}}}}),
        (f"{SO}.structural_tag", {SO: {"structural_tag": as_tag({"pattern": ROW})}}),
        ("response_format", {"response_format": as_format({"items": [{"pattern": ROW}]})}),
        ("response_format", {"response_format": {"type": "structural_tag", "format": {"grammar": RULES}}}),
        ("tools[0]", {"tools": [tool(properties={"a": {"pattern": ROW}})]}),
    ],
)
def test_costly_patterns_and_grammars_are_found_wherever_they_stand(
    param: str, fields: dict[str, Any]
) -> None:
    error = refused(RequestLimits(), **fields)
    assert error is not None
    assert error.param == param


@pytest.mark.parametrize("on", [True, 1, "true", "on"])
def test_no_beam_search_is_run_unless_it_is_allowed(on: Any) -> None:
    error = refused(RequestLimits(), use_beam_search=on)
    assert error is not None
    assert error.param == "use_beam_search"
    assert refused(use_beam_search=on, n=3) is None


@pytest.mark.parametrize("off", [False, 0, "false"])
def test_a_beam_search_that_is_off_is_none(off: Any) -> None:
    assert refused(RequestLimits(), use_beam_search=off, n=5) is None


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63), 1e18, 0.5, True])
def test_numbers_of_64_bits_are_taken(number: Any) -> None:
    assert refused(seed=number, stop_token_ids=[1, number]) is None


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854777857", "1" + "0" * 30, "1e300"])
@pytest.mark.parametrize(
    ("param", "fields"), [("seed", b'"seed":%b'), ("stop_token_ids[1]", b'"stop_token_ids":[1,%b]')]
)
def test_longer_ones_are_refused_and_not_rounded(number: str, param: str, fields: bytes) -> None:
    call = parse(Kind.COMPLETION, b'{"prompt":"x",' + fields % number.encode() + b"}")
    with pytest.raises(OverLimit, match="64 bits") as error:
        check(call.payload, LIMITS, content="prompt", prompts=1, size_bytes=50)
    assert error.value.param == param


def nested(levels: int, *, objects: bool) -> str:
    opening, closing = ('{"a":', "}") if objects else ("[", "]")
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("field", ["x_unknown", "metadata", "response_format", "tools"])
@pytest.mark.parametrize(("levels", "passes"), [(MAX_DEPTH - 2, True), (MAX_DEPTH + 1, False), (800, False)])
def test_a_body_may_be_nested_as_deep_as_it_can_be_written(
    field: str, levels: int, objects: bool, passes: bool
) -> None:
    inner = nested(levels - 1, objects=objects)
    value = f"[{inner}]" if field == "tools" else f'{{"type":{inner}}}'
    body = f'{{"messages":[{{}}],"x_{field}":{value}}}'.encode()
    target = Target("a", "support", None, "base", "shared")
    call = parse(Kind.CHAT, body)
    if passes:
        assert for_engine(call, target, cache_salt="s", priority=0)
        return
    with pytest.raises(OverLimit, match="nested too deeply") as error:
        for_engine(call, target, cache_salt="s", priority=0)
    assert error.value.param == f"x_{field}"
    with pytest.raises(OverLimit, match="nested too deeply"):
        check(
            {"metadata": call.payload[f"x_{field}"]},
            LIMITS,
            content="prompt",
            prompts=1,
            size_bytes=len(body),
        )


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["properties", "pattern", "patternProperties", "enum", "grammar", "regex", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            sorted(
                {case[0].partition(".")[0].partition("[")[0] for case in CASES} | {"text", "use_beam_search"}
            )
        ),
        ANYTHING,
        max_size=4,
    )
)
def test_whatever_it_is_it_is_taken_or_refused(fields: dict[str, Any]) -> None:
    try:
        check(fields, LIMITS, content="prompt", prompts=1, size_bytes=10**6)
    except InvalidRequest as error:
        assert error.param


def test_an_ordinary_request_is_far_below_every_default() -> None:
    schema = {**properties(100), "required": [f"p{i}" for i in range(100)]}
    fields: dict[str, Any] = {
        "messages": [message(), message(10)] * 100,
        "tools": [tool(properties={f"p{i}": {"type": "string", "maxLength": 100} for i in range(20)})] * 128,
        "response_format": as_format(schema),
        "stop": ["a", "b", "c", "d"],
        "logit_bias": {str(i): -100 for i in range(300)},
        "logprobs": True,
        "top_logprobs": 20,
        "n": 8,
        "seed": 7,
        "temperature": 0.2,
        "metadata": {"a": "b"},
    }
    assert refused(RequestLimits(), **fields) is None
