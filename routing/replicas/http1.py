"""How is HTTP/1.1 spoken to a replica? Connections are kept; each carries one request at a time.

httptools parses, as it does in the server. A general client took a quarter of the gateway's time for
requests that are always alike: a small body out, an answer with a length or in chunks back.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT_S = 5.0
# Below the engine server's own, so that a connection is never reused as it closes.
KEEP_ALIVE_S = 3.0
MAX_HEAD_BYTES = 4 * 2**20  # vLLM puts 100 bytes for each of many embeddings into one header
MAX_UNREAD_BYTES = 256 * 2**10  # of an answer; with more, reading from the replica pauses


class UpstreamError(Exception):
    """A replica gave no answer, or broke one off."""


class Unreachable(UpstreamError):
    """No connection to a replica could be made."""


class Answer:
    """One answer, from its head on. Close it when done."""

    def __init__(self, connection: _Connection) -> None:
        self.status = 0  # until the head has come
        self.headers: dict[str, str] = {}  # names in lower case; of several values the last one
        self.connection: _Connection | None = connection  # until the answer has ended
        self.unread: list[bytes] = []
        self.unread_bytes = 0
        self.is_complete = False
        self.error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        # Gets each piece that comes while `chunks` waits for one, and may pass it on at once, which spares a
        # step of the waiting task; where it returns False, the piece is yielded.
        self.passes: Callable[[bytes], bool] | None = None

    @property
    def media_type(self) -> str:
        """Type of the content, in lower case and without parameters; JSON where the answer names none."""
        kind = self.headers.get("content-type", "application/json")
        return kind.partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """Return the rest of the body. Raises `UpstreamError` where the answer breaks off."""
        if self.is_complete:
            return self._take()
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the rest of the body as it comes. Raises `UpstreamError` where the answer breaks off."""
        while True:
            if self.unread:
                yield self._take()
            elif self.is_complete:
                return
            elif self.connection is None:
                raise self.error or UpstreamError("the answer was closed")
            else:
                await self.more()

    def close(self) -> None:
        """End the answer; closes its connection where the answer is not complete. Idempotent."""
        if self.connection is not None:
            self.connection.abort()

    async def more(self) -> None:
        """Wait until more of it has come, or its connection has ended."""
        if self.connection is not None:
            self.connection.resume()
            self._waiter = self.connection.loop.create_future()
            await self._waiter

    def wake(self) -> None:
        """Let whoever waits for more look again."""
        if self._waiter is None or self._waiter.done():
            return
        if self.passes is not None and self.unread:
            piece = self._take()
            if not self.passes(piece):
                self.unread.append(piece)
            elif not self.is_complete and self.connection is not None:
                self.connection.resume()
                return
        self._waiter.set_result(None)

    def _take(self) -> bytes:
        chunks, self.unread, self.unread_bytes = self.unread, [], 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Connection(asyncio.Protocol):
    """Sends one request at a time and parses its answer."""

    def __init__(self, pool: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept, since asking which one runs is a system call (CPython 3.11)
        self.idle_since_s = 0.0
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None  # while it is open
        self._answer: Answer | None = None
        self._head_bytes = 0
        self._has_end = False  # the answer says how long it is
        self._is_paused = False

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent: it has not been closed, by us or by the replica."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """Send a request; return its answer once the head has come. Raises `UpstreamError`."""
        answer = self._answer = Answer(self)
        self._head_bytes, self._has_end = 0, False
        if self._transport is None:
            raise UpstreamError("the connection has ended")
        self._transport.write(request)
        try:
            while not answer.status:
                await answer.more()
                if answer.error is not None:
                    raise answer.error
        except BaseException:
            self.abort()
            raise
        return answer

    def resume(self) -> None:
        """Read on, where reading has paused."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close the connection at once."""
        self._fail("the answer was closed")
        if self._transport is not None:
            self._transport.abort()

    # -- called by the event loop --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pool.add(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nothing was asked
            self.abort()
            return
        if not answer.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail("the head of the answer is too large")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not valid HTTP: {error}")
        if answer.error is not None:
            self.abort()
        answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        answer = self._answer
        if answer is not None and answer.status and not self._has_end and exc is None:
            answer.is_complete, answer.connection = True, None
            answer.wake()
        self._fail(f"the connection ended: {exc!r}" if exc is not None else "the connection ended")

    # -- called by the parser ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._answer is None:  # it goes on after the end: the rest would count as the next answer
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None and not self._answer.status:  # else it stands after the body
            lower = name.decode("latin-1").lower()
            self._answer.headers[lower] = value.decode("latin-1")
            self._has_end |= lower in ("content-length", "transfer-encoding")

    def on_headers_complete(self) -> None:
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        answer.unread.append(body)
        answer.unread_bytes += len(body)
        if answer.unread_bytes > MAX_UNREAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None:
            return
        if answer.status < 200:  # an interim answer; the real one follows
            answer.status, answer.headers, self._has_end = 0, {}, False
            return
        answer.is_complete, answer.connection, self._answer = True, None, None
        self.resume()
        if self._parser.should_keep_alive() and self._transport is not None:
            self._pool.keep(self)
        else:
            self.abort()

    def _fail(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.is_complete:
            answer.error, answer.connection = UpstreamError(reason), None
            answer.wake()


class Upstream:
    """Connections to one replica. Use it in one event loop; close it when done."""

    def __init__(self, origin: str, socket_path: str | None, headers: Mapping[str, str]) -> None:
        """`headers` go with every request; `socket_path` is connected to instead of the origin's host."""
        url = urlsplit(origin)
        self._host, self._port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if url.scheme == "https" and not socket_path else None
        self._socket_path = socket_path
        self._prefix = url.path
        self._fixed = _lines({"host": url.netloc.rpartition("@")[2], **headers})
        self._idle: list[_Connection] = []  # the one used last at the end
        self._all: set[_Connection] = set()
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Upstream {len(self._all)} connections, {len(self._idle)} idle>"

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request; return its answer once the head has come, to be closed by the caller.

        Raises `Unreachable` where there is no connection, `UpstreamError` where nothing comes of it, and
        `ValueError` for a header that would be several.
        """
        own = _lines(headers) if headers else ""
        head = (
            f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._fixed}{own}content-length: {len(body)}\r\n\r\n"
        )
        request = head.encode("latin-1") + body  # which may fail, so that no connection is taken before
        connection = self._take() or await self._connect()
        return await connection.ask(request)

    def close(self) -> None:
        """Close every connection for good; answers that have not ended break off."""
        self.is_closed = True
        for connection in list(self._all):
            connection.abort()

    def add(self, connection: _Connection) -> None:
        """Note a connection that has been made."""
        self._all.add(connection)
        if self.is_closed:  # while it was being made
            connection.abort()

    def keep(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        connection.idle_since_s = connection.loop.time()
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Note that a connection has ended."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_open:  # its end is told in a later step
                continue
            if connection.loop.time() - connection.idle_since_s < KEEP_ALIVE_S:
                return connection
            for old in (connection, *self._idle):  # which have been idle for longer still
                old.abort()
            self._idle.clear()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection = _Connection(self, loop)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self._socket_path is not None:
                    await loop.create_unix_connection(lambda: connection, self._socket_path)
                else:
                    await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._ssl)
        except (OSError, TimeoutError) as error:
            raise Unreachable(repr(error)) from error
        return connection


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header has a line break")
    return lines
