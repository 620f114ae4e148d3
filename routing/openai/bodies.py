"""Reads clients' request bodies, and writes those for engines.

Only the fields that routing needs are read and checked here. Every other field goes to vLLM unchanged, and
vLLM validates it. Fields that reach into an engine or another tenant's state are dropped or overwritten.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engines import forms
from engines.protocol import FORMS, Kind
from routing.errors import InvalidRequest
from routing.openai import fields, limits, prompts
from routing.openai.endpoints import ENDPOINTS, Endpoint
from routing.types import Target

Payload = dict[str, Any]

# vLLM's additions to OpenAI's bodies that address engine internals (its entrypoints/openai/*/protocol.py):
# ids shared by all callers of an engine, hand-over of KV blocks between engines, raw tensors.
DROPPED_FIELDS = (
    "request_id",
    "session_id",
    "kv_transfer_params",
    "ec_transfer_params",
    "mm_payload",
    "return_mm_kwargs",
    "vllm_xargs",
    "adapter_id",
    "adapter_name",
)
# OpenAI's names for the end user: the first replaces the second. Requests that begin alike share a
# `prompt_cache_key`, whoever sends them.
USERS = ("safety_identifier", "user")
PROMPT_CACHE_KEY = "prompt_cache_key"
CONTROL_RECORDING_S = 0.1
LONGEST_USER = 64  # characters; OpenAI's own bound. Of a longer name its hash is kept
OVERWRITTEN_FIELDS = ("model", "cache_salt", "priority")  # overwritten in every request

_MESSAGES = "messages"
_PROMPTS = frozenset({Kind.COMPLETION, Kind.EMBEDDING, Kind.POOLING})
_PAIRS = frozenset({Kind.SCORE, Kind.RERANK})
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(slots=True)  # not frozen, as `Request`
class Call:
    """One parsed request body."""

    kind: Kind
    endpoint: Endpoint
    payload: Payload
    content: str  # the field with what the model reads
    model: str | None  # the client's name for it; None: the default model
    stream: bool
    wants_usage: bool  # the client asked for the usage event of a stream
    wants_running_usage: bool  # and for the usage so far in every event
    sequences: int  # choices times prompts
    size: prompts.PromptSize
    user: str = ""  # the client's name of the end user, at most `LONGEST_USER` long; empty: none
    sticky: str = ""  # what keeps requests on one side of a split: the user, or what begins alike
    max_completion_tokens: int | None = None  # of each sequence; None: not bounded
    recording: bytes = b""  # of a form


def parse(kind: Kind, body: bytes) -> Call:
    """Read a request body. Raises `InvalidRequest` that names the field."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(payload, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    endpoint = ENDPOINTS[kind]
    content = _required(payload, endpoint)
    if content[-1] == _MESSAGES and not isinstance(payload[_MESSAGES], list):
        raise _wrong_type("messages", "an array of messages")
    stream = _optional(payload, "stream", bool, "a boolean") or False
    options = _optional(payload, "stream_options", dict, "an object") or {}
    wants_usage = bool(options.get("include_usage"))  # without it vLLM ignores the other option
    _refuse_stored_responses(kind, payload)
    size = _size(kind, payload, content)
    user = user_of(payload) or (_anthropic_user(payload) if endpoint.anthropic else "")
    call = Call(
        endpoint=endpoint,
        kind=kind,
        payload=payload,
        content=content[-1],
        model=_model_name(payload),
        stream=stream and endpoint.streams,
        wants_usage=wants_usage,
        wants_running_usage=wants_usage and bool(options.get("continuous_usage_stats")),
        sequences=_choices(payload) * size.prompts,
        size=size,
        user=user,
        sticky=user or _first_text(payload, (PROMPT_CACHE_KEY,)),
        max_completion_tokens=_longest_completion(payload) if endpoint.runs else 0,
    )
    fields.check(kind, payload)
    return call


def refuse_too_long(call: Call, max_model_len: int, chars_per_token: int) -> None:
    """Raise `InvalidRequest` for a prompt that is certainly longer than the model's context, as vLLM does.

    A prompt that may be too long goes on: the engine tokenizes it first.
    """
    payload, field = call.payload, call.content
    # Pairs may be cut by fields of their own, and a recording is by the engine.
    if call.kind in _PAIRS or call.endpoint.form or not call.endpoint.runs:
        return
    if payload.get("truncate_prompt_tokens") is not None or payload.get("truncation") == "auto":
        return
    tokens = prompts.longest(payload[field], chars_per_token)
    if tokens > max_model_len:
        raise InvalidRequest(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has at "
            f"least {tokens} input tokens. Please reduce the length of the input.",
            param=field,
            code="context_length_exceeded",
        )


def for_engine(
    call: Call, target: Target, *, cache_salt: str, priority: int, has_slots: bool = True
) -> bytes:
    """Write the body for the engine: the engine's name for the model, and the gateway's tenancy fields.

    Raises `InvalidRequest` if the client's JSON is nested too deeply to be written again, or would break
    an engine with slots, or if a form has what only the gateway's own may have.
    """
    if call.endpoint.form:
        return _form_for_engine(call, target)
    if has_slots:
        _refuse_prompt_logprobs(call)
    payload = {name: value for name, value in call.payload.items() if name not in DROPPED_FIELDS}
    payload["model"] = target.engine_model
    if call.endpoint.runs:
        payload["cache_salt"] = cache_salt
        payload["priority"] = priority
    if call.stream and call.kind in (Kind.CHAT, Kind.COMPLETION):
        # Without these options a stream carries no usage, and a broken stream's usage would be a guess.
        # `EventStream` removes both again for a client that did not ask for them.
        options = {"include_usage": True, "continuous_usage_stats": True}
        payload["stream_options"] = {**(payload.get("stream_options") or {}), **options}
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:  # orjson reads 1024 levels and writes 254
        for name, value in payload.items():
            limits.written(name, [value])
        raise


def _form_for_engine(call: Call, target: Target) -> bytes:
    """Write a form; salt and priority stand beside it, in headers."""
    payload = {name: value for name, value in call.payload.items() if name not in USERS}
    payload["model"] = target.engine_model
    if call.stream:  # as in `for_engine`
        payload |= {"stream_include_usage": True, "stream_continuous_usage_stats": True}
    try:
        return forms.written(_texts_of(payload), call.recording)
    except ValueError:
        raise InvalidRequest("The form cannot be read.", code="invalid_form") from None


def _texts_of(payload: Payload) -> Iterator[tuple[str, str]]:
    for name, value in payload.items():
        for each in value if isinstance(value, list) else [value]:
            yield name, str(each).lower() if isinstance(each, bool) else str(each)


CONTROL: Mapping[Kind, Payload] = {
    Kind.CHAT: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    Kind.CHAT_BATCH: {"messages": [[{"role": "user", "content": "hi"}]], "max_tokens": 1},
    Kind.COMPLETION: {"prompt": "hi", "max_tokens": 1},
    Kind.EMBEDDING: {"input": "hi"},
    Kind.POOLING: {"input": "hi"},
    Kind.SCORE: {"queries": "hi", "documents": "hi"},
    Kind.RERANK: {"query": "hi", "documents": ["hi"]},
    Kind.TOKENIZE: {"prompt": "hi"},
    Kind.DETOKENIZE: {"tokens": [0]},
    Kind.MESSAGES: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    Kind.COUNT_TOKENS: {"messages": [{"role": "user", "content": "hi"}]},
    Kind.RESPONSE: {"input": "hi", "max_output_tokens": 1, "store": False},
}


def control(kind: Kind, target: Target) -> bytes:
    """Write the smallest request of a kind; every healthy engine answers it."""
    if kind in FORMS:
        fields = (("model", target.engine_model), ("language", "en"), ("max_completion_tokens", "1"))
        return forms.written(fields, forms.silence(CONTROL_RECORDING_S))
    return orjson.dumps({**CONTROL[kind], "model": target.engine_model})


def _refuse_prompt_logprobs(call: Call) -> None:
    """Raise `InvalidRequest` for log-probabilities of the prompt: they crash an engine with slots.

    vLLM maps a prompt's rows to the adapters that others are sampled with, or past the end of its buffers
    (vllm-project/vllm#16668, open for 0.32). A completion with `echo` and `logprobs`, and any chat with
    `echo`, request the same.
    """
    payload = call.payload
    echo = _optional(payload, "echo", bool, "a boolean")
    chats = call.kind in (Kind.CHAT, Kind.CHAT_BATCH)
    echoes = bool(echo) and (chats or payload.get("logprobs") is not None)
    if echoes or payload.get("prompt_logprobs") is not None:
        field = "echo" if echoes else "prompt_logprobs"
        raise InvalidRequest(
            "Log-probabilities of the prompt are not available where adapters are served.",
            param=field,
            code="unsupported_parameter",
        )


def sane_request_id(value: str | None) -> str | None:
    """Return a client's request id if it can go into a header and a log line as it is."""
    return value if value and _REQUEST_ID.fullmatch(value) else None


def _required(payload: Payload, endpoint: Endpoint) -> tuple[str, ...]:
    """Return the fields of the first way in which the content is given. Raises `InvalidRequest`."""
    fields = endpoint.content[0]
    if len(endpoint.content) > 1:
        given = (names for names in endpoint.content if all(payload.get(name) is not None for name in names))
        found = next(given, None)
        if found is not None:
            fields = found
            _refuse_other_ways(payload, endpoint, found)
    for field in fields:
        value = payload.get(field)
        if value is None:
            raise InvalidRequest(f"`{field}` is required.", param=field, code="missing_required_parameter")
        if isinstance(value, (list, str)) and not value and endpoint.runs:
            raise InvalidRequest(f"`{field}` must not be empty.", param=field, code="invalid_value")
    return fields


def _refuse_other_ways(payload: Payload, endpoint: Endpoint, fields: tuple[str, ...]) -> None:
    """Raise `InvalidRequest` for content in other fields too: vLLM chooses by what else is in the body."""
    for names in endpoint.content:
        for name in names:
            if name not in fields and payload.get(name) is not None:
                raise InvalidRequest(
                    f"Send `{fields[-1]}` or `{name}`, not both.", param=name, code="invalid_value"
                )


def _optional(payload: Payload, field: str, expected: type, description: str) -> Any:
    if field not in payload:  # nearly always; cheaper than a lookup of the value
        return None
    value = payload[field]
    if value is not None and not isinstance(value, expected):
        raise _wrong_type(field, description)
    return value


def _wrong_type(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` must be {description}.", param=field, code="invalid_type")


def _model_name(payload: Payload) -> str | None:
    """Return the model's name; clients of TGI and LoRAX put it beside `model`, a placeholder there."""
    for field in ("adapter_id", "adapter_name", "model"):
        if field in payload and (name := _optional(payload, field, str, "a string")):
            return str(name)
    return None


def _first_text(payload: Payload, fields: Iterable[str]) -> str:
    """Return the first of these fields that is a text and not empty, or the hash of a long one."""
    for field in fields:
        if field in payload and isinstance(value := payload[field], str) and value:
            return value if len(value) <= LONGEST_USER else _hash(value)
    return ""


def user_of(payload: Payload) -> str:
    """Return the end user whom a body names; empty: none."""
    return _first_text(payload, USERS)


def _anthropic_user(payload: Payload) -> str:
    """Return the end user whom a body in Anthropic's form names."""
    metadata = payload.get("metadata")
    return _first_text(metadata, ("user_id",)) if isinstance(metadata, dict) else ""


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=LONGEST_USER // 2).hexdigest()


def _choices(payload: Payload) -> int:
    widest = 1
    for field in ("n", "best_of"):
        if field not in payload or (value := payload[field]) is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(field, "an integer")
        if value < 1:
            raise InvalidRequest(f"`{field}` must be at least 1.", param=field, code="invalid_value")
        widest = max(widest, value)
    return widest


def _longest_completion(payload: Payload) -> int | None:
    """Read the bound on the answer under any of its names; vLLM refuses invalid values."""
    for field in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if field in payload and type(value := payload[field]) is int and value > 0:
            return value
    return None


def _size(kind: Kind, payload: Payload, names: tuple[str, ...]) -> prompts.PromptSize:
    """Measure the text that the model reads, in fields of these names; a batch has several prompts."""
    content = payload[names[-1]]
    if kind in _PROMPTS and names[-1] != _MESSAGES:
        return prompts.of_prompts(content)
    if kind in _PROMPTS:  # of embeddings there may be several conversations
        return prompts.of_chats(content) if type(content[0]) is list else prompts.of_messages(content)
    if kind in _PAIRS:
        return prompts.of_pairs(payload[names[0]], content)
    if kind is Kind.CHAT_BATCH:
        return prompts.of_chats(content)
    if kind is Kind.DETOKENIZE:
        return prompts.PromptSize()
    size = prompts.of_messages(content) if names[-1] == _MESSAGES else prompts.of_input(content)
    prompts.add_beside(size, payload, system=payload.get("system") if ENDPOINTS[kind].anthropic else None)
    return size


def _refuse_stored_responses(kind: Kind, payload: Payload) -> None:
    """Raise `InvalidRequest` for stored responses: engines keep none, since tenants would share the store."""
    if kind is not Kind.RESPONSE:
        return
    for field in ("previous_response_id", "background"):
        if payload.get(field):
            raise InvalidRequest(
                f"`{field}` needs stored responses, which this service does not keep; send the whole input.",
                param=field,
                code="unsupported_parameter",
            )
    payload["store"] = False
