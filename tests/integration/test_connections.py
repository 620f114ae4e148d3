"""What a connection may cost, over real sockets: endless heads, clients that dawdle, crowds."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from routing.asgi import CONNECTION, ClientGone, Exchange, Headers, Message, Receive, Scope, Send
from routing.http import connections
from routing.http.connections import BoundedProtocol, Bounds, OpenConnections
from tests.fakes import eventually, key_of
from tests.integration.conftest import Bench

SMALL = Bounds(head_timeout_s=0.3, keep_alive_s=1.0)
KIB = 2**10
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


class Server:
    """An application behind the protocol, on a port of its own."""

    def __init__(self, bounds: Bounds, port: int, protocol: type[BoundedProtocol]) -> None:
        self.bounds, self.port, self.open_connections = bounds, port, protocol.open_connections
        self.bodies: list[bytes] = []
        self.release = asyncio.Event()  # for what waits at /held
        self.left = 0  # requests whose client went before their end
        self.waits = 0  # for messages of ASGI
        self.stop: Callable[[], object] = lambda: None  # as uvicorn stops, once what ran has ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope[CONNECTION]
        if connection.is_stranger and (b"authorization", b"right") in scope["headers"]:
            connection.show_key()
        if scope["path"].startswith("/exchange"):
            await through_exchange(self, scope, receive, send)
            return
        body = b""
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        if scope["path"] == "/held":
            await self.release.wait()
        text = scope["path"].encode()
        if scope["path"] == "/events":
            await send_events(send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(text))],
            }
        )
        await send({"type": "http.response.body", "body": text, "more_body": False})

    async def connect(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))


class Wire:
    """A client that writes bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # the server need not take all of it
            self._writer.write(data)
            await self._writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer; 0 where the connection ends instead."""
        try:
            head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        return int(head.split()[1]), await self._reader.readexactly(length)

    async def rest(self) -> bytes:
        """All that comes until the connection ends."""
        return await asyncio.wait_for(self._reader.read(), 10)

    async def is_closed(self) -> bool:
        try:
            return await asyncio.wait_for(self._reader.read(1), 10) == b""
        except ConnectionError:
            return True

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def through_exchange(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """As the gateway does it: read the body, answer once it is let, unless the client leaves before."""

    async def counted() -> Message:
        server.waits += 1
        return await receive()

    exchange = Exchange(scope, counted, send, Headers.of(scope))
    try:
        server.bodies.append(await exchange.read_body(limit_bytes=2**20, timeout_s=10))
    except ClientGone:
        return
    left = asyncio.Event()
    unwatch = exchange.watch(left.set)
    waiting = [asyncio.ensure_future(event.wait()) for event in (server.release, left)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    server.left += left.is_set()
    await exchange.respond(200, [], scope["path"].encode())
    unwatch()
    assert CONNECTION not in scope, "a cycle of references"


async def send_events(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one\n\n", b"", b"two\n\n"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def serving(bounds: Bounds, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "to be replaced")
    monkeypatch.setattr(connections, "SWEEP_S", 0.05)
    protocol = connections.install(bounds)
    server = Server(bounds, 0, protocol)
    config = uvicorn.Config(server, lifespan="off", log_config=None)
    config.load()
    assert config.http_protocol_class is protocol, "as uvicorn chooses it"
    state = ServerState()

    def make() -> asyncio.Protocol:
        return protocol(config=config, server_state=state, app_state={})

    server.stop = lambda: [connection.shutdown() for connection in list(state.connections)]
    listener = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await eventually(lambda: not state.connections and not state.tasks, "the end of all connections")
        assert repr(server.open_connections) == "OpenConnections(0, 0 of strangers)"


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(SMALL, monkeypatch) as server:
        yield server


# -- what works as ever ------------------------------------------------------------------------------------

FINE = {
    "plain": (b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n", b""),
    "a hundred headers": (b"GET /a HTTP/1.1\r\n" + b"x: y\r\n" * 100 + b"\r\n", b""),
    "60 KiB of headers": (b"GET /a HTTP/1.1\r\ncookie: " + b"x" * 60 * KIB + b"\r\n\r\n", b""),
    "a large body": (
        b"POST /a HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3_000_000,
        b"x" * 3_000_000,
    ),
    "a chunked body": (
        CHUNKED.replace(b" / ", b" /a ") + b"1\r\ny\r\n" * 30_000 + b"0\r\n\r\n",
        b"y" * 30_000,
    ),
    "chunks with extensions and trailers": (
        CHUNKED.replace(b" / ", b" /a ") + b"1;name=value\r\ny\r\n" * 9000 + b"0\r\nx-sum: 1\r\n\r\n",
        b"y" * 9000,
    ),
    "an upgrade nobody offers": (
        b"GET /a HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"",
    ),
}


@pytest.mark.parametrize(("request_bytes", "body"), FINE.values(), ids=FINE)
@pytest.mark.parametrize("piece_bytes", [10**9, 1000], ids=["at once", "in pieces"])
async def test_whatever_a_client_may_send_is_answered(
    server: Server, request_bytes: bytes, body: bytes, piece_bytes: int
) -> None:
    async with await server.connect() as wire:
        for start in range(0, len(request_bytes), piece_bytes):
            await wire.send(request_bytes[start : start + piece_bytes])
        assert await wire.answer() == (200, b"/a")
    assert server.bodies == [body]


async def test_a_connection_carries_many_requests_one_after_another_and_ahead_of_answers(
    server: Server,
) -> None:
    async with await server.connect() as wire:
        for _ in range(30):
            await wire.send(b"GET /a HTTP/1.1\r\ncookie: " + b"x" * 30 * KIB + b"\r\n\r\n")
            assert await wire.answer() == (200, b"/a")
        await wire.send(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(10)))
        for number in range(10):
            assert await wire.answer() == (200, b"/%d" % number)


POST = b"POST /exchange HTTP/1.1\r\ncontent-length: 6\r\n\r\n"


async def test_a_body_that_has_arrived_is_not_waited_for(server: Server) -> None:
    server.release.set()
    async with await server.connect() as wire:
        for _ in range(3):
            await wire.send(POST + b"abcdef")
            assert await wire.answer() == (200, b"/exchange")
    assert server.bodies == [b"abcdef"] * 3
    assert server.waits == 0


async def test_a_body_in_pieces_is_waited_for(server: Server) -> None:
    server.release.set()
    async with await server.connect() as wire:
        await wire.send(POST + b"abc")
        await eventually(lambda: server.waits > 0, "the request without its body")
        await wire.send(b"def")
        assert await wire.answer() == (200, b"/exchange")
    assert server.bodies == [b"abcdef"]


async def test_a_body_ahead_of_its_turn_is_its_own_requests(server: Server) -> None:
    async with await server.connect() as wire:
        await wire.send(POST + b"first." + POST + b"second" + POST + b"third.")
        await eventually(lambda: server.bodies == [b"first."], "the first request")
        server.release.set()
        for _ in range(3):
            assert await wire.answer() == (200, b"/exchange")
    assert server.bodies == [b"first.", b"second", b"third."]
    assert server.left == 0


@pytest.mark.parametrize("ahead", [b"", POST + b"second"], ids=["alone", "with another one ahead"])
async def test_who_waits_for_a_client_is_told_that_it_left(server: Server, ahead: bytes) -> None:
    async with await server.connect() as wire:
        await wire.send(POST + b"first." + ahead)
        await eventually(lambda: server.bodies == [b"first."], "the request")
    await eventually(lambda: server.left >= 1, "word of the client that left")


async def test_a_later_request_is_watched_though_the_one_before_has_ended(server: Server) -> None:
    async with await server.connect() as wire:
        await wire.send(POST + b"first." + POST + b"second")
        await eventually(lambda: server.bodies == [b"first."], "the first request")
        server.release.set()
        assert await wire.answer() == (200, b"/exchange")
        server.release.clear()
        await wire.send(POST + b"third.")
        await eventually(lambda: b"third." in server.bodies, "the third request")
        assert server.left == 0
    await eventually(lambda: server.left == 1, "word of the client that left")


async def test_a_client_that_left_before_anybody_watched_is_told_of(server: Server) -> None:
    async with await server.connect() as wire:
        await wire.send(POST + b"abc")
        await eventually(lambda: server.waits > 0, "the request without its body")
        (connection,) = server.open_connections._all
    await eventually(lambda: not server.open_connections._all, "the end of the connection")
    told: list[bool] = []
    connection.watch(lambda: told.append(True))
    await eventually(lambda: told == [True], "word of it")


# -- too much ----------------------------------------------------------------------------------------------

ENDLESS = {
    "a header line": (b"GET / HTTP/1.1\r\nx: ", b"y"),
    "a header's name": (b"GET / HTTP/1.1\r\n", b"y"),
    "a path": (b"GET /", b"y"),
    "a query": (b"GET /?", b"y=&"),
    "a folded line": (b"GET / HTTP/1.1\r\nx: y\r\n", b" y\r\n"),
    "headers": (b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
    "long headers": (b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 4000 + b"\r\n"),
    "empty lines": (b"", b"\r\n"),
    "a second head": (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nx: ", b"y"),
    "a chunk's extension": (CHUNKED + b"1;", b"y"),
    "a trailer": (CHUNKED + b"1\r\ny\r\n0\r\nx: ", b"y"),
    "trailers": (CHUNKED + b"1\r\ny\r\n0\r\n", b"x: y\r\n"),
    "requests ahead of answers": (CHUNKED + b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("piece_bytes", [256 * KIB, 1000], ids=["at once", "in pieces"])
async def test_what_never_ends_is_cut_off(
    server: Server, start: bytes, more: bytes, piece_bytes: int
) -> None:
    async with await server.connect() as wire:
        await wire.send(start)
        piece = more * (piece_bytes // len(more))
        for _ in range(10 * 256 * KIB // piece_bytes):
            await wire.send(piece)
            (connection,) = server.open_connections._all or [None]
            if connection is None or connection._refused_at_s is not None:
                break
            await asyncio.sleep(0)
            held = connection._unused_bytes + sum(len(n) + len(v) for n, v in connection.headers)
            assert held <= 2 * SMALL.head_bytes
        await eventually(
            lambda: all(c._refused_at_s is not None for c in server.open_connections._all),
            "the end of this connection",
        )


REFUSED = {
    "a line in one piece": b"GET / HTTP/1.1\r\nx: " + b"y" * 70 * KIB + b"\r\n\r\n",
    "101 headers": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n",
    "more headers, without an end": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 110,
    "a path": b"GET /" + b"y" * 70 * KIB + b" HTTP/1.1\r\n\r\n",
    "a trailer": CHUNKED + b"1\r\ny\r\n0\r\nx: " + b"y" * 140 * KIB,
    "trailers": CHUNKED + b"1\r\ny\r\n0\r\n" + b"x: y\r\n" * 110,
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED)
async def test_who_sent_too_much_is_told(server: Server, request_bytes: bytes) -> None:
    async with await server.connect() as wire:
        await wire.send(request_bytes)
        status, body = await wire.answer()
        assert status == 431
        assert b'"code":"headers_too_large"' in body
        await wire.send(b"more that nobody reads")
        assert await wire.is_closed()
    assert not any(server.bodies)


NO_HTTP = {
    "a method": b"\x16\x03\x01\x02\r\n\r\n",
    "a path": "GET /\u00e4 HTTP/1.1\r\n\r\n".encode(),
    "a version": b"GET / HTTP/9.9\r\n\r\n",
    "a header's name": b"GET / HTTP/1.1\r\nx y: z\r\n\r\n",
    "a length": b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    "a length of chunks": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx",
    "a chunk": CHUNKED + b"x\r\n",
}


@pytest.mark.parametrize("request_bytes", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_is_told_so_as_everything_else(server: Server, request_bytes: bytes) -> None:
    async with await server.connect() as wire:
        await wire.send(request_bytes)
        status, body = await wire.answer()
        assert status == 400
        assert json.loads(body)["error"]["code"] == "invalid_http"
        assert await wire.is_closed()
    assert not server.bodies


async def test_an_answer_that_is_due_is_not_mistaken_for_a_refusal(server: Server) -> None:
    """The refusal is of the second request; the first one's answer is still to come."""
    async with await server.connect() as wire:
        await wire.send(b"GET /held HTTP/1.1\r\n\r\n")
        await eventually(lambda: bool(server.bodies), "the first request")
        await wire.send(b"GET / HTTP/1.1\r\nx: " + b"y" * 200 * KIB)
        assert await wire.answer() == (0, b"")
    server.release.set()


SERVER = """
import asyncio, sys, uvicorn
sys.path.insert(0, sys.argv[1])
from routing.http import connections
connections.install(connections.Bounds())

async def app(scope, receive, send):
    await receive()

config = uvicorn.Config(app, lifespan="off", log_config=None, port=0)
class Telling(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Telling(config).run()
"""


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / KIB
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_twenty_endless_headers_cost_no_memory() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", SERVER, root], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            before = resident_mib(process.pid)

            async def flood() -> None:
                async with Wire(*await asyncio.open_connection("127.0.0.1", port)) as wire:
                    await wire.send(b"GET / HTTP/1.1\r\nx: ")
                    for _ in range(40):
                        await wire.send(b"y" * 2**20)

            async def flood_all() -> None:
                await asyncio.gather(*(flood() for _ in range(20)))

            asyncio.run(flood_all())
            assert resident_mib(process.pid) - before < 32
        finally:
            process.terminate()


# -- too slow ----------------------------------------------------------------------------------------------


async def trickle(wire: Wire, data: bytes) -> None:
    for byte in data:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.02)


Start = Callable[[Wire], Awaitable[Any]]


async def silent(wire: Wire) -> None:
    """Connect and say nothing."""


async def slow_head(wire: Wire) -> None:
    await trickle(wire, b"GET / HTTP/1.1\r\nx: " + b"y" * 30)


async def half_a_head(wire: Wire) -> None:
    await wire.send(b"GET / HTTP/1.1\r\n")


async def half_a_second_head(wire: Wire) -> None:
    await wire.send(b"GET / HTTP/1.1\r\n\r\n")
    assert (await wire.answer())[0] == 200
    await wire.send(b"G")


async def unread_body(wire: Wire) -> None:
    await wire.send(b"POST /early HTTP/1.1\r\ncontent-length: 1000\r\n\r\n")
    assert (await wire.answer())[0] == 200
    await trickle(wire, b"y" * 50)


@pytest.mark.parametrize(
    ("start", "status"),
    [(silent, 0), (slow_head, 408), (half_a_head, 408), (half_a_second_head, 408), (unread_body, 0)],
)
async def test_who_dawdles_is_not_waited_for(server: Server, start: Start, status: int) -> None:
    async with await server.connect() as wire:
        await start(wire)
        assert (await wire.answer())[0] == status
        assert await wire.is_closed()


async def test_a_slow_body_is_the_applications_affair(server: Server) -> None:
    async with await server.connect() as wire:
        await wire.send(b"POST /a HTTP/1.1\r\ncontent-length: 40\r\n\r\n")
        await trickle(wire, b"y" * 40)
        assert await wire.answer() == (200, b"/a")


async def test_an_idle_connection_is_closed_without_a_word(server: Server) -> None:
    async with await server.connect() as wire:
        await wire.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await wire.answer())[0] == 200
        assert await wire.answer() == (0, b"")


def test_an_idle_connection_outlives_what_clients_keep_so_that_none_sends_as_it_closes() -> None:
    clients_s = httpx.Limits().keepalive_expiry
    assert clients_s is not None
    assert Bounds().keep_alive_s >= max(clients_s, 60.0) + 10  # 60 s: what load balancers keep


# -- too many ----------------------------------------------------------------------------------------------

KEY = b"GET / HTTP/1.1\r\nauthorization: right\r\n\r\n"


@pytest.mark.parametrize(
    "bounds", [Bounds(strangers_per_address=5), Bounds(strangers=5)], ids=["per address", "in all"]
)
async def test_a_crowd_of_strangers_keeps_nobody_out_who_has_a_key(
    monkeypatch: pytest.MonkeyPatch, bounds: Bounds
) -> None:
    async with serving(bounds, monkeypatch) as server:
        known = []
        for _ in range(8):
            known.append(wire := await server.connect())
            await wire.send(KEY)
            assert (await wire.answer())[0] == 200
        strangers = [await server.connect() for _ in range(40)]
        await eventually(lambda: len(server.open_connections._strangers) == 5, "only so many strangers")
        for wire in strangers[:30]:
            assert await wire.is_closed()
        late = await server.connect()
        for wire in (*known, late):
            await wire.send(KEY)
            assert (await wire.answer())[0] == 200
        for wire in (*known, *strangers, late):
            await wire.__aexit__()


async def test_where_callers_need_no_key_there_is_no_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Bounds(strangers=None, strangers_per_address=None), monkeypatch) as server:
        wires = [await server.connect() for _ in range(40)]
        for wire in wires:
            await wire.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await wire.answer())[0] == 200
            await wire.__aexit__()


@pytest.mark.parametrize(
    ("path", "key", "shown"),
    [
        ("/v1/models", key_of("a"), True),
        ("/v1/models", "tnt_nobody", False),
        ("/v1/models", None, False),
        ("/nowhere", key_of("a"), True),
    ],
)
async def test_a_valid_key_is_passed_on_to_the_server_whatever_the_route(
    bench: Bench, path: str, key: str | None, shown: bool
) -> None:
    connection = Mock(spec=BoundedProtocol, is_stranger=True)
    client = bench.get(path, key=key)
    client._scope[CONNECTION] = connection
    await client()
    assert connection.show_key.call_count == shown


@pytest.mark.parametrize("keep", [b"", b"connection: keep-alive\r\n"])
@pytest.mark.parametrize(
    ("line", "body"),
    [
        (b"GET /whole HTTP/1.0", b"/whole"),
        (b"HEAD /whole HTTP/1.0", b""),
        (b"GET /events HTTP/1.0", b"one\n\ntwo\n\n"),
        (b"HEAD /events HTTP/1.0", b""),
        (b"POST /events HTTP/1.0", b"one\n\ntwo\n\n"),
    ],
)
async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_its_connection(
    server: Server, line: bytes, body: bytes, keep: bytes
) -> None:
    async with await server.connect() as wire:
        await wire.send(line + b"\r\n" + keep + b"\r\n")
        head, _, rest = (await wire.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and rest == body
    assert b"connection: close" in head and b"transfer-encoding" not in head


async def test_a_client_of_http_1_1_gets_chunks_and_keeps_its_connection(server: Server) -> None:
    async with await server.connect() as wire:
        await wire.send(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        await wire.send(b"GET /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answers = await wire.rest()
    assert answers.count(b"transfer-encoding: chunked") == 2
    assert answers.count(b"5\r\none\n\n\r\n5\r\ntwo\n\n\r\n0\r\n\r\n") == 2


# -- the end of the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\nhalf", 503),
        (CHUNKED + b"1\r\ny\r\n", 503),
        (b"POST / HTTP/1.1\r\ncontent-le", 0),
        (b"", 0),
    ],
    ids=["half a body", "some chunks", "half a head", "nothing"],
)
async def test_who_has_not_sent_a_whole_request_does_not_hold_up_the_end(
    server: Server, sent: bytes, status: int
) -> None:
    async with await server.connect() as wire:
        await wire.send(sent)
        await eventually(lambda: "(1, 1 " in repr(server.open_connections), "the connection")
        await asyncio.sleep(0.05)
        server.stop()
        said, body = await wire.answer()
        assert said == status
        assert not status or json.loads(body)["error"]["code"] == "shutting_down"
        assert await wire.is_closed()


async def test_what_runs_may_end_and_what_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Bounds(ends_within_s=0.3), monkeypatch) as server:
        held = b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n"
        for ends in (True, False):
            server.release.clear()
            async with await server.connect() as wire:
                await wire.send(held)
                await eventually(lambda: len(server.bodies) == (1 if ends else 2), "the request")  # noqa: B023
                server.stop()
                if ends:
                    server.release.set()
                assert (await wire.answer())[0] == (200 if ends else 0)
                assert await wire.is_closed()
        server.release.set()


async def test_an_engines_requests_have_as_long_as_the_gateway_gives_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(Bounds(ends_within_s=None), monkeypatch) as server, await server.connect() as wire:
        await wire.send(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nab")
        await eventually(lambda: "(1, " in repr(server.open_connections), "the connection")
        await asyncio.sleep(0.1)
        server.stop()
        await asyncio.sleep(0.1)
        await wire.send(b"cd")
        assert (await wire.answer())[0] == 200


def test_bounds_are_what_the_documentation_says() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs/configuration.md").read_text().split())
    bounds = Bounds()
    for figure in (
        f"{bounds.head_bytes // KIB} KiB",
        f"{bounds.headers} headers",
        f"{bounds.head_timeout_s:g} s",
        f"{bounds.keep_alive_s:g} s",
        f"{bounds.pipelined} requests",
        f"{bounds.strangers} connections",
        f"{bounds.strangers_per_address} of one address",
    ):
        assert figure in text
    assert isinstance(OpenConnections(bounds), OpenConnections)
