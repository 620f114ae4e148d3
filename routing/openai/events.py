"""Which events of an engine's stream does the client get, and how many tokens do they carry?

Pure: bytes in, bytes out, whole events only. Every event carries the usage so far, so a stream that breaks is
metered as exactly as one that ends. A client that did not ask for that usage does not see it.

Patterns in the bytes only locate candidates. Values are read as JSON, from the fields that the protocol
names: a response's events repeat the client's own text, which may contain any pattern.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from engines.protocol import Kind
from routing.errors import InvalidRequest
from routing.openai import answers
from routing.openai.bodies import Call
from routing.types import Target

EVENT_END = b"\n\n"
ERROR_SIGN = b'{"error"'
ERROR_TYPE = b"event: error"
DONE = b"data: [DONE]"
NO_CHOICES = b'"choices":[]'
SOME_CHOICES = b'"choices":[{'
# A field of an event, never part of a text: inside a JSON string every quote is escaped. It nests one level.
RUNNING_USAGE = re.compile(rb',"usage":\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
USAGE_FIELD = b',"usage":{'
LAST_BRACES = b"}}" + EVENT_END
DELTA = b".delta\ndata:"  # JSON escapes line breaks: no text can look like the end of an event's name
# Events that carry the whole response; the announcements come before anything is generated.
ANNOUNCEMENTS = (b"event: response.created", b"event: response.in_progress", b"event: response.queued")
TEXT_DELTA = b"event: response.output_text.delta\n"
# Of Anthropic's streams; what comes before the first block was not generated.
MESSAGE_START = b"event: message_start\n"
MESSAGE_DELTA = b"event: message_delta\n"
MESSAGE_STOP = b"event: message_stop\n"
BLOCK_DELTA = b"event: content_block_delta\n"
PING = b"event: ping\n"
TERMINALS = (b"event: response.completed", b"event: response.incomplete", b"event: response.failed")


class EventStream:
    """Follows one server-sent event stream from an engine to a client."""

    def __init__(self, call: Call, target: Target, prompt_tokens: int) -> None:
        """`prompt_tokens` is an estimate, for a stream that ends before the engine has counted."""
        self._inner_name, self._outer_name = answers.model_fields(target)
        self._call = call
        self._target = target
        self._prompt_tokens = prompt_tokens
        self._is_response = call.kind is Kind.RESPONSE
        self._is_message = call.endpoint.anthropic
        self._drops_usage_event = not call.wants_usage
        self._keep_running_usage = call.wants_running_usage
        self._rest = b""
        self._counted = b""  # the last events with the usage so far
        self._by_choice: dict[int, answers.TokenUsage] = {}  # the same, where there are several choices
        self._deltas = 0  # events that brought something
        self.events = 0
        self.usage: answers.TokenUsage | None = None  # of the whole answer
        self.begun = False  # it has brought more than announcements
        self.complete = False
        self.failed = False
        self.refusal: InvalidRequest | None = None  # the engine refused the request in mid-stream

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes from the engine, return whole events for the client."""
        data = self._rest + chunk if self._rest else chunk
        if data.endswith(EVENT_END):
            self._rest = b""
        else:
            end = data.rfind(EVENT_END) + len(EVENT_END)
            if end < len(EVENT_END):
                self._rest = data
                return b""
            data, self._rest = data[:end], data[end:]
        events = data.count(EVENT_END)
        if self._is_response:
            data = self._pass_response(data, events)
        elif self._is_message:
            data = self._pass_message(data, events)
        elif data.count(SOME_CHOICES) == events:  # neither usage alone, nor an error, nor the end
            self.begun = True
            data = self._take_running_usage(data, events)
            self._deltas += events
            self.events += events
            return data.replace(self._inner_name, self._outer_name)
        else:
            data = self._look_closely(data)
        self.events += data.count(EVENT_END)
        return data

    def tokens(self) -> answers.TokenUsage:
        """Return the tokens so far, as the engine counted them up to its last event.

        Without a running count, each event of the answer counts as one token, and the prompt as estimated.
        """
        if self.usage is not None:
            return self.usage
        if self._by_choice:
            return self._sum_of_choices()
        for event in reversed(self._counted.split(EVENT_END)):
            usage = answers.usage_of(_payload(event)) if USAGE_FIELD in event else None
            if usage is not None:
                return usage
        return answers.TokenUsage(self._prompt_tokens, self._deltas, estimated=True)

    # -- chats and completions -----------------------------------------------------------------------------

    def _take_running_usage(self, data: bytes, events: int) -> bytes:
        """Keep the usage so far; return the events without it, unless the client wants it."""
        field = data.rfind(USAGE_FIELD)
        if field < 0:
            return data
        self._counted = data
        if self._call.sequences > 1:
            for event in data.split(EVENT_END)[:-1]:
                self._count_choice(_payload(event))
        if self._keep_running_usage:
            return data
        if (
            events == 1
            and data.find(b"}", field) == len(data) - len(LAST_BRACES)
            and data.endswith(LAST_BRACES)
        ):
            return data[:field] + LAST_BRACES[1:]  # as vLLM writes it: the last field, with numbers only
        return RUNNING_USAGE.sub(b"", data)

    def _count_choice(self, payload: dict[str, Any]) -> None:
        usage, choices = answers.usage_of(payload), payload.get("choices")
        if usage is not None and isinstance(choices, list) and isinstance(choices[0], dict):
            index = choices[0].get("index", 0)
            self._by_choice[index if type(index) is int else 0] = usage

    def _sum_of_choices(self) -> answers.TokenUsage:
        """Add up the choices. Each one counts its own tokens and its prompt, which choices share."""
        asked = self._call.size.prompts
        choices = max(1, self._call.sequences // asked)
        prompts = {index // choices: usage.prompt_tokens for index, usage in self._by_choice.items()}
        unknown = asked - len(prompts)
        return answers.TokenUsage(
            sum(prompts.values()) + unknown * self._prompt_tokens // asked,
            sum(usage.completion_tokens for usage in self._by_choice.values()),
            estimated=unknown > 0,
        )

    def _look_closely(self, data: bytes) -> bytes:
        """Record usage, error and end; return the events for the client."""
        kept = []
        for text in data.split(EVENT_END)[:-1]:
            event = text + EVENT_END
            if text.startswith(DONE):
                self.complete = True
            elif NO_CHOICES in text:
                self.usage = answers.usage_of(_payload(text)) or self.usage
                if self._drops_usage_event:
                    continue
            elif SOME_CHOICES in text:
                self.begun = True
                self._deltas += 1
                event = self._take_running_usage(event, 1)
            elif ERROR_SIGN in text and self._ends_in_error(text):
                if self.refusal is None:
                    break
                event = b"data: " + self.refusal.body() + EVENT_END
            kept.append(event.replace(self._inner_name, self._outer_name))
        return b"".join(kept)

    # -- responses -----------------------------------------------------------------------------------------

    def _pass_response(self, data: bytes, events: int) -> bytes:
        """Record usage, error and end; rename the model if an event carries the whole response."""
        if events == 1 and data.startswith(TEXT_DELTA):  # nearly all of them
            self.begun = True
            self._deltas += 1
            return data
        self._deltas += data.count(DELTA)
        kept = []
        for text in data.split(EVENT_END)[:-1]:
            if text.startswith(ANNOUNCEMENTS):
                text = self._rename_response(text)
            elif text.startswith(TERMINALS):
                self.begun = self.complete = True
                self.usage = answers.usage_of(_response(_payload(text))) or self.usage
                text = self._rename_response(text)
            elif (text.startswith(ERROR_TYPE) or ERROR_SIGN in text) and self._ends_in_error(text):
                if self.failed:
                    break
                own_name = orjson.dumps(self._target.model)[1:-1]  # as it stands inside a text
                text = text.replace(self._target.engine_model.encode(), own_name)
            elif self.refusal is None:
                self.begun = True
            kept.append(text + EVENT_END)
        return b"".join(kept)

    def _rename_response(self, text: bytes) -> bytes:
        """Rename the model of the response in an event, and no other text."""
        if text.count(self._inner_name) <= 1:
            return text.replace(self._inner_name, self._outer_name)
        payload = _payload(text)
        _response(payload)["model"] = self._target.answers_as
        return text[: text.index(b"data: ")] + b"data: " + orjson.dumps(payload)

    # -- messages ------------------------------------------------------------------------------------------

    def _pass_message(self, data: bytes, events: int) -> bytes:
        """Record usage, error and end; rename the model in the first event."""
        if events == 1 and data.startswith(BLOCK_DELTA):  # nearly all of them
            self.begun = True
            self._deltas += 1
            return data
        self._deltas += data.count(BLOCK_DELTA)
        kept = []
        for text in data.split(EVENT_END)[:-1]:
            if text.startswith(MESSAGE_START):
                text = self._begin_message(text)
            elif text.startswith(ERROR_TYPE):  # without a status: it cannot be told whose fault it is
                self.failed = True
                break
            elif not text.startswith(PING):
                self.begun = True
            if text.startswith(MESSAGE_DELTA):
                self.usage = answers.usage_of(_payload(text)) or self.usage
            self.complete = self.complete or text.startswith(MESSAGE_STOP)
            kept.append(text + EVENT_END)
        return b"".join(kept)

    def _begin_message(self, text: bytes) -> bytes:
        """Take the prompt's length from the first event; return it with the client's name for the model."""
        payload = _payload(text)
        message = payload.get("message")
        if not isinstance(message, dict):
            return text
        usage = answers.usage_of(message)
        self._prompt_tokens = self._prompt_tokens if usage is None else usage.prompt_tokens
        message["model"] = self._target.answers_as
        return MESSAGE_START + b"data: " + orjson.dumps(payload)

    # -- errors --------------------------------------------------------------------------------------------

    def _ends_in_error(self, text: bytes) -> bool:
        """Whether an event is the engine's error, which ends the stream.

        The client gets an error in its request, without the engine's names. After any other error
        nothing more is sent: the gateway writes its own error, without inner details.
        """
        payload = _payload(text)
        error = payload.get("error") or (payload if payload.get("type") == "error" else None)
        if not isinstance(error, dict):
            return False
        status = answers.error_status(error)
        if 400 <= status < 500:
            self.refusal = answers.refusal_of(error, status, self._target)
            self.complete = True
        else:
            self.failed = True
        return True


def _payload(event: bytes) -> dict[str, Any]:
    """Return the JSON object of an event; empty if it has none."""
    start = event.find(b"data: ")
    try:
        payload = orjson.loads(event[start + len(b"data: ") :]) if start >= 0 else None
    except orjson.JSONDecodeError:
        payload = None
    return payload if isinstance(payload, dict) else {}


def _response(payload: dict[str, Any]) -> dict[str, Any]:
    response = payload.get("response")
    return response if isinstance(response, dict) else {}
