"""What passes through an event stream? Meters it, renames the model, and knows whether it ended well.

Pure: bytes in, bytes out, whole events only. An event is parsed only where it can carry usage.
"""

from __future__ import annotations

from routing import wire
from routing.types import Target

EVENT_END = b"\n\n"
ERROR_EVENT = b'data: {"error"'
ERROR_SIGN = b'{"error"'
NO_CHOICES = b'"choices":[]'
# How each kind of stream says that it is complete (OpenAI: chat and completions end with [DONE]).
ENDINGS = {
    wire.Kind.CHAT: (b"data: [DONE]",),
    wire.Kind.COMPLETION: (b"data: [DONE]",),
    wire.Kind.RESPONSE: (b"event: response.completed", b"event: response.incomplete"),
}


class EventStream:
    """Follows one server-sent event stream from an engine to a client."""

    def __init__(self, call: wire.Call, target: Target) -> None:
        self._inner_name, self._outer_name = wire.model_fields(target)
        self._keep_usage_event = call.wants_usage
        self._endings = ENDINGS[call.kind]
        # What nearly no event contains: only where one of these occurs is anything looked at more closely.
        self._signs = (wire.USAGE_OBJECT, ERROR_SIGN, *self._endings)
        self._rest = b""
        self.events = 0
        self.usage: wire.TokenUsage | None = None
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
        for sign in self._signs:
            if sign in data:
                data = self._look_closely(data)
                break
        self.events += data.count(EVENT_END)
        return data.replace(self._inner_name, self._outer_name)

    def completion_tokens(self) -> int:
        """Tokens so far: the engine's own count, else one for each event, which is what vLLM sends."""
        return self.usage.completion_tokens if self.usage else self.events

    def _look_closely(self, data: bytes) -> bytes:
        """Note usage, error and end; return the events that the client gets.

        From the engine's error event on nothing goes out: the gateway writes its own, without inner details.
        """
        kept = []
        for event in data.split(EVENT_END)[:-1]:
            if event.startswith(ERROR_EVENT):
                self.failed = True
                break
            usage = wire.usage_in(event)
            if usage is not None:
                self.usage = usage
                if NO_CHOICES in event and not self._keep_usage_event:
                    continue
            # At the start of an event only: in JSON a line break is escaped, so no text can look like this.
            self.complete = self.complete or event.startswith(self._endings)
            kept.append(event + EVENT_END)
        return b"".join(kept)
