"""Several base models in one process: each has its supervisor and its host, and each call names its model.

A model of which nothing was heard before is on disk; it gets a supervisor with the gateway's first order,
which says where its files are. The process is alive as long as any of them may come awake, and ready as soon
as it takes orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engines import orphans
from engines.draining import drain_on_signals
from engines.forking.server import ForkServer
from engines.handler import Receive, Scope, Send
from engines.health import EngineHealth, EngineState, Place
from engines.host import EngineHost, answer, answer_metrics, may_call
from engines.in_place_ways import InPlaceWay
from engines.memory import Memory
from engines.places import Places
from engines.protocol import ENGINE_PATH, METRICS_PATH, MODEL_HEADER, EngineOrder
from engines.sleeping import Sleeping, Wake
from engines.supervisor import Supervisor
from engines.switching.in_place import Means
from engines.switching.live import Model
from engines.switching.sleep import LEVELS
from engines.switching.turns import Turns
from engines.ways import Fork
from fleet.names import is_name
from fleet.types import BaseModel

MAX_MODELS = 1000


@dataclass(frozen=True, slots=True)
class Growth:
    """How a host gets models that it did not begin with."""

    make: Callable[[str], Supervisor]  # of a model of that name, whose files are not known yet
    describe: Callable[[BaseModel], Model]


class SharedHost:
    """The replicas of one host as an ASGI application."""

    def __init__(
        self,
        supervisors: MutableMapping[str, Supervisor],
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
        self.growth: Growth | None = None  # without, there are never other models
        self._forgetting: set[asyncio.Task[None]] = set()
        self._drained: list[Supervisor] = []  # those that a signal tells to end
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
        self.places.took = self._took
        self._hosts: dict[bytes, EngineHost] = {}
        for model, supervisor in supervisors.items():
            self._take(model, supervisor)
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        name = headers.get(MODEL_HEADER.encode(), b"")
        host = self._hosts.get(name)
        if host is not None:
            await host(scope, receive, send)
        elif may_call(headers, self._token) and self._may_add(name.decode("latin-1")):
            await self._answer_for(name.decode(), scope, receive, send)
        elif may_call(headers, self._token):
            await answer(send, 404, {"error": f"{MODEL_HEADER} names none of {', '.join(self.supervisors)}"})
        else:
            await answer(send, 401, {"error": "this is an engine; call the gateway"})

    async def start(self) -> None:
        """End what a killed process left behind, and take orders. Call it in the main thread."""
        replicas = {model: one.replica for model, one in self.supervisors.items()}
        name = next((replica.removesuffix(f".{model}") for model, replica in replicas.items()), None)
        await asyncio.to_thread(orphans.reap, *replicas.values(), host=name)
        drain_on_signals(self._drained)
        for supervisor in self.supervisors.values():
            supervisor.begin()
        self._started = True

    async def stop(self) -> None:
        """End every engine, all at once, and leave no process behind."""
        self._started = False
        for task in self._forgetting:
            task.cancel()
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

    # -- models that come and go ---------------------------------------------------------------------------

    def _may_add(self, model: str) -> bool:
        """Whether a model that is not here may come."""
        return self.growth is not None and len(self._hosts) < MAX_MODELS and is_name(model)

    async def _answer_for(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for a model of which nothing was heard before: it is on disk until it is told to start."""
        if scope["path"] == METRICS_PATH:
            await answer_metrics(send, b"")
            return
        if self.growth is None or scope["path"] != ENGINE_PATH:
            place = Place(awake=self.places.most_awake())
            await answer(send, 503, EngineHealth(EngineState.STOPPED, place=place).to_json())
            return
        supervisor = self.supervisors[model] = self.growth.make(model)
        supervisor.turns = self.turns
        supervisor.begin()
        await self._take(model, supervisor)(scope, receive, send)

    def _take(self, model: str, supervisor: Supervisor) -> EngineHost:
        self._drained.append(supervisor)
        host = self._hosts[model.encode()] = EngineHost(
            supervisor,
            token=self._token,
            places=self.places,
            took=self._took,
            leave=lambda: self._leave(model),
        )
        return host

    def _took(self, model: BaseModel) -> None:
        if self.growth is not None and model.source:
            self.turns.take(self.growth.describe(model))

    def _leave(self, model: str) -> None:
        """Stop a model's engine, then forget the model, unless this host's own fleet file has it."""
        self.places.follow(model, EngineOrder.STOP)
        if model in self.places.own:
            return
        task = asyncio.create_task(self._forget(model, self.supervisors[model]))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _forget(self, model: str, supervisor: Supervisor) -> None:
        await supervisor.rests()
        if self.supervisors.get(model) is not supervisor or self.places.is_wanted(model):
            return  # it was told to start again
        del self.supervisors[model], self._hosts[model.encode()]
        self._drained.remove(supervisor)
        self.places.forget(model)
        self.turns.forget(model)
        await supervisor.stop()
