"""Which JSON types do vLLM's request bodies take, field by field? Read from its own protocol models.

    python -m tests.vllm_fields > routing/openai/vllm_fields.py

writes the table, for `ruff format`, that the gateway goes by, which never imports vLLM itself.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from engines.protocol import Kind
from routing.openai.bodies import DROPPED_FIELDS, OVERWRITTEN_FIELDS

HEAD = '''"""JSON types that vLLM's request bodies take, by field; written by `python -m tests.vllm_fields`.

Letters are the types: n null, b boolean, i integer, f number, s text, a array, o object. What has fields
or items of its own is a mapping: "" has its types, "[]" its items, the others are its fields. Types that
pydantic converts into each other are not told apart, unchecked fields are left out.
"""

from __future__ import annotations

from typing import Any

from engines.protocol import Kind

'''

TYPES = {
    "null": "n",
    "boolean": "bifs",
    "integer": "bifs",
    "number": "bifs",
    "string": "s",
    "array": "a",
    "object": "o",
}
ALL = "abfinos"
DEPTH = 4  # fields of a message's part are the deepest that vLLM's validators look at
# What vLLM's validators look into before its models have checked it.
UNCHECKED: dict[Kind, dict[str, Any]] = {
    Kind.CHAT: {"messages": {"[]": {"tool_calls": "an", "content": {"[]": {"type": "ns"}}}}}
}
LONG = 100  # characters of a spec that is written once
SHALLOW = (Kind.MESSAGES, Kind.COUNT_TOKENS)  # whose validators look into nothing unchecked
OPEN = ("input",)  # unions of a hundred types: their items are left to vLLM


def models() -> dict[Kind, tuple[Any, ...]]:
    """vLLM's models of each route; where there are several, any of them may be meant."""
    from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
    from vllm.entrypoints.openai.chat_completion.protocol import (
        BatchChatCompletionRequest,
        ChatCompletionRequest,
    )
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
    from vllm.entrypoints.pooling.pooling.protocol import PoolingChatRequest, PoolingCompletionRequest
    from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreRequest
    from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest

    return {
        Kind.CHAT: (ChatCompletionRequest,),
        Kind.CHAT_BATCH: (BatchChatCompletionRequest,),
        Kind.POOLING: (PoolingCompletionRequest, PoolingChatRequest),
        Kind.SCORE: ScoreRequest.__args__,
        Kind.RERANK: (RerankRequest,),
        Kind.MESSAGES: (AnthropicMessagesRequest,),
        Kind.COUNT_TOKENS: (AnthropicCountTokensRequest,),
        Kind.TOKENIZE: TokenizeRequest.__args__,
        Kind.DETOKENIZE: (DetokenizeRequest,),
        Kind.COMPLETION: (CompletionRequest,),
        Kind.EMBEDDING: EmbeddingRequest.__origin__.__args__,
        Kind.RESPONSE: (ResponsesRequest,),
    }


def table() -> dict[Kind, dict[str, Any]]:
    """Types of every field, by route."""
    found = {kind: _of_route(each, 1 if kind in SHALLOW else DEPTH) for kind, each in models().items()}
    for route, fields in UNCHECKED.items():
        _merge(found[route], fields)
    return found


def _merge(fields: dict[str, Any], more: dict[str, Any]) -> None:
    for name, spec in more.items():
        if not isinstance(spec, dict):
            fields[name] = spec
            continue
        known = fields.get(name, {})
        fields[name] = dict(known) if isinstance(known, dict) else {"": known}
        _merge(fields[name], spec)


def _of_route(found: tuple[Any, ...], depth: int) -> dict[str, Any]:
    schemas = [model.model_json_schema() for model in found]
    names = {name for schema in schemas for name in schema["properties"]}
    fields = {}
    for name in sorted(names.difference(DROPPED_FIELDS, OVERWRITTEN_FIELDS)):
        nodes = [
            (schema["properties"][name], schema.get("$defs", {}))
            for schema in schemas
            if name in schema["properties"]
        ]
        spec = _spec(nodes, 0 if name in OPEN else depth)
        if spec != ALL:
            fields[name] = spec
    return fields


Node = tuple[dict[str, Any], dict[str, Any]]  # a schema, and the definitions it may refer to


def _spec(nodes: list[Node], depth: int) -> Any:
    """Types of what may be any of these; with its fields and items where they are limited too."""
    flat = [leaf for node in nodes for leaf in _alternatives(*node)]
    if any(_is_anything(schema) for schema, _ in flat):
        return ALL
    letters = "".join(sorted({letter for schema, _ in flat for letter in _letters(schema)}))
    if not depth:
        return letters
    inner: dict[str, Any] = {}
    arrays = [(schema, defs) for schema, defs in flat if schema.get("type") == "array"]
    if arrays and all(schema.get("items") for schema, _ in arrays):
        inner["[]"] = _spec([(schema["items"], defs) for schema, defs in arrays], depth - 1)
    objects = [(schema, defs) for schema, defs in flat if schema.get("type") == "object"]
    if objects and all("properties" in schema for schema, _ in objects):
        for name in sorted({name for schema, _ in objects for name in schema["properties"]}):
            named = [(s["properties"][name], defs) for s, defs in objects if name in s["properties"]]
            if len(named) == len(objects) or not any(s.get("additionalProperties") for s, _ in objects):
                inner[name] = _spec(named, depth - 1)
    limited = {name: spec for name, spec in inner.items() if spec != ALL}
    return {"": letters, **limited} if limited else letters


def _alternatives(schema: dict[str, Any], defs: dict[str, Any]) -> Iterator[Node]:
    if "$ref" in schema:
        yield from _alternatives(defs[schema["$ref"].rpartition("/")[2]], defs)
    elif found := schema.get("anyOf") or schema.get("oneOf"):
        for one in found:
            yield from _alternatives(one, defs)
    else:
        yield schema, defs


def _is_anything(schema: dict[str, Any]) -> bool:
    return not _letters(schema)


def _letters(schema: dict[str, Any]) -> str:
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return "".join(TYPES[kind] for kind in kinds)
    if "const" in schema or "enum" in schema:
        return ALL
    return ""


def _shared(found: dict[Kind, dict[str, Any]]) -> dict[str, Any]:
    """Long specs that stand several times, by the first field that has it; puts the names in their place."""
    times = Counter(json.dumps(spec) for fields in found.values() for spec in fields.values())
    names: dict[str, str] = {}
    named: dict[str, Any] = {}
    for fields in found.values():
        for field, spec in fields.items():
            written = json.dumps(spec)
            if times[written] > 1 and len(written) > LONG:
                name = names.setdefault(written, field.upper())
                named[name], fields[field] = spec, f"@{name}"
    return named


def text() -> str:
    """The table as a module."""
    found = table()
    shared = [f"{name}: Any = {json.dumps(spec, indent=1)}" for name, spec in sorted(_shared(found).items())]
    written = json.dumps(found, indent=1, sort_keys=True)
    for kind in Kind:
        written = written.replace(f'"{kind}":', f"Kind.{kind.name}:")
    written = re.sub('"@([A-Z_0-9]+)"', r"\1", written)
    return f"{HEAD}{chr(10).join(shared)}\nFIELDS: dict[Kind, dict[str, Any]] = {written}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
