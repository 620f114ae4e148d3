"""Estimates the length of the prompt in a request body, before an engine has counted it. Pure.

Only the model's input counts: text of messages, prompt, input, instructions and tools. Token ids are
counted, pictures, recordings and films count as a fixed number of tokens each, other fields as none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fleet.types import MediaTokens

BYTES_PER_TOKEN = 4  # of text in UTF-8; rough, right for English
# Type or field of a part of a message (vLLM's renderers/chat_utils.py) -> its kind of medium.
MEDIA: Mapping[str, str] = {
    "image": "image",
    "image_url": "image",
    "image_embeds": "image",
    "image_pil": "image",
    "input_image": "image",
    "audio_url": "audio",
    "input_audio": "audio",
    "audio_embeds": "audio",
    "video_url": "video",
}
# Fields of messages, of their parts and of a response's input items that hold text, or parts with text.
_TEXTS = ("content", "text", "refusal", "thinking", "reasoning", "reasoning_content", "name", "arguments")
_NESTED = ("tool_calls", "function", "function_call", "output", "summary")
_NUMBERS = frozenset((int, float, bool))
_PLAIN = frozenset(("role", "content"))  # of nearly all messages
MAX_DEPTH = 6  # message, parts, part and one more; no template reads deeper


@dataclass(slots=True)
class PromptSize:
    """The size of a model's input in a body."""

    prompts: int = 1
    text_bytes: int = 0  # in UTF-8
    token_ids: int = 0
    images: int = 0
    audios: int = 0
    videos: int = 0
    has_parts: bool = False  # objects were met in which media may stand

    def tokens(self, media: MediaTokens) -> int:
        """Estimate its tokens."""
        count = self.token_ids + self.text_bytes // BYTES_PER_TOKEN
        count += self.images * media.image + self.audios * media.audio + self.videos * media.video
        return max(1, count)


def of_messages(messages: list[Any]) -> PromptSize:
    """Measure a chat."""
    size = PromptSize()
    for message in messages:
        if type(message) is dict and message.keys() == _PLAIN and type(content := message["content"]) is str:
            size.text_bytes += _bytes(content)
        else:
            _add(size, message, 0)
    return size


def of_input(content: Any) -> PromptSize:
    """Measure the input of a response: a text, or items that are much like messages."""
    size = PromptSize()
    _add(size, content, 0)
    return size


def of_prompts(content: Any) -> PromptSize:
    """Measure a text, a list of token ids, or a list of any of these, each a prompt of its own.

    vLLM takes whatever reads as a number for a token id: `1.0`, `true`, `"5"` beside numbers or in an inner
    list. It refuses lists of other values; messages in them are measured.
    """
    size = PromptSize()
    if type(content) is str:
        size.text_bytes = _bytes(content)
    elif type(content) is list and any(type(each) in _NUMBERS for each in content):
        size.token_ids = len(content)
    elif type(content) is list:
        size.prompts = 1 if content and type(content[0]) is dict else len(content)  # messages: one chat
        for prompt in content:
            if type(prompt) is list and _holds_token_ids(prompt):
                size.token_ids += len(prompt)
            else:
                _add(size, prompt, 0)
    return size


def _holds_token_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and (type(prompt[0]) is int or not any(type(each) is dict for each in prompt))


def of_chats(chats: list[Any]) -> PromptSize:
    """Measure a batch of chats, each a prompt of its own."""
    size = PromptSize(prompts=len(chats))
    for chat in chats:
        _add(size, chat, 0)
    return size


def of_pairs(left: Any, right: Any) -> PromptSize:
    """Measure texts that are read in pairs: one with each of many, or the first with the first, and so on."""
    sides = [side if type(side) is list else [side] for side in (left, right)]
    size = PromptSize(prompts=max(len(side) for side in sides))
    for side in sides:
        own = PromptSize()
        for text in side:
            _add(own, text, 0)
        times = size.prompts // max(1, len(side))
        size.text_bytes += own.text_bytes * times
        size.has_parts = size.has_parts or own.has_parts
        size.images, size.videos = size.images + own.images * times, size.videos + own.videos * times
    return size


def longest(content: Any, chars_per_token: int) -> int:
    """Least tokens of the longest prompt; `chars_per_token` is that of the vocabulary's longest token, or 0.

    Of a chat it counts only texts that every template writes: those of users and systems.
    """
    if type(content) is str:
        return len(content) // chars_per_token if chars_per_token else 0
    if type(content) is not list or not content:
        return 0
    if type(content[0]) is int:
        return len(content)
    if type(content[0]) is dict:
        own = (m for m in content if type(m) is dict and m.get("role") in ("user", "system"))
        return sum(longest(text, chars_per_token) for m in own if type(text := m.get("content")) is str)
    return max(longest(prompt, chars_per_token) for prompt in content)


def add_beside(size: PromptSize, payload: Mapping[str, Any], *, system: Any = None) -> None:
    """Add a chat's or response's model input beside its messages: instructions and tools.

    `system` is what Anthropic's form has; other endpoints' models do not read it.
    """
    if system is not None:
        _add(size, system, 1)
    if "instructions" in payload and type(text := payload["instructions"]) is str:
        size.text_bytes += _bytes(text)
    if "tools" in payload and (tools := payload["tools"]):
        # Too deep values are refused when the engine's body is written.
        with contextlib.suppress(orjson.JSONEncodeError):
            size.text_bytes += len(orjson.dumps(tools))  # templates write them as JSON


def _add(size: PromptSize, value: Any, depth: int) -> None:
    """Add a text, a list of parts, or a message or part with its known fields."""
    if type(value) is str:
        size.text_bytes += _bytes(value)
    elif depth >= MAX_DEPTH:
        return
    elif type(value) is list:
        for item in value:
            _add(size, item, depth + 1)
    elif type(value) is dict and not _is_medium(size, value):
        for field in value.keys() & _FIELDS:
            _add(size, value[field], depth + 1)


_FIELDS = frozenset((*_TEXTS, *_NESTED))


def _is_medium(size: PromptSize, part: Mapping[str, Any]) -> bool:
    """Count a picture, recording or film; False for other parts. vLLM goes by the type, else by the field."""
    size.has_parts = True
    kind = part.get("type")
    named = MEDIA.get(kind) if type(kind) is str else None
    if type(kind) is not str or (named is None and part.get("uuid") is not None):
        named = next((MEDIA[f] for f in part if f in MEDIA), None)
    if named == "image":
        size.images += 1
    elif named == "audio":
        size.audios += 1
    elif named == "video":
        size.videos += 1
    return named is not None


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
