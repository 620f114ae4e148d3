"""Requests carry what each way in wants, and a baseline's account is right whatever ends them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from benchmarks.baselines import RoundRobin
from benchmarks.processes import free_port
from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival
from benchmarks.scheduler.doors import DirectDoor, GatewayDoor, session_to
from engines.protocol import ADAPTER_HEADER, TOKEN_HEADER
from tests.unit.benchmarks.scheduler.fakes import ROLE, TOKEN, FakeServer, begun

NAMES = ["bulk-000@1", "bulk-001@2", "bulk-002@3"]


def new_answer(adapter: int) -> Answer:
    return Answer(Arrival(0.0, adapter, adapter), due_s=0.0)


async def opened(stack: AsyncExitStack, server: FakeServer, socket: Path) -> aiohttp.ClientSession:
    await stack.enter_async_context(server.listening(socket))
    return await stack.enter_async_context(session_to(f"unix:{socket}", "secret"))


async def test_the_gateway_is_asked_with_the_tenants_key_by_the_tenants_name(tmp_path: Path) -> None:
    server = FakeServer()
    async with AsyncExitStack() as stack:
        session = await opened(stack, server, tmp_path / "g.sock")
        door = GatewayDoor("ours", session)
        answer = new_answer(2)
        await door.ask(answer, "hello", 5)
    body, headers = server.asked[0]
    assert answer.whole
    assert (body["model"], body["max_tokens"]) == ("bulk-002", 5)
    assert headers["authorization"] == "Bearer tenant-2-bench-key"
    assert "cache_salt" not in body


async def test_an_engine_is_asked_with_its_token_by_its_own_name(tmp_path: Path) -> None:
    server = FakeServer()
    async with AsyncExitStack() as stack:
        session = await opened(stack, server, tmp_path / "e.sock")
        door = DirectDoor("rr", RoundRobin(), {"e": session}, NAMES, slots=2)
        answer = new_answer(1)
        await door.ask(answer, "hello", 5)
    body, headers = server.asked[0]
    assert (answer.whole, answer.replica) == (True, "e")
    assert body["model"] == headers[ADAPTER_HEADER] == NAMES[1]
    assert headers[TOKEN_HEADER] == "secret"
    assert len(body["cache_salt"]) == 64


async def test_a_router_is_asked_over_tcp_as_the_gateway_is_with_the_engines_token() -> None:
    server, port = FakeServer(), free_port()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.listening(port))
        session = await stack.enter_async_context(session_to(f"http://127.0.0.1:{port}", "secret"))
        door = DirectDoor("rr", RoundRobin(), {"e": session}, NAMES, slots=2)
        answer = new_answer(1)
        await door.ask(answer, "hello", 5)
    body, headers = server.asked[0]
    assert (answer.whole, answer.replica, body["model"]) == (True, "e", NAMES[1])
    assert headers[TOKEN_HEADER] == "secret"


async def test_each_tenant_has_a_salt_of_its_own(tmp_path: Path) -> None:
    server = FakeServer()
    async with AsyncExitStack() as stack:
        session = await opened(stack, server, tmp_path / "e.sock")
        door = DirectDoor("rr", RoundRobin(), {"e": session}, NAMES, slots=2)
        for adapter in range(3):
            await door.ask(new_answer(adapter), "hello", 5)
    assert len({body["cache_salt"] for body, _ in server.asked}) == 3


@pytest.mark.parametrize("status", [200, 500])
async def test_nothing_stays_in_flight_after_an_end_or_a_failure(tmp_path: Path, status: int) -> None:
    server = FakeServer(status=status)
    async with AsyncExitStack() as stack:
        sessions = {name: await opened(stack, server, tmp_path / f"{name}.sock") for name in ("e0", "e1")}
        door = DirectDoor("rr", RoundRobin(), sessions, NAMES, slots=2)
        await asyncio.gather(*(door.ask(new_answer(n % 3), "hello", 5) for n in range(12)))
        assert [ledger.in_flight for ledger in door.ledgers] == [0, 0]


async def test_nothing_stays_in_flight_after_a_cut(tmp_path: Path) -> None:
    server = FakeServer(ROLE + TOKEN, TOKEN)
    server.held = asyncio.Event()
    async with AsyncExitStack() as stack:
        session = await opened(stack, server, tmp_path / "e.sock")
        door = DirectDoor("rr", RoundRobin(), {"e": session}, NAMES, slots=2)
        answer = new_answer(0)
        task = asyncio.create_task(door.ask(answer, "hello", 5))
        await begun(answer)
        assert door.ledgers[0].by_adapter == {NAMES[0]: 1}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert door.ledgers[0].by_adapter == {}
