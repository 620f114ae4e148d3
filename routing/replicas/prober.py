"""Follows one replica while it takes part: its address, the client that reaches it, its readiness.

A replica that moves is served where it was until it is ready where it is now. One that has vanished gets
nothing new; what it runs ends there. So it does on one that leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from engines.health import EngineHealth, EngineState
from engines.protocol import EngineOrder
from routing.replicas.client import ReplicaClient, ReplicaSilent
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica

PROBE_INTERVAL_S = 1.0
SLEEPER_INTERVAL_S = 60.0  # of one on disk: of hundreds most are, and who wakes one looks at it
GONE_WITHIN_S = 120.0  # vLLM's processes may need as long to end
LEAVE_S = 30.0  # for what a leaving replica has not begun to answer; a pod has as long to end
GONE_S = 0.1  # between two looks at an engine that ends
GRANTED_S = 0.05  # until a request that was just granted is sent
log = logging.getLogger("tenantry.gateway")


class AdapterSync(Protocol):
    """Tells each replica which adapters to hold."""

    def join(self, replica: str) -> asyncio.Event:
        """Take a replica in; return an event that is set when it is to be looked at at once."""
        ...

    def leave(self, replica: str) -> None:
        """Drop everything that is kept of a replica."""
        ...

    def forget(self, replica: str, *, is_empty: bool = False) -> None:
        """Forget what a replica said that it holds; `is_empty`: nothing, since its engine has ended."""
        ...

    async def sync(self, client: ReplicaClient) -> bool:
        """Tell a replica what to hold; return whether it may be given requests."""
        ...


class Requests(Protocol):
    """The requests under way."""

    def move_on(self, client: ReplicaClient) -> None:
        """Have others asked for what a replica has not begun to answer."""
        ...


class Prober:
    """One replica, from its joining to the end of the last request that it runs."""

    def __init__(
        self,
        replica: Replica,
        dispatcher: Dispatcher,
        lifecycle: AdapterSync,
        requests: Requests,
        clients: dict[Replica, ReplicaClient],
        token: str,
    ) -> None:
        """`clients` gets the replica's own once its address is known."""
        self._replica = replica
        self._name = replica.name
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._requests = requests
        self._clients = clients
        self._token = token
        self._url: str | None = None  # where discovery says it is
        self._moving: ReplicaClient | None = None  # not ready yet where it is now
        self._retired: dict[ReplicaClient, asyncio.Task[None]] = {}  # still in use, or being closed
        self._stops_engine = False  # once it has left
        self._problem = ""  # of the last look
        self._move_on_s: float | None = None  # when what it has not begun goes to others
        self._changed = lifecycle.join(self._name)
        self._probing = asyncio.create_task(self._probe())

    @property
    def host(self) -> str:
        """Return the name of the host at which it is."""
        return self._replica.host

    @property
    def shares_host(self) -> bool:
        """Whether other base models have replicas at its host."""
        return self._replica.shares_host

    @property
    def client(self) -> ReplicaClient | None:
        """Return the client through which it is reached; None: its address was never known."""
        return self._clients.get(self._replica)

    def leave(self, *, stop_engine: bool = False) -> None:
        """Probe it no longer, and close its client once what it runs has ended.

        Then its engine is stopped if that is wanted, so that its memory is free; a shared host forgets it.
        """
        self._stops_engine = stop_engine
        self._probing.cancel()
        self._lifecycle.leave(self._name)
        self._move_on_s = asyncio.get_running_loop().time() + LEAVE_S
        self._give_up_move()
        if self.client is not None:
            self._retire(self.client)

    def keep_engine(self, name: str) -> None:
        """Leave the engine of a replica alone, since one of that name takes part again."""
        if name == self._name:
            self._stops_engine = False

    async def left(self) -> None:
        """Wait until nothing of it is left, after `leave`."""
        await asyncio.gather(self._probing, *self._retired.values(), return_exceptions=True)

    async def stop(self) -> None:
        """End its tasks; its clients stay usable."""
        tasks = [self._probing, *self._retired.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Close its clients."""
        current = self._clients.pop(self._replica, None)
        for client in (current, self._moving, *self._retired):
            if client is not None:
                client.close()

    # -- where it is ---------------------------------------------------------------------------------------

    def locate(self, url: str | None) -> None:
        """Take over its address; None: it has vanished. Raises `ValueError` for a wrong one."""
        if url == self._url:
            return
        if url is None:
            log.warning("replica %s has vanished; it gets nothing new", self._name)
            self._dispatcher.set_ready(self._name, False)
            self._give_up_move()
        else:
            self._go_to(url, moves=self._url is not None)
        self._url = url
        self._changed.set()  # have it probed at once

    def _go_to(self, url: str, *, moves: bool) -> None:
        current = self.client
        client = current if current is not None and current.url == url else None
        model = self._replica.engine.base_model if self._replica.shares_host else None
        client = client or ReplicaClient(self._name, url, self._token, base_model=model)
        level = logging.DEBUG if url.startswith("file:") else logging.INFO  # a socket of BentoML's
        log.log(level, "replica %s %s %s", self._name, "moves to" if moves else "is at", url)
        self._give_up_move()
        if client is current:
            return
        if moves:
            self._moving = client
        else:
            self._replace(client)

    def _replace(self, client: ReplicaClient) -> None:
        """Serve it through another client; the one before goes when its requests have ended."""
        before = self.client
        self._clients[self._replica] = client
        if before is not None:
            self._retire(before)

    def _give_up_move(self) -> None:
        client, self._moving = self._moving, None
        if client is not None:
            self._retire(client)

    def _retire(self, client: ReplicaClient) -> None:
        self._retired[client] = asyncio.create_task(self._close_unused(client))

    async def _close_unused(self, client: ReplicaClient) -> None:
        """Close a client once its requests have ended. Others are asked meanwhile where it hangs."""
        while client.in_use or (client is self.client and self._replica.engine.sequences):
            if self._is_late() or not await client.is_ready():
                self._requests.move_on(client)
            if not client.in_use:
                await asyncio.sleep(GRANTED_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_INTERVAL_S):
                    await client.unused()
        if client is self.client:
            if self._stops_engine:
                shared = self._replica.shares_host
                await self._order(client, EngineOrder.LEAVE if shared else EngineOrder.STOP)
                await self._until_gone(client)
            del self._clients[self._replica]
        client.close()
        del self._retired[client]

    async def _until_gone(self, client: ReplicaClient) -> None:
        """Wait until its engine's place at a shared host is free; one that is silent is not waited for."""
        due_s = asyncio.get_running_loop().time() + GONE_WITHIN_S
        while self._replica.shares_host and asyncio.get_running_loop().time() < due_s:
            health = await client.health()
            if health is None or health.state is EngineState.STOPPED:
                return
            await asyncio.sleep(GONE_S)

    async def _order(self, client: ReplicaClient, order: EngineOrder) -> None:
        """Tell its host to start or stop the engine."""
        try:
            await client.order(order, self._replica.engine.declared if order is EngineOrder.START else None)
        except ReplicaSilent as error:
            log.warning("replica %s was not told to %s its engine: %s", self._name, order, error)
        else:
            log.info("replica %s was told to %s its engine", self._name, order)

    def _is_late(self) -> bool:
        return self._move_on_s is not None and asyncio.get_running_loop().time() >= self._move_on_s

    # -- whether it is ready -------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Keep the dispatcher's picture of its readiness current."""
        while True:
            self._changed.clear()
            await self._look_once()
            sleeps = self._replica.is_on_disk and self._replica.asleep and self._moving is None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SLEEPER_INTERVAL_S if sleeps else PROBE_INTERVAL_S):
                    await self._changed.wait()

    async def _look_once(self) -> None:
        """Go over to where it moves to, or look at it. What goes wrong with that ends no probing."""
        try:
            if not await self._has_moved():
                await self._look()
            self._problem = ""
        except Exception as error:
            if repr(error) != self._problem:
                log.exception("replica %s was not looked at", self._name)
            self._problem = repr(error)

    async def _has_moved(self) -> bool:
        """Go over to where it moves to, as soon as it is ready there."""
        client = self._moving
        if client is None or not await client.is_ready():
            return False
        self._lifecycle.forget(self._name)  # what it said where it was does not hold here
        ready = await self._lifecycle.sync(client)
        if self._moving is not client:  # it has moved on, or vanished
            self._lifecycle.forget(self._name)
            return False
        if ready:
            self._moving = None
            self._replace(client)
            self._set_ready(True)
        return ready

    async def _look(self) -> None:
        """Ask it whether it may be used, tell it what to serve, and tell the dispatcher."""
        client, orders = self.client, self._replica.orders
        if client is None:
            return
        health = await self._ask(client)
        answers = health is not None and health.state is EngineState.READY
        if not answers or self._url is None:
            stopped = health is not None and health.state is EngineState.STOPPED
            self._lifecycle.forget(self._name, is_empty=stopped)
        ready = answers and self._url is not None and await self._lifecycle.sync(client)
        if orders != self._replica.orders:
            return  # it is asked again at once
        if self.client is client:
            self._replica.engine.told = health
        # Meanwhile it may have gone, or come back somewhere else.
        self._set_ready(ready and self._url is not None and self.client is client)
        if not answers:
            self._requests.move_on(client)

    async def _ask(self, client: ReplicaClient) -> EngineHealth | None:
        """Ask how its engine stands, and have it started if it was stopped when the replica left before.

        At a shared host an engine is stopped until its turn comes.
        """
        if self._url is None and not client.in_use:
            return None  # without an address it is asked only for the sake of what it runs
        health = await client.health()
        if health is not None and health.state is EngineState.STOPPED and not self._replica.shares_host:
            await self._order(client, EngineOrder.START)
        return health

    def _set_ready(self, ready: bool) -> None:
        ready = ready and not self._replica.restarting
        if ready != self._replica.ready:
            log.info("replica %s is %s", self._name, "ready" if ready else "not ready")
        self._dispatcher.set_ready(self._name, ready)
