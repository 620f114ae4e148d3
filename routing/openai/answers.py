"""Reads engines' answers: usage, errors, and the client's name for the model in place of the engine's.

Errors reach the client without vLLM's inner names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from routing.errors import EngineRefused, InvalidRequest
from routing.openai import prompts
from routing.openai.bodies import Call, Payload
from routing.types import Target

# Of a model card; OpenAI's API had it once, and clients still read it.
PERMISSION: Mapping[str, Any] = {
    "object": "model_permission",
    "created": 0,
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}
USAGE_TAIL = b',"usage":{'
_COMPLETION = ("completion_tokens", "output_tokens")
_ANTHROPIC = ("cache_read_input_tokens", "cache_creation_input_tokens")  # which its prompt leaves out
MOST_TOKENS = 2**31 - 1  # of one request; the ledger holds no more, and no engine counts that many


@dataclass(slots=True)  # not frozen, as `Request`
class TokenUsage:
    """Tokens of one request, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the engine's prefix cache
    estimated: bool = False  # the engine did not count all of it

    def __post_init__(self) -> None:
        self.prompt_tokens = min(self.prompt_tokens, MOST_TOKENS)
        self.completion_tokens = min(self.completion_tokens, MOST_TOKENS)
        self.cached_tokens = min(self.cached_tokens, self.prompt_tokens)


def model_fields(target: Target) -> tuple[bytes, bytes]:
    """Return the model's field in JSON, as the engine writes it and as the client sees it.

    The client's name may be any text.

    One can replace the other in raw bytes: inside a JSON string every quote is escaped, so the engine's
    form occurs as a field only.
    """
    return b'"model":"%b"' % target.engine_model.encode(), b'"model":%b' % orjson.dumps(target.answers_as)


def usage_of(payload: Mapping[str, Any]) -> TokenUsage | None:
    """Read the usage of an answer, or of an event of a stream; None if it has none.

    Embeddings may state no completion; one that is no number is no count, and neither is the rest.
    """
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, *_COMPLETION)
    if prompt is None or (completion is None and not usage.keys().isdisjoint(_COMPLETION)):
        return None
    if not usage.keys().isdisjoint(_ANTHROPIC):
        read, made = (_count(usage, name) or 0 for name in _ANTHROPIC)
        return TokenUsage(prompt + read + made, completion or 0, read)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    return TokenUsage(prompt, completion or 0, cached or 0)


def usage_in(body: bytes) -> TokenUsage | None:
    """Read the usage of a whole answer.

    It stands near the end, so megabytes need not be parsed: if the text from its last mention on closes just
    one object, that object is the answer and the mention is its field.
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
    """Estimate the usage of a whole answer without one; embeddings have no completion."""
    completion = max(1, len(body) // prompts.BYTES_PER_TOKEN) if call.endpoint.writes else 0
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
    """Read vLLM's metadata header of embeddings in bytes. Returns it for the client, and its usage."""
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        return b"", None
    told = {**payload, "model": target.answers_as}  # of which a header takes ASCII alone
    return json.dumps(told, separators=(",", ":")).encode(), usage_of(payload)


def _count(counts: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if type(value) is int and 0 <= value <= MOST_TOKENS:
            return value
    return None


def engine_refusal(status: int, body: bytes, target: Target) -> InvalidRequest:
    """Turn vLLM's answer to a bad request into ours, without its inner names. `status` is 400..499."""
    try:
        return refusal_of(orjson.loads(body)["error"], status, target)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return refusal_of({}, status, target)


def refusal_of(error: Mapping[str, Any], status: int, target: Target) -> InvalidRequest:
    """Turn an error object of vLLM, of an answer or of a stream, into our error."""
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
    """Return the status of a stream's error object; 500 if it has none."""
    code = error.get("code")
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():
        code = int(code)
    return code if type(code) is int and 400 <= code < 600 else 500


def model_card(target: Target, created: int, max_model_len: int | None) -> Payload:
    """Describe a model as `GET /v1/models` of vLLM does; never a path. A length of None is not known yet."""
    return {
        "id": target.answers_as,
        "object": "model",
        "created": created,
        "owned_by": target.tenant,
        "root": target.adapter or target.base_model,
        "parent": target.base_model if target.adapter else None,
        "max_model_len": max_model_len,
        "permission": [{"id": f"modelperm-{target.answers_as}", **PERMISSION, "created": created}],
    }
