"""The client of HTTP/1.1 for replicas, over real sockets: whole and broken answers, kept connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from routing.replicas import http1
from routing.replicas.http1 import (
    MAX_HEAD_BYTES,
    MAX_UNREAD_BYTES,
    Answer,
    Unreachable,
    Upstream,
    UpstreamError,
)
from tests.fakes import eventually

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\ntrailer: z\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + LENGTH
WITH_CLOSE = LENGTH.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n")


class Replica:
    """Answers every request with the same bytes, then closes or not."""

    def __init__(self) -> None:
        self.reply: bytes | Reply = LENGTH
        self.closes = False
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                    self.requests.append(head + await reader.readexactly(length))
                    if callable(self.reply):
                        await self.reply(writer)
                    else:
                        writer.write(self.reply)
                    if self.closes:
                        return
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Replica, Upstream]]:
    replica, path = Replica(), str(folder / "s")
    server = await asyncio.start_unix_server(replica.serve, path)
    upstream = Upstream("http://engine", path, {"x-token": "t"})
    try:
        yield replica, upstream
    finally:
        upstream.close()
        await eventually(
            lambda: repr(upstream) == "<Upstream 0 connections, 0 idle>", "the end of connections"
        )
        await eventually(lambda: replica.open == 0, "the end of connections at the replica")
        server.close()
        await server.wait_closed()


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Replica, Upstream]]:
    async with running(tmp_path) as both:
        yield both


async def whole(upstream: Upstream, body: bytes = b"{}") -> tuple[Answer, bytes]:
    answer = await upstream.ask("POST", "/v1/x", body, {"x-one": "1"})
    try:
        return answer, await answer.read()
    finally:
        answer.close()


# -- whole answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "closes"),
    [
        (LENGTH, False),
        (CHUNKED, False),
        (INTERIM, False),
        (WITH_CLOSE, True),
        (WITH_CLOSE, False),
        (UNTIL_CLOSE, True),
    ],
    ids=["length", "chunks", "interim", "closed", "to be closed by us", "until the end"],
)
@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "byte by byte"])
async def test_an_answer_is_read_whole_however_it_is_framed(
    both: tuple[Replica, Upstream], reply: bytes, closes: bool, pieces: bool
) -> None:
    replica, upstream = both

    async def byte_by_byte(writer: asyncio.StreamWriter) -> None:
        for number in reply:
            writer.write(bytes([number]))
            await writer.drain()
            await asyncio.sleep(0)

    replica.reply, replica.closes = byte_by_byte if pieces else reply, closes
    for _ in range(3):
        answer, body = await whole(upstream)
        assert (answer.status, body) == (200, b"hello")
        assert "link" not in answer.headers
    assert replica.connections == (1 if reply in (LENGTH, CHUNKED, INTERIM) else 3)


async def test_a_request_has_its_path_its_headers_and_its_body(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both
    answer, _ = await whole(upstream, b'{"a":1}')
    assert replica.requests == [
        b'POST /v1/x HTTP/1.1\r\nhost: engine\r\nx-token: t\r\nx-one: 1\r\ncontent-length: 7\r\n\r\n{"a":1}'
    ]
    assert answer.media_type == "application/json"
    assert answer.headers["content-type"] == "Application/JSON; charset=utf-8"


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\ny", "a\ry"])
async def test_a_header_is_one_line(both: tuple[Replica, Upstream], value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await both[1].ask("GET", "/", headers={"x": value})


async def test_chunks_come_as_they_are_sent(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both
    go_on = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        head, _, rest = CHUNKED.partition(b"3;")
        writer.write(head)
        await go_on.wait()
        writer.write(b"3;" + rest)

    replica.reply = slowly
    answer = await upstream.ask("GET", "/")
    chunks = answer.chunks()
    assert await anext(chunks) == b"he"
    go_on.set()
    assert [chunk async for chunk in chunks] == [b"llo"]
    answer.close()


@pytest.mark.parametrize("takes", [True, False])
async def test_a_piece_that_is_waited_for_is_passed_on_at_once_or_else_yielded(
    both: tuple[Replica, Upstream], takes: bool
) -> None:
    replica, upstream = both
    go_on, passed = asyncio.Event(), list[bytes]()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        head, _, rest = CHUNKED.partition(b"3;")
        writer.write(head)
        await go_on.wait()
        writer.write(b"3;" + rest)

    def passes(piece: bytes) -> bool:
        passed.append(piece)
        return takes

    replica.reply = slowly
    answer = await upstream.ask("GET", "/")
    chunks = answer.chunks()
    assert await anext(chunks) == b"he"
    answer.passes = passes
    go_on.set()
    assert [chunk async for chunk in chunks] == ([] if takes else [b"llo"])
    assert passed == [b"llo"]
    assert answer.is_complete


async def test_what_comes_while_nobody_waits_is_not_passed_on(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both
    replica.reply = CHUNKED
    answer = await upstream.ask("GET", "/")
    await eventually(lambda: answer.is_complete, "the end of the answer")
    answer.passes = lambda piece: pytest.fail(f"{piece!r} would overtake what is being sent")
    assert [chunk async for chunk in answer.chunks()] == [b"hello"]


async def test_many_ask_at_once_and_each_gets_its_own_answer(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both

    async def echo(writer: asyncio.StreamWriter) -> None:
        body = replica.requests[-1].partition(b"\r\n\r\n")[2]
        await asyncio.sleep(0)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    replica.reply = echo
    for _ in range(5):
        bodies = [b"%d" % number for number in range(40)]
        answers = await asyncio.gather(*(whole(upstream, body) for body in bodies))
        assert [body for _, body in answers] == bodies
    assert replica.connections <= 40


async def test_an_old_answer_that_is_read_late_does_not_disturb_the_next_one(
    both: tuple[Replica, Upstream],
) -> None:
    replica, upstream = both
    replica.reply = CHUNKED
    for _ in range(50):
        first = await upstream.ask("GET", "/")
        reading = asyncio.create_task(first.read())
        await eventually(lambda first=first: first.is_complete, "the first answer")  # type: ignore[misc]
        second = await upstream.ask("GET", "/")
        assert (await reading, await second.read()) == (b"hello", b"hello")
    assert replica.connections == 1


# -- broken answers ----------------------------------------------------------------------------------------

BROKEN = {
    "nothing": b"",
    "half a head": LENGTH[:20],
    "half a body": LENGTH[:-1],
    "half a chunk": CHUNKED[:-20],
    "no last chunk": CHUNKED[: CHUNKED.index(b"0\r\n")],
    "no HTTP": b"hello\r\n\r\n",
    "a bad chunk": CHUNKED.replace(b"3;", b"z;"),
    "too large a head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD_BYTES + 2**20),
    "an interim answer alone": INTERIM[: INTERIM.index(b"HTTP/1.1 200")],
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + LENGTH,
    "an interim answer with a length, alone": INTERIM[: INTERIM.index(b"HTTP/1.1 200")].replace(
        b"link: x", b"content-length: 5"
    ),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_breaks_off_is_an_error(
    both: tuple[Replica, Upstream], caplog: pytest.LogCaptureFixture, reply: bytes
) -> None:
    replica, upstream = both
    replica.reply, replica.closes = reply, True
    with pytest.raises(UpstreamError) as caught:
        await whole(upstream)
    assert not isinstance(caught.value, Unreachable)
    replica.reply, replica.closes = LENGTH, False
    assert (await whole(upstream))[1] == b"hello", "the next one is not disturbed"
    assert not caplog.records, "the event loop has met no error"


AFTER_THE_END = {
    "another answer": LENGTH.replace(b"hello", b"other"),
    "half another answer": LENGTH.replace(b"hello", b"ot"),
    "half a head": LENGTH[:20],
    "one character": b"H",
    "no HTTP": b"other",
    "an end of chunks": b"0\r\n\r\n",
}


@pytest.mark.parametrize("after", AFTER_THE_END.values(), ids=AFTER_THE_END)
@pytest.mark.parametrize("reply", [LENGTH, CHUNKED], ids=["length", "chunks"])
async def test_what_stands_after_the_end_of_an_answer_is_no_part_of_the_next_one(
    both: tuple[Replica, Upstream], reply: bytes, after: bytes
) -> None:
    replica, upstream = both
    replica.reply = reply + after
    assert (await whole(upstream))[1] == b"hello"
    replica.reply = LENGTH.replace(b"hello", b"later")
    assert (await whole(upstream))[1] == b"later"
    assert replica.connections == 2


async def test_headers_after_the_body_change_no_header(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both
    replica.reply = CHUNKED.replace(b"trailer: z", b"content-type: x/y")
    answer, _ = await whole(upstream)
    assert answer.media_type == "text/event-stream"


async def test_nobody_there_is_told_apart(tmp_path: Path) -> None:
    upstream = Upstream("http://engine", str(tmp_path / "nowhere"), {})
    with pytest.raises(Unreachable):
        await upstream.ask("GET", "/")
    upstream = Upstream("http://127.0.0.1:9", None, {})
    with pytest.raises(Unreachable):
        await upstream.ask("GET", "/")


async def test_a_connection_that_is_not_made_in_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(http1, "CONNECT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", never)
    with pytest.raises(Unreachable):
        await Upstream("http://engine", str(tmp_path / "s"), {}).ask("GET", "/")


# -- connections -------------------------------------------------------------------------------------------


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(
    both: tuple[Replica, Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, upstream = both
    await asyncio.gather(*(whole(upstream) for _ in range(3)))
    monkeypatch.setattr(http1, "KEEP_ALIVE_S", 0.0)
    before = replica.connections
    await whole(upstream)
    assert replica.connections == before + 1
    await eventually(lambda: replica.open == 1, "the end of the old ones")


async def test_a_replica_that_speaks_unasked_is_not_asked_on_that_connection(
    both: tuple[Replica, Upstream],
) -> None:
    replica, upstream = both

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(LENGTH)
        await asyncio.sleep(0.01)
        writer.write(LENGTH.replace(b"hello", b"other"))

    replica.reply = twice
    await whole(upstream)
    await eventually(lambda: replica.open == 0, "the end of the connection")
    replica.reply = LENGTH
    assert (await whole(upstream))[1] == b"hello"


@pytest.mark.parametrize("value", ["\N{EURO SIGN}", "a\nb"])
async def test_a_request_that_cannot_be_written_takes_no_connection(
    both: tuple[Replica, Upstream], value: str
) -> None:
    replica, upstream = both
    await whole(upstream)
    with pytest.raises(ValueError):
        await upstream.ask("GET", "/", headers={"x": value})
    assert repr(upstream) == "<Upstream 1 connections, 1 idle>"
    await whole(upstream)
    assert replica.connections == 1


@pytest.mark.parametrize("by_replica", [True, False], ids=["by the replica", "by us"])
async def test_a_connection_that_is_closing_is_not_used_again(
    both: tuple[Replica, Upstream], by_replica: bool
) -> None:
    replica, upstream = both
    await whole(upstream)
    (connection,) = upstream._all
    if by_replica:  # what the event loop does at the end of what it sends, before it tells of the end
        assert connection._transport is not None
        connection._transport.close()
    else:
        connection.abort()
    assert (await whole(upstream))[1] == b"hello"
    assert replica.connections == 2


async def test_who_stops_waiting_or_reading_ends_the_connection(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both

    replica.reply = b""
    asking = asyncio.create_task(upstream.ask("GET", "/"))
    await eventually(lambda: len(replica.requests) == 1, "the request")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: replica.open == 0, "the end of the connection")

    replica.reply = LENGTH[:-1]
    answer = await upstream.ask("GET", "/")
    answer.close()
    answer.close()
    with pytest.raises(UpstreamError, match="closed"):
        await answer.read()


async def test_an_answer_that_nobody_reads_is_not_collected(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both
    total, sent = 64 * 2**20, 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 2**16)
            sent += 2**16
            await writer.drain()

    replica.reply = endless
    answer = await upstream.ask("GET", "/")
    await eventually(lambda: answer.unread_bytes > MAX_UNREAD_BYTES, "a pause")
    for _ in range(100):
        await asyncio.sleep(0)
    assert answer.unread_bytes < MAX_UNREAD_BYTES + 2**20
    assert sent < total
    received = 0
    async for chunk in answer.chunks():
        received += len(chunk)
    assert received == total


async def test_closing_ends_what_runs_and_what_comes(both: tuple[Replica, Upstream]) -> None:
    replica, upstream = both

    replica.reply = b""
    asking = asyncio.create_task(upstream.ask("GET", "/"))
    await eventually(lambda: len(replica.requests) == 1, "the request")
    upstream.close()
    with pytest.raises(UpstreamError):
        await asking
    with pytest.raises(UpstreamError):
        await upstream.ask("GET", "/")
