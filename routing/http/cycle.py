"""Answers one request over HTTP/1: a head and the first part of the body are one write, and one packet.

uvicorn's own cycle writes the head by itself, which costs a system call more for each answer, and searches
each header twice for what it must not have. Here all headers are searched once, together.
"""

from __future__ import annotations

import re

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

# What no header may have: its end, or bytes that parsers disagree on (RFC 9110, 5.5).
_FORBIDDEN = re.compile(rb"[\x00\r\n]")
_NO_BODY = frozenset({204, 304})
_END = b"0\r\n\r\n"


class Cycle(RequestResponseCycle):
    """A request and its answer."""

    _head: bytes | None = None  # not written yet: it goes with the first part of the body

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says; waits while the client takes no more.

        Raises `RuntimeError` for messages out of order, a header with a line's end in it, or a body that is
        not as long as its head says.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = self._begin(message["status"], [*self.default_headers, *message.get("headers", [])])
            self.response_started = True
            self.waiting_for_100_continue = False
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self.go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"the message {message['type']} is out of order")

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the head, and decide how the end of the body will be known."""
        self.expected_content_length, self.chunked_encoding = 0, False
        has_length = False
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length, has_length = int(value), True
            elif name == b"connection" and value.lower() == b"close":
                self.keep_alive = False
        lines = [b"%b: %b" % header for header in headers if header[0] != b"connection"]
        if not has_length and self.scope["method"] != "HEAD" and status not in _NO_BODY:
            if self.scope["http_version"] == "1.0":  # which knows no chunks
                self.keep_alive = False
            else:
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked")
            self.expected_content_length = -1
        if not self.keep_alive:
            lines.append(b"connection: close")
        if _FORBIDDEN.search(b"".join(lines)):
            raise RuntimeError("a header has a byte that headers cannot have")
        return STATUS_LINE[status] + b"\r\n".join(lines) + b"\r\n\r\n"

    def go_on(self, body: bytes, *, more: bool) -> None:
        """Write a part of the body, and end the answer with the last one."""
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        elif self.expected_content_length >= 0:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the body is not as long as its head says")
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = chunk if more else chunk + _END
        if self._head is not None:
            body, self._head = self._head + body, None
        if body:
            self.transport.write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
