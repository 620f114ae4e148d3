"""An engine or a gateway that streams what a test wants, and a door behind which nothing computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.doors import CHAT_PATH
from benchmarks.scheduler.engines import EngineEyes

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
END = b"data: [DONE]\n\n"


class FakeServer:
    """Answers every chat with `parts`, one write each; keeps what it was asked."""

    def __init__(self, *parts: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.parts = parts or (ROLE + TOKEN, TOKEN, END)
        self.status = status
        self.headers = headers or {}
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.pages: dict[str, bytes] = {}
        self.held: asyncio.Event | None = None  # answers stay after their first part until it is set

    async def chat(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((orjson.loads(await request.read()), headers))
        response = web.StreamResponse(status=self.status, headers=self.headers)
        await response.prepare(request)
        for number, part in enumerate(self.parts):
            if number and self.held is not None:
                await self.held.wait()
            await response.write(part)
        return response

    async def page(self, request: web.Request) -> web.Response:
        if request.path not in self.pages:
            raise web.HTTPNotFound
        return web.Response(body=self.pages[request.path])

    @asynccontextmanager
    async def listening(self, where: Path | int) -> AsyncIterator[FakeServer]:
        """Serve on a Unix socket, or a port of this machine, until the block ends."""
        app = web.Application()
        app.router.add_post(CHAT_PATH, self.chat)
        app.router.add_get("/{path:.*}", self.page)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        if isinstance(where, int):
            await web.TCPSite(runner, "127.0.0.1", where).start()
        else:
            await web.UnixSite(runner, str(where)).start()
        try:
            yield self
        finally:
            await runner.cleanup()


class FakeDoor:
    """Lets a function decide what becomes of each answer."""

    def __init__(self, name: str, act: Callable[[Answer], Any]) -> None:
        self.name = name
        self.act = act
        self.asked: list[tuple[Answer, str]] = []

    async def ask(self, answer: Answer, prompt: str, tokens: int) -> None:
        self.asked.append((answer, prompt))
        await self.act(answer)


class IdleEyes(EngineEyes):
    """Engines that are always at rest."""

    def __init__(self) -> None:
        pass

    async def wait_until_idle(self, within_s: float) -> None:
        pass


async def begun(answer: Answer) -> None:
    """Wait until the first byte of an answer has come."""
    async with asyncio.timeout(10.0):
        while answer.first_s is None:  # noqa: ASYNC110 - what is tested has no event for it
            await asyncio.sleep(0)
