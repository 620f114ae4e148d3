"""How much may a connection cost before it has shown a key? The server's HTTP protocol, with bounds.

uvicorn's own collects a head of any length for any time. Here a head has a largest size, a largest number of
headers and a deadline, as has whatever else is no body: extensions of chunks, trailers, requests sent ahead
of answers. Connections that have shown no valid key are counted, in all and for each address; where there
are too many the oldest goes, so that who sends a key at once gets through even then.

uvicorn takes the class from a table of its own, and BentoML cannot be told another: `install` changes that.
"""

from __future__ import annotations

import asyncio
import http
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from routing.asgi import CONNECTION
from routing.errors import BodyTimeout, HeadTooLarge, InvalidRequest, RequestError, Unavailable
from routing.http.cycle import Cycle

SWEEP_S = 1.0
LINGER_S = 1.0  # what comes after a refusal is dropped for so long, or the client would miss the answer


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may cost."""

    head_bytes: int = 64 * 2**10  # of request line and headers; of anything between two parts of a body, too
    headers: int = 100
    head_timeout_s: float = 15.0  # from the first byte of a head, or from connecting, to its end
    # An idle connection is kept longer than clients keep theirs (httpx and OpenAI's clients 5 s, load
    # balancers 60 s), or a request is sent just as it closes. uvicorn's own 5 s are exactly httpx's.
    keep_alive_s: float = 75.0
    pipelined: int = 16  # requests that wait for the answer to an earlier one
    ends_within_s: float | None = (
        3.0  # of the server's end, which follows that of what ran; None: they may run
    )
    strangers: int | None = 2048  # connections that have shown no key
    strangers_per_address: int | None = 512


class OpenConnections:
    """Knows the connections of one server, and which of them have shown a key."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._all: set[BoundedProtocol] = set()
        self._strangers: OrderedDict[BoundedProtocol, str] = OrderedDict()  # the oldest first; address
        self._by_address: dict[str, OrderedDict[BoundedProtocol, None]] = {}
        self._sweeping = False

    def __repr__(self) -> str:
        return f"OpenConnections({len(self._all)}, {len(self._strangers)} of strangers)"

    def enter(self, connection: BoundedProtocol) -> None:
        """Count a new connection in, and close the oldest stranger's where that is one too many."""
        self._all.add(connection)
        address = connection.client[0] if connection.client else ""
        same = self._by_address.setdefault(address, OrderedDict())
        self._strangers[connection], same[connection] = address, None
        bounds = self.bounds
        if bounds.strangers_per_address is not None and len(same) > bounds.strangers_per_address:
            self._turn_out(next(iter(same)))
        elif bounds.strangers is not None and len(self._strangers) > bounds.strangers:
            self._turn_out(next(iter(self._strangers)))
        if not self._sweeping:
            self._sweeping = True
            connection.loop.call_later(SWEEP_S, self._sweep, connection.loop)

    def know(self, connection: BoundedProtocol) -> None:
        """Note that a connection has shown a key, or is gone."""
        address = self._strangers.pop(connection, None)
        if address is not None:
            same = self._by_address[address]
            del same[connection]
            if not same:
                del self._by_address[address]

    def leave(self, connection: BoundedProtocol) -> None:
        """Count a connection out."""
        self._all.discard(connection)
        self.know(connection)

    def _turn_out(self, connection: BoundedProtocol) -> None:
        self.leave(connection)
        connection.transport.abort()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what has taken too long; one timer costs less than one for each request."""
        now_s = loop.time()
        for connection in list(self._all):
            connection.check(now_s)
        self._sweeping = bool(self._all)
        if self._sweeping:
            loop.call_later(SWEEP_S, self._sweep, loop)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    open_connections: ClassVar[OpenConnections]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.headers = []
        self._most_bytes, self._most_headers = (
            self.open_connections.bounds.head_bytes,
            self.open_connections.bounds.headers,
        )
        self.is_stranger = True
        self._running: RequestResponseCycle | None = None  # the request that the application has
        self._tell: Callable[[], object] | None = None  # called once the client has left it
        self._in_body = False
        self._unused_bytes = 0  # received since something came of it: a head, a part of a body, its end
        self._owes_since_s: float | None = None  # since when a head, or a rest that nobody reads, is due
        self._idle_since_s: float | None = None  # since when there is nothing to answer
        self._refused_at_s: float | None = None
        self._ends_at_s: float | None = None

    # -- called by the event loop --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._owes_since_s = self.loop.time()
        self.open_connections.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_connections.leave(self)
        super().connection_lost(exc)
        self._disconnect()
        self._let_go()

    def data_received(self, data: bytes) -> None:
        self._idle_since_s = None
        if self._owes_since_s is None and not self._in_body:
            self._owes_since_s = self.loop.time()
        while self._refused_at_s is None and not self.transport.is_closing():
            room = self._most_bytes - self._unused_bytes
            part, data = (data, b"") if len(data) <= room else (data[:room], data[room:])
            self._unused_bytes += len(part)
            super().data_received(part)
            if self._unused_bytes >= self._most_bytes or len(self.headers) > self._most_headers:
                self._refuse(_TOO_LARGE)
            if not data:
                return

    # -- called by the parser ------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._unused_bytes, self._owes_since_s, self._in_body = 0, None, True
        if (
            len(self.headers) > self._most_headers
            or len(self.pipeline) >= self.open_connections.bounds.pipelined
        ):
            self._refuse(_TOO_LARGE)
        if self._refused_at_s is None:
            cast(dict[str, Any], self.scope)[CONNECTION] = self
            super().on_headers_complete()
            if not self.pipeline:
                self._running = self.cycle
            self.cycle.__class__ = Cycle

    def on_body(self, body: bytes) -> None:
        self._unused_bytes = 0
        if self._refused_at_s is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unused_bytes, self._owes_since_s, self._in_body = 0, None, False
        if self._refused_at_s is None:
            super().on_message_complete()

    # -- called by uvicorn ---------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        if self._in_body:
            self._owes_since_s = self.loop.time()  # nobody reads it any more
        self._let_go()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
        else:  # uvicorn would set a timer, and cancel it when the next request comes
            self._idle_since_s = self.loop.time()

    def shutdown(self) -> None:
        within_s = self.open_connections.bounds.ends_within_s
        if within_s is not None:
            self._ends_at_s = self.loop.time() + within_s
            if self._in_body:  # its request may never be whole
                self._refuse(_ENDS)
                return
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_NO_HTTP)

    def _should_upgrade_to_ws(self) -> bool:
        return False  # nothing here speaks WebSocket, whose bounds are others

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: anybody could fill the log."""

    # -- called by the application, of the request that it has ----------------------------------------------

    @property
    def peer(self) -> str | None:
        return self.client[0] if self.client else None  # the scope's may be rewritten on the way

    def show_key(self) -> None:
        self.is_stranger = False
        self.open_connections.know(self)

    def take_body(self) -> bytes | None:
        cycle = self._running
        if cycle is None or cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        return body

    @property
    def takes_more(self) -> bool:
        cycle = self._running
        if cycle is None or cycle.disconnected or self.flow.write_paused:
            return False
        return cycle.response_started

    def send_at_once(self, body: bytes, *, more: bool) -> None:
        cast(Cycle, self._running).go_on(body, more=more)

    def watch(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self.flow.resume_reading()  # or the end of the connection would not be seen
        if self._running is None or self._running.disconnected:
            self.loop.call_soon(self._disconnect)

    def unwatch(self, tell: Callable[[], object]) -> None:
        if self._tell == tell:
            self._tell = None

    # -- ours ----------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """Close the connection where the client has let it wait for too long."""
        if self._refused_at_s is not None:
            if now_s - self._refused_at_s > LINGER_S:
                self.transport.abort()
        elif self._ends_at_s is not None and now_s > self._ends_at_s:
            self.transport.abort()
        elif (
            self._owes_since_s is not None
            and now_s - self._owes_since_s > self.open_connections.bounds.head_timeout_s
        ):
            self._refuse(_TOO_SLOW if self._unused_bytes and not self._in_body else b"")
        elif (
            self._idle_since_s is not None
            and now_s - self._idle_since_s > self.open_connections.bounds.keep_alive_s
        ):
            self.transport.close()

    def _let_go(self) -> None:
        """Be done with the running request; its scope knows this connection, which would be a cycle."""
        self._tell = None
        if self._running is not None:
            cast(dict[str, Any], self._running.scope).pop(CONNECTION, None)
            self._running = None

    def _disconnect(self) -> None:
        """Tell whoever waits for the running request that its client has left."""
        cycle, tell = self._running, self._tell
        self._tell = None
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if tell is not None:
            tell()

    def _refuse(self, answer: bytes) -> None:
        """Answer, unless that would be taken for the answer to something else, and close."""
        if self._refused_at_s is not None:
            return
        self._refused_at_s = self.loop.time()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._in_body or cycle.response_started or self.pipeline:
                answer = b""
            self._disconnect()
        self.pipeline.clear()
        if answer and not self.transport.is_closing():
            self.transport.write(answer)
        else:
            self.transport.abort()


def _answer(error: RequestError) -> bytes:
    body = error.body()
    head = (
        f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body


_NO_HTTP = _answer(InvalidRequest("The request is not valid HTTP.", code="invalid_http"))
_TOO_LARGE = _answer(HeadTooLarge("The request's headers are too large or too many."))
_ENDS = _answer(Unavailable("The gateway is shutting down.", code="shutting_down", retry_after_s=5.0))
_TOO_SLOW = _answer(BodyTimeout("The request's headers did not arrive in time.", code="headers_timeout"))


def install(bounds: Bounds) -> type[BoundedProtocol]:
    """Have every server that this process starts from now on use the bounds."""
    protocol = type("Bounded", (BoundedProtocol,), {"open_connections": OpenConnections(bounds)})
    uvicorn.config.HTTP_PROTOCOLS["auto"] = protocol  # type: ignore[assignment]
    return protocol
