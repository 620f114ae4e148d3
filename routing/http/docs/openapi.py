"""What does the inference API take, and how does it fail? Its OpenAPI document, as plain data. Pure.

Only what the gateway reads, adds or refuses is described; every other field is OpenAI's, as vLLM takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines.protocol import Kind
from routing.errors import (
    AccountSuspended,
    BodyTimeout,
    BodyTooLarge,
    BreaksEngine,
    CapReached,
    Conflict,
    ContentFlagged,
    EngineFailed,
    EngineTimeout,
    Forbidden,
    HeadTooLarge,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    ModelMoved,
    ModelNotFound,
    ModelRetired,
    NotFound,
    OverLimit,
    Quarantined,
    QueueTimeout,
    QuotaExceeded,
    RequestError,
    StateUnavailable,
    TenantRemoved,
    Unavailable,
    UnsupportedMediaType,
)
from routing.http.docs import batches, speech
from routing.openai.endpoints import ENDPOINTS
from routing.usage.query import DEFAULT_DAYS, FOR_TENANTS, MAX_DAYS, MEASURES

Part = dict[str, Any]

ERRORS: tuple[type[RequestError], ...] = (
    InvalidRequest, BreaksEngine, ContentFlagged, OverLimit, InvalidKey, Forbidden, AccountSuspended,
    TenantRemoved,
    ModelNotFound, ModelRetired, NotFound, MethodNotAllowed, BodyTimeout, Quarantined, Conflict, BodyTooLarge,
    UnsupportedMediaType, HeadTooLarge, CapReached, QuotaExceeded, RequestError, EngineFailed, Unavailable,
    QueueTimeout, ModelMoved, StateUnavailable, EngineTimeout,
)  # fmt: skip
MOST_LISTED = 50  # of a caller's models, in a text for people
_ALWAYS = (401, 403, 405, 500)
_WITH_BODY = (400, 404, 408, 409, 413, 415, 429, 502, 503, 504)

_DESCRIPTION = """\
OpenAI's API for the models that your key may call; every OpenAI client works, with this address and `/v1` as
its `base_url`. The key says who you are, and `model` names one of your models: `support`, or `support@2` for
one version of it. `GET /v1/models` lists them.

    curl {where}/v1/chat/completions -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
      -d '{{"model": "support", "messages": [{{"role": "user", "content": "Hello"}}]}}'

Every answer has an `x-request-id`, yours where you send one. In an answer of a model, `model` is what you
asked for; `x-tenantry-model` is your alias of it, `x-tenantry-adapter` and `x-tenantry-version` say what
answered. `support; fallback=base` is your alias, and the other model of yours that answered in its place.
Where your models have prices, a whole answer has its `x-tenantry-cost`; of streams `GET /v1/usage` has the
sum. Where you have requests or tokens per minute, `x-ratelimit-limit-requests`, `-remaining-requests`,
`-reset-requests` and the same with `-tokens` say what is left. `openai-processing-ms` is the time until the
head of the answer.

| status | `code` | meaning |
|---|---|---|
{errors}

`code` may say more: which cap of yours is reached, for one. A 429 or 503 that can pass says when in
`Retry-After`; `x-should-retry` says whether the same request can succeed at all.
"""

_MODEL: Part = {
    "type": "string",
    "description": "One of your models, `name@2` for its version 2. Without it: your key's default model.",
    "examples": ["support"],
}
_STREAM: Part = {"type": "boolean", "description": "Send the answer as server-sent events while it is made."}
_USER: Part = {
    "type": "string",
    "description": "For whom you ask; `safety_identifier`, where you send it, counts instead. Your waiting "
    "requests are served by turns of your users. In a rollout of a new version, the same user stays on the "
    "same side; without both the same `prompt_cache_key` does.",
}
_TEXT_OR_LIST: Part = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {}}]}
_MESSAGES: Part = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_HELLO = [{"role": "user", "content": "Hello"}]

_TOKENS: Part = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_OTHERS = "Any other field goes to vLLM as it is."
_NOT_LISTED = "Fields that are not listed here are left out."
_ONE_ANSWER = "One answer for all, never a stream."
_NOT_CHARGED = "Counts as a request, and as no tokens; the body may have 2 MiB."

# Summary, what the usual fields hold, an example of each, what else is to be known.
_ENDPOINTS: dict[Kind, tuple[str, list[Part], list[Any], str]] = {
    Kind.CHAT: ("Answer a conversation", [_MESSAGES], [_HELLO], "OpenAI's chat completions."),
    Kind.CHAT_BATCH: (
        "Answer several conversations",
        [{"type": "array", "minItems": 1, "items": _MESSAGES}],
        [[_HELLO, _HELLO]],
        f"vLLM's: `messages` is a list of conversations, each with a choice of its own. {_ONE_ANSWER}",
    ),
    Kind.COMPLETION: ("Continue a text", [_TEXT_OR_LIST], ["Hello"], "OpenAI's text completions."),
    Kind.EMBEDDING: (
        "Embed texts",
        [_TEXT_OR_LIST],
        [["Hello"]],
        "Where the model is one for embeddings. `messages` in place of `input` is one conversation to embed.",
    ),
    Kind.POOLING: (
        "Read the hidden states of texts",
        [_TEXT_OR_LIST],
        [["Hello"]],
        "vLLM's, where the model pools. `messages` may stand in place of `input`.",
    ),
    Kind.SCORE: (
        "Score pairs of texts",
        [_TEXT_OR_LIST, _TEXT_OR_LIST],
        ["Hello", ["Hi", "Bye"]],
        "vLLM's, where the model scores; also at `/v1/score`. `queries` with `items`, `data_1` with `data_2` "
        "and `text_1` with `text_2` are other names of the two.",
    ),
    Kind.RERANK: (
        "Order documents by a query",
        [{"type": "string"}, _TEXT_OR_LIST],
        ["Hello", ["Hi", "Bye"]],
        "Jina's and Cohere's, where the model scores; also at `/v1/rerank`.",
    ),
    Kind.TOKENIZE: (
        "Split a text into tokens",
        [{"type": "string"}],
        ["Hello"],
        f"vLLM's. `messages` in place of `prompt` are put into the model's chat template. {_NOT_CHARGED}",
    ),
    Kind.MESSAGES: (
        "Answer a conversation, in Anthropic's form",
        [{"type": "integer", "minimum": 1}, _MESSAGES],
        [256, _HELLO],
        "Anthropic's messages: events and errors have its form too, and the key may come as `x-api-key`.",
    ),
    Kind.COUNT_TOKENS: (
        "Count the tokens of a conversation, in Anthropic's form",
        [_MESSAGES],
        [_HELLO],
        f"Anthropic's. {_NOT_CHARGED}",
    ),
    Kind.DETOKENIZE: ("Join tokens to a text", [_TOKENS], [[1, 2]], f"vLLM's. {_NOT_CHARGED}"),
    Kind.RESPONSE: (
        "Answer an input",
        [_TEXT_OR_LIST],
        ["Hello"],
        "OpenAI's responses. None is stored: `previous_response_id` and `background` are refused.",
    ),
    **speech.ENDPOINTS,
}


_HEALTH: Part = {"name": "Health", "description": "For probes."}


def document(models: Sequence[str] = ()) -> Part:
    """Build the document; of a caller's own models the first stands in the examples."""
    name = _MODEL if not models else {**_MODEL, "description": _own(models), "examples": [*models]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tenantry inference API", "version": "1", "description": _description()},
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"x-api-key": []}],
        "tags": [*({"name": tag} for tag in ("Models", "Batches", "Usage")), _HEALTH],
        "paths": {
            **{kind.value: {"post": _endpoint(kind, name)} for kind in Kind},
            **_reading(name),
            **batches.paths(_failures),
            **_health(),
        },
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Your API key."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {
                "Error": _error_schema(),
                "AnthropicError": _anthropic_error(),
                "Model": _model_schema(),
            },
            "responses": {f"E{status}": _failure(status) for status in sorted({e.status for e in ERRORS})},
        },
    }


def paths() -> list[str]:
    """List every path that the document describes."""
    return list(document()["paths"])


def _description() -> str:
    rows = "\n".join(f"| {e.status} | `{e.default_code}` | {_meaning(e)} |" for e in ERRORS)
    return _DESCRIPTION.format(where="http://localhost:3000", errors=rows)


def _meaning(error: type[RequestError]) -> str:
    if error is RequestError:
        return "The gateway met an error of its own."
    return (error.__doc__ or "").partition("\n")[0]


def _own(models: Sequence[str]) -> str:
    listed = ", ".join(f"`{model}`" for model in models[:MOST_LISTED])
    more = f" and {len(models) - MOST_LISTED} more" if len(models) > MOST_LISTED else ""
    return f"{_MODEL['description']} Yours: {listed}{more}."


def _endpoint(kind: Kind, model: Part) -> Part:
    summary, schemas, examples, description = _ENDPOINTS[kind]
    endpoint = ENDPOINTS[kind]
    properties: Part = {"model": model, **dict(zip(endpoint.usual, schemas, strict=True))}
    answer: Part = {"application/json": {"schema": {"type": "object", "description": "As OpenAI's."}}}
    if endpoint.streams:
        properties["stream"] = _STREAM
        answer["text/event-stream"] = {"schema": {"type": "string", "description": "Events, then `[DONE]`."}}
    if endpoint.form:
        properties = speech.properties() | properties
    properties["user"] = _USER
    ways: list[Part] = [{"required": list(names)} for names in endpoint.content]
    schema = {"type": "object", "properties": properties, **(ways[0] if len(ways) == 1 else {"anyOf": ways})}
    example = {"model": model["examples"][0], **dict(zip(endpoint.usual, examples, strict=True))}
    body = {"schema": schema, "example": example}
    failures = _failures(*_WITH_BODY)
    if endpoint.anthropic:
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/AnthropicError"}}}
        failures = {status: {"description": "Anthropic's form.", "content": error} for status in failures}
    return {
        "tags": ["Models"],
        "operationId": kind.name.lower(),
        "summary": summary,
        "description": description
        if endpoint.form
        else f"{description} Any other field goes to vLLM as it is.",
        "requestBody": {
            "required": True,
            "content": {speech.FORM if endpoint.form else "application/json": body},
        },
        "responses": {"200": {"description": "The answer.", "content": answer}, **failures},
    }


def _reading(named: Part) -> Part:
    model = {"$ref": "#/components/schemas/Model"}
    models = {"type": "object", "properties": {"object": {"const": "list"}, "data": _array(model)}}
    told = named["description"]  # pages show a parameter's own text, and not its schema's
    name = {"name": "id", "in": "path", "required": True, "description": told, "schema": named}
    version = {"type": "object", "properties": {"version": {"type": "string"}}}
    load = {"type": "object", "properties": {"server_load": {"type": "integer"}}}
    return {
        "/v1/models": {
            "get": _get("Models", "models", "List your models", models),
        },
        "/v1/models/{id}": {
            "get": {
                **_get("Models", "model", "Describe one of your models", model, 404),
                "parameters": [name],
            },
        },
        "/v1/usage": {
            "get": {
                **_get(
                    "Usage", "usage", "What you have used, and what is left", _usage_schema(), 400, 429, 503
                ),
                "parameters": [
                    _parameter("from", f"First day, UTC; without it {DEFAULT_DAYS} days.", "2026-01-01"),
                    _parameter("to", f"Last day, included; at most {MAX_DAYS} days.", "2026-01-31"),
                    _parameter("group_by", f"Of {', '.join(FOR_TENANTS)}; with commas.", "day,model"),
                ],
            },
        },
        "/version": {"get": _get("Usage", "version", "The release of the service", version)},
        "/load": {"get": _get("Usage", "load", "How many sequences of yours wait or run", load)},
    }


def _health() -> Part:
    def probe(name: str, summary: str) -> Part:
        answers = {"200": {"description": "Yes."}, "503": {"description": "No."}}
        return {
            "get": {
                "tags": ["Health"],
                "operationId": name,
                "summary": summary,
                "description": "Needs no key.",
                "security": [],
                "responses": answers,
            }
        }

    return {
        "/livez": probe("livez", "Does the gateway run?"),
        "/healthz": probe("healthz", "The same"),
        "/readyz": probe("readyz", "Can requests be answered?"),
        "/health": probe("health", "The same as `/readyz`; empty"),
        "/ping": probe("ping", "The same as `/readyz`; empty"),
    }


def _get(tag: str, name: str, summary: str, schema: Part, *statuses: int) -> Part:
    content = {"application/json": {"schema": schema}}
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "The answer.", "content": content}, **_failures(*statuses)},
    }


def _failures(*statuses: int) -> Part:
    return {str(s): {"$ref": f"#/components/responses/E{s}"} for s in sorted((*_ALWAYS, *statuses))}


def _failure(status: int) -> Part:
    errors = [error for error in ERRORS if error.status == status]
    schema = {"$ref": "#/components/schemas/Error"}
    first = errors[0]
    shown = {"message": _meaning(first), "type": first.type, "param": None, "code": first.default_code}
    return {
        "description": " ".join(_meaning(error) for error in errors),
        "content": {"application/json": {"schema": schema, "example": {"error": shown}}},
    }


def _error_schema() -> Part:
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    fields = {
        "message": {**text, "description": "For people: what is wrong."},
        "type": {**text, "description": "Kind of error."},
        "param": {**maybe, "description": "The field that is wrong."},
        "code": {**maybe, "description": "For programs; stays the same."},
    }
    error = {"type": "object", "required": list(fields), "properties": fields}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _anthropic_error() -> Part:
    texts = {name: {"type": "string"} for name in ("type", "message")}
    error = {"type": "object", "required": list(texts), "properties": texts}
    properties = {"type": {"const": "error"}, "error": error, "request_id": {"type": "string"}}
    return {"type": "object", "required": ["type", "error"], "properties": properties}


def _model_schema() -> Part:
    texts: Part = {name: {"type": "string"} for name in ("id", "owned_by", "root")}
    others = {
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "max_model_len": {
            "type": ["integer", "null"],
            "description": "Tokens of prompt and answer together; null: not known yet.",
        },
        "permission": _array({"type": "object"}),
        "parent": {"type": ["string", "null"]},
    }
    return {"type": "object", "required": ["id", "object"], "properties": texts | others}


def _usage_schema() -> Part:
    measures: Part = {name: {"type": "number"} for name in MEASURES}
    cost: Part = {"type": ["string", "null"], "description": "Exact; null where nothing had a price."}
    sums = {"type": "object", "properties": {**measures, "cost": cost}}
    budget = {"type": ["object", "null"], "description": "The month's, where you have one."}
    days: Part = {name: {"type": "string", "format": "date"} for name in ("from", "to")}
    key = {"type": "object", "description": "The key that asks: `id`, its own `limits`, its own `budget`."}
    rest = {
        "group_by": _array({"type": "string"}),
        "data": _array(sums),
        "total": sums,
        "budget": budget,
        "key": key,
    }
    currency: Part = {"type": ["string", "null"], "description": "Of costs."}
    head: Part = {"object": {"const": "list"}, "currency": currency}
    return {"type": "object", "properties": head | days | rest}


def _array(items: Part) -> Part:
    return {"type": "array", "items": items}


def _parameter(name: str, description: str, example: str) -> Part:
    schema = {"type": "string"}
    return {"name": name, "in": "query", "description": description, "schema": schema, "example": example}
