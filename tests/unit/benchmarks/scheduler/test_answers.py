"""A stream's times and pieces are noted, and every way in which it can end is told apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from benchmarks.scheduler.answers import Answer, chat, stream
from benchmarks.scheduler.arrivals import Arrival
from tests.unit.benchmarks.scheduler.fakes import END, ROLE, TOKEN, FakeServer, begun

URL = "http://engine/v1/chat/completions"


def new_answer() -> Answer:
    return Answer(Arrival(0.0, 0, 0), due_s=0.0)


def session_to(socket: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)))


async def streamed(server: FakeServer, folder: Path) -> Answer:
    answer, socket = new_answer(), folder / "e.sock"
    async with server.listening(socket), session_to(socket) as session:
        await stream(session, URL, b"{}", {}, answer)
    return answer


async def test_a_whole_answer_has_its_times_and_pieces(tmp_path: Path) -> None:
    headers = {"x-tenantry-replica": "shared-1"}
    answer = await streamed(FakeServer(ROLE + TOKEN, TOKEN + TOKEN, END, headers=headers), tmp_path)
    assert (answer.whole, answer.error, answer.cut, answer.pieces) == (True, "", False, 3)
    assert answer.replica == "shared-1"
    assert answer.first_s is not None and answer.last_s is not None
    assert answer.sent_s <= answer.first_s <= answer.last_s
    assert answer.tpot_s(3) == pytest.approx((answer.last_s - answer.first_s) / 2)


async def test_an_end_mark_in_two_halves_is_one(tmp_path: Path) -> None:
    assert (await streamed(FakeServer(ROLE + TOKEN, END[:6], END[6:]), tmp_path)).whole


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (FakeServer(b'{"error":{"message":"busy"}}', status=503), "503: "),
        (FakeServer(ROLE + TOKEN, TOKEN), "without its end mark"),
        (FakeServer(ROLE + TOKEN, b'data: {"error":{"message":"engine died"}}\n\n', END), "engine died"),
    ],
)
async def test_an_answer_that_is_not_whole_is_an_error(
    server: FakeServer, words: str, tmp_path: Path
) -> None:
    answer = await streamed(server, tmp_path)
    assert not answer.whole and not answer.cut
    assert words in answer.error
    assert answer.tpot_s(2) is None


async def test_nobody_listening_is_an_error(tmp_path: Path) -> None:
    answer = new_answer()
    async with session_to(tmp_path / "none.sock") as session:
        await stream(session, URL, b"{}", {}, answer)
    assert "ConnectorError" in answer.error
    assert answer.ttft_s() is None


async def test_an_answer_that_is_cut_off_keeps_what_came(tmp_path: Path) -> None:
    answer, socket = new_answer(), tmp_path / "e.sock"
    server = FakeServer(ROLE + TOKEN, END)
    server.held = asyncio.Event()
    async with server.listening(socket), session_to(socket) as session:
        task = asyncio.create_task(stream(session, URL, b"{}", {}, answer))
        await begun(answer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert answer.cut and answer.pieces == 1
    assert answer.last_s is not None and answer.tpot_s(2) is None


def test_a_chat_asks_for_exactly_so_many_tokens_as_a_stream() -> None:
    body = chat("m", "hello", 7, priority=1)
    assert (body["max_tokens"], body["ignore_eos"], body["stream"], body["priority"]) == (7, True, True, 1)
