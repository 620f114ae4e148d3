"""Which texts does a request bring, and an answer? For whoever looks at them before they go on. Pure.

All texts that a model reads or writes are taken, wherever a form has them: contents, reasoning, refusals,
what tools are called with and what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from routing.openai.endpoints import Endpoint

EVENT_END = b"\n\n"
_BESIDE = (
    "system",
    "instructions",
    "previous_input_messages",
    "instruction",
    "suffix",
    "tools",
    "chat_template",
)
_WHOLE = ("documents", "chat_template_kwargs")  # a template reads what it likes of them
# Fields that are a text, or hold some.
_FIELDS = frozenset(
    [
        *(
            "content",
            "text",
            "refusal",
            "thinking",
            "reasoning",
            "reasoning_content",
            "arguments",
            "partial_json",
        ),
        *(
            "choices",
            "message",
            "delta",
            "tool_calls",
            "function",
            "function_call",
            "output",
            "summary",
            "name",
        ),
        *("content_block", "description", "parameters", "input_schema", "title", "code"),
    ]
)
_OBJECTS = frozenset({"input", "parameters", "input_schema"})  # written as JSON, for a model to read
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})  # others are written too
_OF_EVENT = ("choices", "delta", "content_block")  # what else an event of a stream holds has come before
_INDICES = ("index", "output_index", "content_index", "summary_index")


def of_prompt(payload: Mapping[str, Any], endpoint: Endpoint) -> list[str]:
    """Return the texts that a model would read. Token ids and media have none."""
    content = (name for way in endpoint.content for name in way)
    names = dict.fromkeys((*content, *endpoint.beside, *_BESIDE))
    known = (text for name in names for text in _texts(payload.get(name)))
    others = (text for name in _WHOLE if name not in names for text in _all_texts(payload.get(name)))
    return [text for text in (*known, *others) if text]


def of_answer(body: bytes) -> list[str]:
    """Return the texts of a whole answer."""
    return [text for text in _texts(_object(body)) if text]


def of_events(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield what whole events of a stream add: to which text of the answer, and what."""
    for event in data.split(EVENT_END):
        start = event.find(b"data: ")
        payload = _object(event[start + len(b"data: ") :]) if start >= 0 else {}
        whole = ":".join(str(payload[name]) for name in _INDICES if name in payload)
        for name in _OF_EVENT:
            value = payload.get(name)
            for part in value if type(value) is list else [value]:
                own = f"{whole}:{part.get('index')}" if type(part) is dict else whole
                for text in _texts(part):
                    yield own, text


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if type(found) is str:
            yield found
        elif type(found) is list:
            waiting += reversed(found)
        elif type(found) is dict:
            for name, inner in reversed(found.items()):
                if type(inner) is dict and name in _OBJECTS:
                    yield str(inner)
                elif name in _FIELDS or (name == "role" and str(inner) not in _ROLES):
                    waiting.append(inner)


def _all_texts(value: Any) -> Iterator[str]:
    """Yield every text inside, under whatever name."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if type(found) is str:
            yield found
        elif type(found) is list:
            waiting += reversed(found)
        elif type(found) is dict:
            waiting += reversed(found.values())
