"""Bounds on the fields of a body, checked before an engine sees it. Pure.

An engine is shared: all requests wait while it validates or compiles one, or keeps state for its tokens.
Only present fields cost time here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from fleet.types import RequestLimits
from routing.errors import OverLimit
from routing.openai.grammars import Costly, check_grammar, check_regex

MAX_DEPTH = 254  # of the body; deeper ones cannot be written again
MAX_PROMPTS = 2048  # in one request; OpenAI's bound for embeddings
MAX_WORDS = 128  # `stop` and `bad_words`; vLLM's own bound for the latter
MAX_WORDS_BYTES = 16_384  # all of them together
MAX_OBJECT_BYTES = 65_536  # passed on to templates and processors
MAX_PATTERN_TOKENS = 1024  # of the patterns of `repetition_detection`, checked after every token
LARGEST_NUMBER = 2**64 - 1
SMALLEST_NUMBER = -(2**63)
BOUNDED_TIMES = 10  # properties with the cost of one length or pattern
REGEX_PART = 16  # a regular expression's bound is this part of other constraints'
TOOLS_TIMES = 4  # all tools together may be this much longer than one constraint

_64_BITS = "what fits into 64 bits"  # a longer integer becomes another number on the way
_OFF = (None, False, 0, "false", "False", "FALSE", "f", "F", "n", "N", "no", "No", "NO", "off", "Off", "0")
_COUNTED = frozenset(
    [
        *("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "required", "enum"),
        *("anyOf", "oneOf", "allOf", "prefixItems", "structures", "triggers", "tags", "elements"),
    ]
)
_BOUNDED = frozenset(
    ["pattern", "regex", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"]
)
_COSTLY_KEYS = (b'"pattern', b'"regex"', b'"grammar"', b'"min', b'"max')  # costlier than their length

Payload = Mapping[str, Any]
_Rule = Callable[[str, Any, RequestLimits], None]


def check(payload: Payload, limits: RequestLimits, *, content: str, prompts: int, size_bytes: int) -> None:
    """Raise `OverLimit` that names the first field that exceeds its bound, and the bound.

    `prompts` is the body's number of prompts, which `content` holds, `size_bytes` the body's length.
    """
    if prompts > MAX_PROMPTS:
        raise _over(content, f"has {prompts} prompts", MAX_PROMPTS)
    for name, value in payload.items():
        if name in _RULES and value is not None:
            _RULES[name](name, value, limits)
        if type(value) is float and not SMALLEST_NUMBER <= value <= LARGEST_NUMBER:
            raise _over(name, f"is {value:g}", _64_BITS)
    if "use_beam_search" in payload:
        _refuse_beams(payload, limits)
    if size_bytes > 3 * limits.messages:  # else there cannot be as many parts
        _refuse_many_parts(payload, limits)


# -- messages ----------------------------------------------------------------------------------------------


def _messages(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is list and len(value) > limits.messages and type(value[0]) is dict:
        raise _over(name, f"has {len(value)} entries", limits.messages)


def _refuse_many_parts(payload: Payload, limits: RequestLimits) -> None:
    """Count the parts of messages: of their contents, and calls of tools."""
    for name in ("messages", "input", "previous_input_messages"):
        messages = _all_messages(payload.get(name))
        inner = (message.get(part) for message in messages if type(message) is dict for part in _PARTS)
        count = len(messages) + sum(len(each) for each in inner if type(each) is list)
        if count > limits.messages and type(messages[0]) is dict:
            raise _over(name, f"has {count} entries, parts of messages included", limits.messages)


def _all_messages(value: Any) -> list[Any]:
    """Return the messages of a chat, or of all chats of a batch."""
    if type(value) is list and value and type(value[0]) is list:
        return [message for chat in value if type(chat) is list for message in chat]
    return value if type(value) is list else []


_PARTS = ("content", "tool_calls", "output", "summary")


# -- lists, words and numbers ------------------------------------------------------------------------------


def _entries(name: str, value: Any, limits: RequestLimits) -> None:
    if isinstance(value, (list, dict)):
        if len(value) > limits.list_entries:
            raise _over(name, f"has {len(value)} entries", limits.list_entries)
        if type(value) is list:
            for number, entry in enumerate(value):
                if type(entry) is float and not SMALLEST_NUMBER <= entry <= LARGEST_NUMBER:
                    raise _over(f"{name}[{number}]", f"is {entry:g}", _64_BITS)


def _words(name: str, value: Any, limits: RequestLimits) -> None:
    words = value if type(value) is list else [value]
    if len(words) > MAX_WORDS:
        raise _over(name, f"has {len(words)} entries", MAX_WORDS)
    _refuse_long(name, words, MAX_WORDS_BYTES)


def _choices(name: str, value: Any, limits: RequestLimits) -> None:
    _number(name, value, limits.choices)


def _logprobs(name: str, value: Any, limits: RequestLimits) -> None:
    _number(name, value, limits.logprobs)


def _repetition(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is dict:
        _number(f"{name}.max_pattern_size", value.get("max_pattern_size"), MAX_PATTERN_TOKENS)


def _number(name: str, value: Any, bound: int) -> None:
    if isinstance(value, (int, float)) and value > bound:
        raise _over(name, f"is {value:g}" if type(value) is float else f"is {value}", bound)


def _object(name: str, value: Any, limits: RequestLimits) -> None:
    if isinstance(value, (dict, list)):
        _refuse_long(name, [written(name, value)], MAX_OBJECT_BYTES)
    else:
        _refuse_long(name, [value], MAX_OBJECT_BYTES)


# -- constraints on the answer ----------------------------------------------------------------------------


def _structured_outputs(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is not dict:
        return
    for field, rule in _CONSTRAINTS.items():
        inner = value.get(field)
        if inner is not None:
            rule(f"{name}.{field}", inner, limits)


def _choice(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is list:
        if len(value) > limits.constraint_entries:
            raise _over(name, f"has {len(value)} entries", limits.constraint_entries)
        _refuse_long(name, value, limits.constraint_bytes)


def _regex(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is str:
        _refuse_long(name, [value], limits.constraint_bytes // REGEX_PART)
        _refuse_costly(name, value, check_regex)


def _grammar(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is str:
        _refuse_long(name, [value], limits.constraint_bytes)
        _refuse_costly(name, value, check_grammar)


def _schema(name: str, value: Any, limits: RequestLimits) -> None:
    """Check a JSON schema or a structural tag, as an object or as its text."""
    if type(value) is str:
        _refuse_long(name, [value], limits.constraint_bytes)
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return  # vLLM refuses it
    if isinstance(value, (dict, list)):
        text = written(name, value)
        _refuse_long(name, [text], limits.constraint_bytes)
        _look_inside(name, value, text, limits)


def _text(name: str, value: Any, limits: RequestLimits) -> None:
    if type(value) is dict and value.get("format") is not None:
        _schema(f"{name}.format", value["format"], limits)


def _output_config(name: str, value: Any, limits: RequestLimits) -> None:
    form = value.get("format") if type(value) is dict else None
    if type(form) is dict and form.get("schema") is not None:
        _schema(f"{name}.format.schema", form["schema"], limits)


def _tools(name: str, value: Any, limits: RequestLimits) -> None:
    """Check tools one by one: vLLM compiles their arguments' schemas if one of them must be called."""
    if type(value) is not list:
        return
    if len(value) > limits.tools:
        raise _over(name, f"has {len(value)} entries", limits.tools)
    text = written(name, value)
    _refuse_long(name, [text], TOOLS_TIMES * limits.constraint_bytes)
    if _is_harmless(text, limits):
        return
    for number, tool in enumerate(value):
        if isinstance(tool, dict):
            _look_inside(f"{name}[{number}]", tool, written(name, tool), limits)


def _is_harmless(text: bytes, limits: RequestLimits) -> bool:
    """Whether it cannot hold too many entries, nor any that costs more than an entry."""
    entries = text.count(b",") + text.count(b"{") + text.count(b"[")  # at least as many as there are
    return entries <= limits.constraint_entries and not any(key in text for key in _COSTLY_KEYS)


def _look_inside(name: str, value: Any, text: bytes, limits: RequestLimits) -> None:
    """Count the properties, values and alternatives of a schema; check its patterns and grammars."""
    if _is_harmless(text, limits):
        return
    entries = 0
    waiting = [("", value)]
    while waiting:
        key, node = waiting.pop()
        if key in _COUNTED:
            entries += len(node)
        if key == "patternProperties":
            for pattern in node:
                _in(name, _regex, key, pattern, limits)
        if type(node) is dict:
            entries += BOUNDED_TIMES * len(node.keys() & _BOUNDED)
            for inner_key in node.keys() & _INNER.keys():
                _in(name, _INNER[inner_key], inner_key, node[inner_key], limits)
            waiting += ((key, each) for key, each in node.items() if isinstance(each, (dict, list)))
        else:
            waiting += (("", each) for each in node if isinstance(each, (dict, list)))
    if entries > limits.constraint_entries:
        raise _over(name, f"has {entries} properties, values and alternatives", limits.constraint_entries)


def _in(name: str, rule: _Rule, key: str, value: Any, limits: RequestLimits) -> None:
    try:
        rule(key, value, limits)
    except OverLimit as error:
        raise OverLimit(f"In `{name}`: {error.message}", param=name) from None


_INNER: Mapping[str, _Rule] = {"pattern": _regex, "regex": _regex, "grammar": _grammar}
_CONSTRAINTS: Mapping[str, _Rule] = {
    "choice": _choice,
    "regex": _regex,
    "whitespace_pattern": _regex,
    "grammar": _grammar,
    "json": _schema,
    "structural_tag": _schema,
}


def _refuse_costly(name: str, text: str, check: Callable[[str], None]) -> None:
    try:
        check(text)
    except Costly as error:
        raise OverLimit(f"`{name}` {error}.", param=name) from None


def _refuse_beams(payload: Payload, limits: RequestLimits) -> None:
    """Raise `OverLimit` for a beam search that is wider than allowed; 0 allows none."""
    if payload.get("use_beam_search") in _OFF:
        return
    if not limits.beam_width:
        raise OverLimit(
            "`use_beam_search` is off here: a beam search keeps an engine from others.",
            param="use_beam_search",
        )
    _number("n", payload.get("n"), limits.beam_width)


# -- measures ----------------------------------------------------------------------------------------------


def _refuse_long(name: str, texts: Iterable[Any], bound: int) -> None:
    size = sum(_bytes(text) for text in texts)
    if size > bound:
        raise _over(name, f"has {size} bytes", bound)


def _bytes(text: Any) -> int:
    if isinstance(text, str) and not text.isascii():
        return len(text.encode())
    return len(text) if isinstance(text, (str, bytes)) else 0


def written(name: str, value: Any) -> bytes:
    """Write a field's value as JSON. Raises `OverLimit` if it is nested too deeply."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise OverLimit(
            f"`{name}` is nested too deeply; the whole body may have {MAX_DEPTH} levels.", param=name
        ) from None


def _over(name: str, what: str, bound: int | str) -> OverLimit:
    return OverLimit(f"`{name}` {what}; the most that is taken is {bound}.", param=name)


_ENTRIES = (
    *("stop_token_ids", "allowed_token_ids", "logprob_token_ids", "bad_words_token_ids", "logit_bias"),
    *("documents", "include", "prompt_embeds"),
)
_OBJECTS = (
    *("chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs"),
    *("metadata", "reasoning", "tool_choice"),
)
_RULES: Mapping[str, _Rule] = {
    "messages": _messages,
    "input": _messages,
    "previous_input_messages": _messages,
    "n": _choices,
    "best_of": _choices,
    "logprobs": _logprobs,
    "top_logprobs": _logprobs,
    "prompt_logprobs": _logprobs,
    "repetition_detection": _repetition,
    "stop": _words,
    "stop_sequences": _words,
    "output_config": _output_config,
    "bad_words": _words,
    **dict.fromkeys(_ENTRIES, _entries),
    **dict.fromkeys(_OBJECTS, _object),
    "tools": _tools,
    "structured_outputs": _structured_outputs,
    "response_format": _schema,
    "text": _text,
}
