"""What goes over the wire for what an application says: one write for a head and the first part of a body."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from routing.asgi import HeaderList
from routing.http.cycle import Cycle

DEFAULT: HeaderList = [(b"server", b"test")]
LENGTH = (b"content-length", b"5")


class Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True


class Flow:
    write_paused = False

    async def drain(self) -> None:
        self.write_paused = False


class Wire:
    """A cycle with what surrounds it."""

    def __init__(self, method: str = "POST", version: str = "1.1", *, keep_alive: bool = True) -> None:
        self.transport, self.flow, self.ended = Transport(), Flow(), 0
        self.cycle = Cycle(
            scope={"type": "http", "method": method, "http_version": version},  # type: ignore[typeddict-item]
            transport=self.transport,  # type: ignore[arg-type]
            flow=self.flow,  # type: ignore[arg-type]
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=False,
            default_headers=DEFAULT,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._end,
        )

    def _end(self) -> None:
        self.ended += 1

    async def start(self, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await self.cycle.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes = b"", *, more: bool = False) -> None:
        await self.cycle.send({"type": "http.response.body", "body": data, "more_body": more})


async def test_a_whole_answer_is_one_write() -> None:
    wire = Wire()
    await wire.start(200, LENGTH, (b"x", b"y"))
    assert wire.transport.writes == []
    await wire.body(b"hello")
    assert wire.transport.writes == [
        b"HTTP/1.1 200 OK\r\nserver: test\r\ncontent-length: 5\r\nx: y\r\n\r\nhello"
    ]
    assert (wire.ended, wire.transport.closed, wire.cycle.response_complete) == (1, False, True)


async def test_a_stream_is_chunks_of_which_the_first_goes_with_the_head() -> None:
    wire = Wire()
    await wire.start()
    await wire.body(b"one", more=True)
    await wire.body(b"", more=True)
    await wire.body(b"two", more=True)
    await wire.body()
    assert wire.transport.writes == [
        b"HTTP/1.1 200 OK\r\nserver: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n",
        b"0\r\n\r\n",
    ]
    assert wire.ended == 1


async def test_a_head_goes_alone_where_an_application_says_so() -> None:
    wire = Wire()
    await wire.start()
    await wire.body(b"", more=True)
    assert wire.transport.writes == [b"HTTP/1.1 200 OK\r\nserver: test\r\ntransfer-encoding: chunked\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "status", "headers", "head"),
    [
        ("HEAD", 200, [LENGTH], b"HTTP/1.1 200 OK\r\nserver: test\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", 200, [], b"HTTP/1.1 200 OK\r\nserver: test\r\n\r\n"),
        ("GET", 204, [], b"HTTP/1.1 204 No Content\r\nserver: test\r\n\r\n"),
        ("GET", 304, [], b"HTTP/1.1 304 Not Modified\r\nserver: test\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_is_a_head(
    method: str, status: int, headers: HeaderList, head: bytes
) -> None:
    wire = Wire(method)
    await wire.start(status, *headers)
    await wire.body(b"hello" if method == "HEAD" else b"")
    assert wire.transport.writes == [head]
    assert wire.ended == 1


async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection() -> None:
    wire = Wire(version="1.0", keep_alive=False)
    await wire.start()
    await wire.body(b"one", more=True)
    await wire.body(b"two")
    assert wire.transport.writes == [
        b"HTTP/1.1 200 OK\r\nserver: test\r\nconnection: close\r\n\r\none",
        b"two",
    ]
    assert wire.transport.closed


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_connection_that_is_to_be_closed_is_told_so_once(keep_alive: bool) -> None:
    wire = Wire(keep_alive=keep_alive)
    await wire.start(200, LENGTH, (b"connection", b"Close"))
    await wire.body(b"hello")
    assert wire.transport.writes[0].lower().count(b"connection: close") == 1
    assert wire.transport.closed


@pytest.mark.parametrize("header", [(b"x", b"a\r\nb: c"), (b"x\n", b"y"), (b"x", b"\0"), (b"x\r", b"")])
async def test_a_header_cannot_end_early(header: tuple[bytes, bytes]) -> None:
    wire = Wire()
    with pytest.raises(RuntimeError, match="header"):
        await wire.start(200, header, LENGTH)
    assert wire.transport.writes == []
    assert not wire.cycle.response_started, "an error can still be answered"


@pytest.mark.parametrize(
    ("parts", "what"), [([b"hell"], "short"), ([b"hello!"], "long"), ([b"hel", b"lo!"], "long")]
)
async def test_a_body_is_as_long_as_its_head_says(parts: list[bytes], what: str) -> None:
    wire = Wire()
    await wire.start(200, LENGTH)
    with pytest.raises(RuntimeError, match="not as long"):
        for number, part in enumerate(parts):
            await wire.body(part, more=number + 1 < len(parts))
    assert wire.ended == 0


async def test_messages_out_of_order_are_refused() -> None:
    wire = Wire()
    with pytest.raises(RuntimeError, match="out of order"):
        await wire.body(b"hello")
    await wire.start(200, LENGTH)
    with pytest.raises(RuntimeError, match="out of order"):
        await wire.start(200, LENGTH)
    await wire.body(b"hello")
    with pytest.raises(RuntimeError, match="out of order"):
        await wire.body(b"again")


async def test_nothing_is_written_to_a_client_that_has_left() -> None:
    wire = Wire()
    await wire.start(200, LENGTH)
    wire.cycle.disconnected = True
    await wire.body(b"hello")
    assert (wire.transport.writes, wire.ended) == ([], 0)


async def test_sending_waits_while_the_client_takes_nothing() -> None:
    wire = Wire()
    wire.flow.write_paused = True
    drained: list[Any] = []

    async def drain() -> None:
        drained.append(list(wire.transport.writes))
        wire.flow.write_paused = False

    wire.flow.drain = drain  # type: ignore[method-assign]
    await wire.start(200, LENGTH)
    await wire.body(b"hello")
    assert drained == [[]]
    assert len(wire.transport.writes) == 1
