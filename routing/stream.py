"""What passes through an event stream? Meters it, renames the model, and knows whether it ended well.

Pure: bytes in, bytes out, whole events only. An event is parsed only where it can carry usage.
"""

from __future__ import annotations

from routing import wire
from routing.types import Target

EVENT_END = b"\n\n"
ERROR_EVENT = b'data: {"error"'
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
        self._target = target
        self._keep_usage_event = call.wants_usage
        self._endings = ENDINGS[call.kind]
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
        if wire.USAGE_OBJECT in data:
            data = self._take_usage(data)
        self.events += data.count(EVENT_END)
        if self._starts_event(data, ERROR_EVENT):
            self.failed = True
            return self._before_error(data)
        self.complete = self.complete or any(self._starts_event(data, ending) for ending in self._endings)
        return wire.rename_model(data, self._target)

    def completion_tokens(self) -> int:
        """Tokens so far: the engine's own count, else one for each event, which is what vLLM sends."""
        return self.usage.completion_tokens if self.usage else self.events

    def _take_usage(self, data: bytes) -> bytes:
        """Remember the usage; drop the event that only carries it where the client did not ask for it."""
        kept = []
        for event in data.split(EVENT_END)[:-1]:
            usage = wire.usage_in(event)
            if usage is not None:
                self.usage = usage
                if NO_CHOICES in event and not self._keep_usage_event:
                    continue
            kept.append(event + EVENT_END)
        return b"".join(kept)

    def _before_error(self, data: bytes) -> bytes:
        """What came before the engine's error event; the gateway writes its own, without inner details."""
        start = 0 if data.startswith(ERROR_EVENT) else data.index(EVENT_END + ERROR_EVENT) + len(EVENT_END)
        return wire.rename_model(data[:start], self._target)

    @staticmethod
    def _starts_event(data: bytes, marker: bytes) -> bool:
        """Whether an event starts so. Text of a model cannot: in JSON a line break is escaped."""
        return data.startswith(marker) or EVENT_END + marker in data
