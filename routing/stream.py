"""What passes through an event stream? Meters it, renames the model, and knows whether it ended well.

Pure: bytes in, bytes out, whole events only. Engines are asked for the usage so far in every event, so that a
stream that is cut off is metered as exactly as one that ends. Clients that did not ask for it do not see it.
"""

from __future__ import annotations

import re

from routing import wire
from routing.types import Target

EVENT_END = b"\n\n"
ERROR_EVENT = b'data: {"error"'
ERROR_SIGN = b'{"error"'
NO_CHOICES = b'"choices":[]'
SOME_CHOICES = b'"choices":[{'
# As a field of an event: inside a JSON string every quote is escaped. It holds one level of objects at most.
RUNNING_USAGE = re.compile(rb',"usage":\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
USAGE_FIELD = b',"usage":{'
LAST_BRACES = b"}}" + EVENT_END
CHOICE = re.compile(rb'"choices":\[\{"index":(\d+)')
# How each kind of stream says that it is complete (OpenAI: chat and completions end with [DONE]).
ENDINGS = {
    wire.Kind.CHAT: (b"data: [DONE]",),
    wire.Kind.COMPLETION: (b"data: [DONE]",),
    wire.Kind.RESPONSE: (b"event: response.completed", b"event: response.incomplete"),
}
# What nearly no event of a response contains.
RESPONSE_SIGNS = (wire.USAGE_OBJECT, ERROR_SIGN, *ENDINGS[wire.Kind.RESPONSE])


class EventStream:
    """Follows one server-sent event stream from an engine to a client."""

    def __init__(self, call: wire.Call, target: Target, prompt_tokens: int) -> None:
        """`prompt_tokens` is the estimate, for a stream that ends before the engine has said."""
        self._inner_name, self._outer_name = wire.model_fields(target)
        self._call = call
        self._prompt_tokens = prompt_tokens
        self._is_response = call.kind is wire.Kind.RESPONSE
        self._drops_usage_event = not call.wants_usage
        self._keep_running_usage = call.wants_running_usage or self._is_response
        self._endings = ENDINGS[call.kind]
        self._rest = b""
        self._counted = b""  # the last events that said what was used so far
        self._by_choice: dict[int, wire.TokenUsage] = {}  # the same, where there are several choices
        self.events = 0
        self.usage: wire.TokenUsage | None = None  # of the whole answer
        self.complete = False
        self.failed = False

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they came, return the whole events of them for the client."""
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
        if self._has_only_text(data, events):
            data = self._take_running_usage(data, events)
        else:
            data = self._look_closely(data)
            events = data.count(EVENT_END)
        self.events += events
        return data.replace(self._inner_name, self._outer_name)

    def _has_only_text(self, data: bytes, events: int) -> bool:
        """Whether so many events say nothing but how the answer goes on; false where that is not plain."""
        if self._is_response:
            return not any(sign in data for sign in RESPONSE_SIGNS)
        return data.count(SOME_CHOICES) == events  # neither usage alone, nor an error, nor the end

    def tokens(self) -> wire.TokenUsage:
        """Tokens so far, as the engine has counted them up to its last event.

        One that gives no running count is taken to have sent a token in each event, for the estimated prompt.
        """
        if self.usage is not None:
            return self.usage
        if self._by_choice:
            return self._sum_of_choices()
        counted = wire.usage_in(self._counted)
        return counted or wire.TokenUsage(self._prompt_tokens, self.events, estimated=True)

    def _take_running_usage(self, data: bytes, events: int) -> bytes:
        """Remember what was used so far; return so many events without it, unless the client wants it."""
        field = data.rfind(USAGE_FIELD)
        if field < 0:
            return data
        self._counted = data
        if self._call.sequences > 1:
            for event in data.split(EVENT_END):
                choice, usage = CHOICE.search(event), wire.usage_in(event)
                if choice is not None and usage is not None:
                    self._by_choice[int(choice[1])] = usage
        if self._keep_running_usage:
            return data
        if (
            events == 1
            and data.find(b"}", field) == len(data) - len(LAST_BRACES)
            and data.endswith(LAST_BRACES)
        ):
            return data[:field] + LAST_BRACES[1:]  # as vLLM writes it: the last field, with numbers only
        return RUNNING_USAGE.sub(b"", data)

    def _sum_of_choices(self) -> wire.TokenUsage:
        """Add up choices, each of which counts its own tokens and its own prompt; choices share a prompt."""
        asked = self._call.size.prompts
        choices = max(1, self._call.sequences // asked)
        prompts = {index // choices: usage.prompt_tokens for index, usage in self._by_choice.items()}
        unknown = asked - len(prompts)
        return wire.TokenUsage(
            sum(prompts.values()) + unknown * self._prompt_tokens // asked,
            sum(usage.completion_tokens for usage in self._by_choice.values()),
            estimated=unknown > 0,
        )

    def _look_closely(self, data: bytes) -> bytes:
        """Note usage, error and end; return the events that the client gets.

        From the engine's error event on nothing goes out: the gateway writes its own, without inner details.
        """
        kept = []
        for text in data.split(EVENT_END)[:-1]:
            event = text + EVENT_END
            if event.startswith(ERROR_EVENT):
                self.failed = True
                break
            if self._is_response or NO_CHOICES in event:
                self.usage = wire.usage_in(event) or self.usage
                if self._drops_usage_event and NO_CHOICES in event:
                    continue
            else:
                event = self._take_running_usage(event, 1)
            # At the start of an event only: in JSON a line break is escaped, so no text can look like this.
            self.complete = self.complete or event.startswith(self._endings)
            kept.append(event)
        return b"".join(kept)
