"""What does the client ask, and what may the engine see of it? The only module that knows OpenAI's bodies.

Only what routing needs is read and checked here; every other field goes to vLLM as it came, which validates
it. Fields by which a client could reach into an engine or another tenant's state are dropped or overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from routing.errors import EngineRefused, InvalidRequest, RequestError
from routing.openai import fields, limits, prompts
from routing.types import Target

Payload = dict[str, Any]


class Kind(StrEnum):
    """Which OpenAI endpoint is called; the value is its path."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    EMBEDDING = "/v1/embeddings"
    RESPONSE = "/v1/responses"


REQUIRED = {
    Kind.CHAT: "messages",
    Kind.COMPLETION: "prompt",
    Kind.EMBEDDING: "input",
    Kind.RESPONSE: "input",
}

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
# OpenAI's names for whom a request is answered, the clearest first: the others took the place of `user`, and
# the last says which requests begin alike.
USERS = ("user", "safety_identifier", "prompt_cache_key")
OVERWRITTEN_FIELDS = ("model", "cache_salt", "priority")  # whatever the client says

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
USAGE_TAIL = b',"usage":{'


@dataclass(frozen=True, slots=True)
class Call:
    """One parsed request body."""

    kind: Kind
    payload: Payload
    model: str | None  # what the client calls it; None: its default model
    stream: bool
    wants_usage: bool  # the client asked for the usage event of a stream
    wants_running_usage: bool  # and for the usage so far in every event, which vLLM can give
    sequences: int  # choices times prompts
    size: prompts.PromptSize  # of what the model is to read
    user: str | None = None  # whom the client answers for, in its own words
    max_completion_tokens: int | None = None  # of each sequence, where the client says


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one request, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the engine's prefix cache
    estimated: bool = False  # not all of it was counted by the engine


def parse(kind: Kind, body: bytes) -> Call:
    """Read a request body. Raises `InvalidRequest` that names the field."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(payload, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    content = _required(payload, REQUIRED[kind])
    if kind is Kind.CHAT and not isinstance(content, list):
        raise _wrong_type("messages", "an array of messages")
    stream = _optional(payload, "stream", bool, "a boolean") or False
    options = _optional(payload, "stream_options", dict, "an object") or {}
    wants_usage = bool(options.get("include_usage"))  # without it vLLM ignores the other option
    _refuse_stored_responses(kind, payload)
    size = _size(kind, payload, content)
    call = Call(
        kind=kind,
        payload=payload,
        model=_model_name(payload),
        stream=stream and kind is not Kind.EMBEDDING,
        wants_usage=wants_usage,
        wants_running_usage=wants_usage and bool(options.get("continuous_usage_stats")),
        sequences=_choices(payload) * size.prompts,
        size=size,
        user=_user(payload),
        max_completion_tokens=_longest_completion(payload),
    )
    fields.check(kind, payload)
    return call


def refuse_too_long(call: Call, max_model_len: int, chars_per_token: int) -> None:
    """Raise `InvalidRequest` for a prompt that is surely longer than the model reads, as vLLM does at once.

    What only may be too long, an engine has to tokenize first.
    """
    payload, field = call.payload, REQUIRED[call.kind]
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
    """Write the body the engine gets: its own name for the model, and the gateway's tenancy fields.

    Raises `InvalidRequest` where the client's JSON is nested deeper than can be written again, or asks an
    engine with slots for what would break it.
    """
    if has_slots:
        _refuse_prompt_logprobs(call)
    payload = {name: value for name, value in call.payload.items() if name not in DROPPED_FIELDS}
    payload["model"] = target.engine_model
    payload["cache_salt"] = cache_salt
    payload["priority"] = priority
    if call.stream and call.kind in (Kind.CHAT, Kind.COMPLETION):
        # Without these a stream carries no usage, and one that is cut off could only be guessed at; both are
        # taken out again on the way back.
        options = {"include_usage": True, "continuous_usage_stats": True}
        payload["stream_options"] = {**(payload.get("stream_options") or {}), **options}
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:  # orjson reads 1024 levels and writes 254
        for name, value in payload.items():
            limits.written(name, [value])
        raise


def model_fields(target: Target) -> tuple[bytes, bytes]:
    """The model's field in JSON as the engine writes it, and as the client is to see it.

    One can be replaced by the other in raw bytes: inside a JSON string every quote is escaped, so the first
    only ever occurs as a real field.
    """
    return b'"model":"%b"' % target.engine_model.encode(), b'"model":"%b"' % target.answers_as.encode()


def usage_of(payload: Mapping[str, Any]) -> TokenUsage | None:
    """Read the usage of an answer, or of an event of a stream; None where it has none."""
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    if prompt is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    return TokenUsage(prompt, _count(usage, "completion_tokens", "output_tokens") or 0, cached or 0)


def usage_in(body: bytes) -> TokenUsage | None:
    """Read the usage of a whole answer.

    It stands near the end, and need not be searched for in megabytes: where what follows its last mention
    closes one object, that is the answer itself, and the mention is its field.
    """
    start = body.rfind(USAGE_TAIL)
    for part in (b"{" + body[start + 1 :], body) if start >= 0 else (body,):
        try:
            payload = orjson.loads(part)
        except orjson.JSONDecodeError:
            continue
        return usage_of(payload) if isinstance(payload, dict) else None
    return None


def estimate_of(call: Call, prompt_tokens: int, body: bytes) -> TokenUsage:
    """Estimate the usage of a whole answer that does not say; embeddings complete nothing."""
    completion = 0 if call.kind is Kind.EMBEDDING else max(1, len(body) // prompts.BYTES_PER_TOKEN)
    if call.max_completion_tokens is not None:
        completion = min(completion, call.max_completion_tokens * call.sequences)
    return TokenUsage(prompt_tokens, completion, estimated=True)


def renamed(body: bytes, target: Target) -> bytes:
    """Return a whole answer with the client's name for the model, and nothing else changed."""
    inner, outer = model_fields(target)
    if body.count(inner) <= 1:
        return body.replace(inner, outer)
    try:
        payload = orjson.loads(body)
        return orjson.dumps({**payload, "model": target.answers_as})
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, TypeError):
        return body


def metadata_of(text: str, target: Target) -> tuple[bytes, TokenUsage | None]:
    """Read vLLM's header beside embeddings as bytes: for the client, and the usage in it."""
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        return b"", None
    return orjson.dumps({**payload, "model": target.answers_as}), usage_of(payload)


def _count(counts: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if type(value) is int and value >= 0:
            return value
    return None


def error_body(error: RequestError) -> bytes:
    """Render OpenAI's error object."""
    return orjson.dumps(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def engine_refusal(status: int, body: bytes, target: Target) -> InvalidRequest:
    """Turn vLLM's answer to a bad request into ours, without its inner names. `status` is 400..499."""
    try:
        return refusal_of(orjson.loads(body)["error"], status, target)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return refusal_of({}, status, target)


def refusal_of(error: Mapping[str, Any], status: int, target: Target) -> InvalidRequest:
    """The same for the error object of such an answer, or of a stream."""
    if not isinstance(error, dict):
        error = {}
    message = str(error.get("message") or f"The engine refused the request with status {status}.")
    param = error.get("param")
    return EngineRefused(
        message.replace(target.engine_model, target.answers_as),
        param=param if isinstance(param, str) else None,
        status=status,
    )


def error_status(error: Mapping[str, Any]) -> int:
    """The status that an error object of a stream stands for; an engine's own fault where it has none."""
    code = error.get("code")
    if isinstance(code, str) and code.isdecimal():
        code = int(code)
    return code if type(code) is int and 400 <= code < 600 else 500


CONTROL: Mapping[Kind, Payload] = {
    Kind.CHAT: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    Kind.COMPLETION: {"prompt": "hi", "max_tokens": 1},
    Kind.EMBEDDING: {"input": "hi"},
    Kind.RESPONSE: {"input": "hi", "max_output_tokens": 1, "store": False},
}


def control(kind: Kind, target: Target) -> bytes:
    """Write the smallest request of a kind: an engine that is well answers it."""
    return orjson.dumps({**CONTROL[kind], "model": target.engine_model})


def _refuse_prompt_logprobs(call: Call) -> None:
    """Raise `InvalidRequest` for what would end an engine with slots, and everybody's requests with it.

    vLLM maps a prompt's rows to the adapters that others are sampled with, or past the end of its buffers
    (vllm-project/vllm#16668, open for 0.32). A completion with `echo` and `logprobs`, and any chat with
    `echo`, ask for the same.
    """
    payload = call.payload
    echo = _optional(payload, "echo", bool, "a boolean")
    echoes = bool(echo) and (call.kind is Kind.CHAT or payload.get("logprobs") is not None)
    if echoes or payload.get("prompt_logprobs") is not None:
        field = "echo" if echoes else "prompt_logprobs"
        raise InvalidRequest(
            "Log-probabilities of the prompt are not available where adapters are served.",
            param=field,
            code="unsupported_parameter",
        )


def model_card(target: Target, created: int) -> Payload:
    """Describe a model as `GET /v1/models` does; never a path. `root` and `parent` as vLLM uses them."""
    return {
        "id": target.answers_as,
        "object": "model",
        "created": created,
        "owned_by": target.tenant,
        "root": target.adapter or target.base_model,
        "parent": target.base_model if target.adapter else None,
    }


def sane_request_id(value: str | None) -> str | None:
    """Return a client's request id if it can go into a header and a log line as it is."""
    return value if value and _REQUEST_ID.fullmatch(value) else None


def _required(payload: Payload, field: str) -> Any:
    value = payload.get(field)
    if value is None:
        raise InvalidRequest(f"`{field}` is required.", param=field, code="missing_required_parameter")
    if isinstance(value, (list, str)) and not value:
        raise InvalidRequest(f"`{field}` must not be empty.", param=field, code="invalid_value")
    return value


def _optional(payload: Payload, field: str, expected: type, description: str) -> Any:
    if field not in payload:  # as nearly always; cheaper than to get it
        return None
    value = payload[field]
    if value is not None and not isinstance(value, expected):
        raise _wrong_type(field, description)
    return value


def _wrong_type(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` must be {description}.", param=field, code="invalid_type")


def _model_name(payload: Payload) -> str | None:
    """What TGI's and LoRAX's clients send says more than `model`, which they fill with a placeholder."""
    for field in ("adapter_id", "adapter_name", "model"):
        if field in payload and (name := _optional(payload, field, str, "a string")):
            return str(name)
    return None


def _user(payload: Payload) -> str | None:
    """The first of `USERS` that says something; what keeps a user on one side of a split."""
    for field in USERS:
        if field in payload and isinstance(value := payload[field], str) and value:
            return value
    return None


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
    """Read the bound on the answer, by whichever of its names; nonsense is left to vLLM to refuse."""
    for field in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if field in payload and type(value := payload[field]) is int and value > 0:
            return value
    return None


def _size(kind: Kind, payload: Payload, content: Any) -> prompts.PromptSize:
    """Measure what the model is to read; in a batch there are several prompts."""
    if kind is Kind.COMPLETION or kind is Kind.EMBEDDING:
        return prompts.of_prompts(content)
    size = prompts.of_messages(content) if kind is Kind.CHAT else prompts.of_input(content)
    prompts.add_beside(size, payload)
    return size


def _refuse_stored_responses(kind: Kind, payload: Payload) -> None:
    """Engines keep no responses: a store shared by tenants would have to be guarded by owner."""
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
