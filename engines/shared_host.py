"""Several base models in one process: each has its supervisor and its host, and each call names its model.

The process is alive as long as any of them may come awake, and ready as soon as it takes orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from engines import orphans
from engines.draining import drain_on_signals
from engines.handler import Receive, Scope, Send
from engines.host import EngineHost, answer, may_call
from engines.in_place_ways import InPlaceWay
from engines.memory import Memory
from engines.places import Places
from engines.protocol import MODEL_HEADER
from engines.supervisor import Supervisor
from engines.switching.in_place import Means
from engines.switching.turns import Turns


class SharedHost:
    """The replicas of one host as an ASGI application."""

    def __init__(
        self,
        supervisors: Mapping[str, Supervisor],
        *,
        thread: ThreadPoolExecutor,
        awake: int | None,
        memory: Memory,
        token: str,
        turns: Turns,
    ) -> None:
        """`supervisors` by base model; all build their engines in `thread`, and have these `turns` in common.

        `awake` is as `Places` has it.
        """
        self._turns = turns
        self._supervisors = supervisors
        self._thread = thread
        self._token = token
        self._places = Places(
            supervisors,
            awake=awake,
            memory=memory,
            ways=[InPlaceWay(means, turns) for means in (Means.PUT, Means.RELOAD)],
        )
        self._hosts = {
            model.encode(): EngineHost(supervisor, token=token, places=self._places)
            for model, supervisor in supervisors.items()
        }
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        host = self._hosts.get(headers.get(MODEL_HEADER.encode(), b""))
        if host is not None:
            await host(scope, receive, send)
        elif may_call(headers, self._token):
            await answer(send, 404, {"error": f"{MODEL_HEADER} names none of {', '.join(self._supervisors)}"})
        else:
            await answer(send, 401, {"error": "this is an engine; call the gateway"})

    async def start(self) -> None:
        """End what a killed process left behind, and take orders. Call it in the main thread."""
        await asyncio.to_thread(orphans.reap, *(one.replica for one in self._supervisors.values()))
        drain_on_signals(list(self._supervisors.values()))
        for supervisor in self._supervisors.values():
            supervisor.begin()
        self._started = True

    async def stop(self) -> None:
        """End every engine, all at once, and leave no process behind."""
        await self._places.stop()
        await self._turns.close()
        await asyncio.gather(*(supervisor.stop() for supervisor in self._supervisors.values()))
        self._thread.shutdown(wait=False)

    def is_ready(self) -> bool:
        """Whether orders are taken. Never raises."""
        return self._started and not any(one.draining for one in self._supervisors.values())

    def is_alive(self) -> bool:
        """Whether starting any of its engines still makes sense. Never raises."""
        return any(supervisor.is_alive() for supervisor in self._supervisors.values())
