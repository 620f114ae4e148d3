"""How is a service reached that has just started? Sessions to its gateway and its engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp

from benchmarks.engine import engine_name
from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival
from benchmarks.scheduler.doors import GatewayDoor, session_to
from benchmarks.scheduler.engines import EngineEyes
from benchmarks.scheduler.fleet import Shape
from benchmarks.scheduler.phases import OURS
from benchmarks.scheduler.routers import Router
from benchmarks.service import Service
from benchmarks.tools import ToolError
from demo import bulk
from engines.secrets import internal_token

ADAPTERS_WITHIN_S = 180.0  # all adapters are tried on an engine first
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Connections:
    """Ways to a running service."""

    routes: dict[str, aiohttp.ClientSession]  # through a baseline's router to each engine
    engines: dict[str, aiohttp.ClientSession]
    eyes: EngineEyes
    door: GatewayDoor


async def connect(
    stack: AsyncExitStack, service: Service, routers: Sequence[Router], shape: Shape
) -> Connections:
    """Open them; closed with the stack. Raises ToolError where an engine is not found."""
    token = internal_token(service.secret.encode())

    async def opened(address: str, token: str | None = None) -> aiohttp.ClientSession:
        return await stack.enter_async_context(session_to(address, token))

    gateway = await opened(service.url)
    engines = {name: await opened(service.engine_url(name), token) for name in shape.replica_names()}
    routes = {router.engine: await opened(router.url, token) for router in routers}
    return Connections(routes, engines, EngineEyes(engines, gateway), GatewayDoor(OURS, gateway))


async def engine_names(connections: Connections, shape: Shape) -> list[str]:
    """What engines call each adapter: each is asked through the gateway, then the engine says what it holds.

    Raises ToolError where one is not served in time.
    """
    end_s = time.monotonic() + ADAPTERS_WITHIN_S
    names = []
    for adapter in range(shape.adapters):
        while True:
            answer = Answer(Arrival(0.0, shape.owner(adapter), adapter), time.monotonic())
            await connections.door.ask(answer, "hello", 1)
            if answer.whole:
                break
            if time.monotonic() > end_s:
                raise ToolError(f"{bulk.name(adapter)} is not served: {answer.error}")
            await asyncio.sleep(RETRY_S)
        held = (await connections.eyes.residency(answer.replica)).host
        names.append(engine_name(bulk.name(adapter), held))
    return names
