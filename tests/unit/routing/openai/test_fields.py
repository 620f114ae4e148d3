"""Which bodies are refused for the types of their fields? All that break vLLM's validators, no good one."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.protocol import Kind
from routing.errors import InvalidRequest
from routing.openai.bodies import CONTROL
from routing.openai.fields import check
from routing.openai.vllm_fields import FIELDS

VALUES: dict[str, Any] = {"n": None, "b": True, "i": 1, "f": 1.5, "s": "x", "a": [], "o": {}}
GOOD: dict[Kind, dict[str, Any]] = {
    **CONTROL,
    Kind.CHAT: {"messages": [{"role": "user", "content": "x"}]},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": None}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def letters(spec: Any) -> str:
    return str(spec if isinstance(spec, str) else spec[""])


CASES = [(kind, name, spec) for kind in FIELDS for name, spec in FIELDS[kind].items()]


@pytest.mark.parametrize(("kind", "name", "spec"), CASES, ids=[f"{k.name}-{n}" for k, n, _ in CASES])
def test_every_field_takes_the_types_of_the_table_and_no_other(kind: Kind, name: str, spec: Any) -> None:
    for letter, value in VALUES.items():
        body = {**GOOD[kind], name: value}
        if letter in letters(spec):
            check(kind, body)
            continue
        with pytest.raises(InvalidRequest) as refused:
            check(kind, body)
        assert (refused.value.param, refused.value.code) == (name, "invalid_type")


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (Kind.CHAT, {"structured_outputs": 1}, "structured_outputs"),
        (Kind.COMPLETION, {"structured_outputs": []}, "structured_outputs"),
        (Kind.RESPONSE, {"tools": 1}, "tools"),
        (Kind.CHAT, {"structured_outputs": {"regex": 1}}, "structured_outputs.regex"),
        (Kind.CHAT, {"structured_outputs": {"choice": ["a", 1]}}, "structured_outputs.choice[1]"),
        (Kind.CHAT, {"messages": ["x"]}, "messages[0]"),
        (Kind.CHAT, {"messages": [{}, {"tool_calls": 1}]}, "messages[1].tool_calls"),
        (Kind.CHAT, {"messages": [{"content": [{"type": []}]}]}, "messages[0].content[0].type"),
        (Kind.CHAT, {"tools": [{"function": {"name": 1}}]}, "tools[0].function.name"),
        (Kind.COMPLETION, {"prompt": [[1], ["x", {}]]}, "prompt[1][1]"),
        (Kind.EMBEDDING, {"input": {"x": 1}}, "input"),
    ],
)
def test_the_error_names_the_place(kind: Kind, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(kind, {**GOOD[kind], **fields})
    assert refused.value.param == param
    assert f"`{param}` must be " in refused.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0, "top_p": 1.0, "n": 2, "stop": None, "user": "u", "seed": None, "stream": False},
        {"stop": ["a", "b"], "logit_bias": {"5": -100}, "tools": [TOOL], "tool_choice": "auto"},
        {"tools": None, "response_format": FORMAT, "stream_options": {"include_usage": True}},
        {"response_format": {"type": "json_object"}, "x_unknown": [1], "metadata": {"a": "b"}},
        {"structured_outputs": {"choice": ["a", "b"]}, "chat_template_kwargs": {"enable_thinking": False}},
        {"structured_outputs": {"json": {"type": "object"}}, "reasoning_effort": "low", "logprobs": True},
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": []},
                {"role": "tool", "content": "x"},
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"image_url": "x"}, "y"]}]},
    ],
)
def test_bodies_of_usual_clients_pass(fields: dict[str, Any]) -> None:
    check(Kind.CHAT, {**GOOD[Kind.CHAT], **fields})


# -- against vLLM's own models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and others warn as they are imported
        pytest.importorskip("vllm")
        from tests import vllm_fields

        return {"table": vllm_fields.table(), "adapters": vllm_fields.models()}


def test_the_table_is_that_of_the_installed_vllm(models: Any) -> None:
    assert models["table"] == FIELDS, "run `python -m tests.vllm_fields > routing/openai/vllm_fields.py`"


ANY_JSON = st.recursive(
    st.sampled_from([None, True, 0, 1, -1, 1.5, "", "x", "function", "json_schema", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "function", "name", "role", "content", "json_schema", "schema", "tool_calls", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", list(CONTROL))
def test_what_passes_breaks_none_of_vllms_validators(models: Any, kind: Kind) -> None:
    """A body may still be wrong there; then pydantic says so, and vLLM answers 400."""
    from pydantic import TypeAdapter, ValidationError
    from vllm.exceptions import VLLMError

    adapters = [TypeAdapter(model) for model in models["adapters"][kind]]
    names = sorted(FIELDS[kind])

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(st.dictionaries(st.sampled_from(names), ANY_JSON, min_size=1, max_size=3), st.booleans())
    def send(changes: dict[str, Any], stream: bool) -> None:
        body = {"model": "m", "stream": stream, **copy.deepcopy(GOOD[kind]), **changes}
        try:
            check(kind, body)
        except InvalidRequest:
            return
        for adapter in adapters:
            with contextlib.suppress(ValidationError, VLLMError):
                adapter.validate_python(copy.deepcopy(body))

    send()
