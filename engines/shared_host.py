"""Several base models in one process: each has its supervisor and its host, and each call names its model.

The process is alive as long as any of them may come awake, and ready as soon as it takes orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from engines import orphans
from engines.draining import drain_on_signals
from engines.forking.server import ForkServer
from engines.handler import Receive, Scope, Send
from engines.host import EngineHost, answer, may_call
from engines.in_place_ways import InPlaceWay
from engines.memory import Memory
from engines.places import Places
from engines.protocol import MODEL_HEADER
from engines.sleeping import Sleeping, Wake
from engines.supervisor import Supervisor
from engines.switching.in_place import Means
from engines.switching.sleep import LEVELS
from engines.switching.turns import Turns
from engines.ways import Fork


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
        forks: ForkServer | None = None,
    ) -> None:
        """`supervisors` by base model; all build their engines in `thread`, and have these `turns` in common.

        `awake` is as `Places` has it. With a fork server engines can be forked.
        """
        self.turns = turns
        self._forks = forks
        self.supervisors = supervisors
        self._thread = thread
        self._token = token
        leave = Sleeping(turns).leave
        self.places = Places(
            supervisors,
            awake=awake,
            memory=memory,
            ways=[
                *(InPlaceWay(means, turns) for means in (Means.PUT, Means.RELOAD)),
                *(Wake(level, turns, leave) for level in LEVELS),
                *([] if forks is None else [Fork(forks, leave)]),
            ],
            leave=leave,
        )
        self._hosts = {
            model.encode(): EngineHost(supervisor, token=token, places=self.places)
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
            await answer(send, 404, {"error": f"{MODEL_HEADER} names none of {', '.join(self.supervisors)}"})
        else:
            await answer(send, 401, {"error": "this is an engine; call the gateway"})

    async def start(self) -> None:
        """End what a killed process left behind, and take orders. Call it in the main thread."""
        await asyncio.to_thread(orphans.reap, *(one.replica for one in self.supervisors.values()))
        drain_on_signals(list(self.supervisors.values()))
        for supervisor in self.supervisors.values():
            supervisor.begin()
        self._started = True

    async def stop(self) -> None:
        """End every engine, all at once, and leave no process behind."""
        await self.places.stop()
        await self.turns.close()
        await asyncio.gather(*(supervisor.stop() for supervisor in self.supervisors.values()))
        if self._forks is not None:
            await asyncio.to_thread(self._forks.close)
        self._thread.shutdown(wait=False)

    def is_ready(self) -> bool:
        """Whether orders are taken. Never raises."""
        return self._started and not any(one.draining for one in self.supervisors.values())

    def is_alive(self) -> bool:
        """Whether starting any of its engines still makes sense. Never raises."""
        return any(supervisor.is_alive() for supervisor in self.supervisors.values())
