"""Through which client is each replica reached, and is it ready? Follows discovery, and probes.

A replica that moves is served where it was until it is ready where it is now. One that has vanished gets
nothing new; what it runs ends there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from engines.health import EngineState
from routing.replicas.client import ReplicaClient
from routing.replicas.discovery import Addresses, Discovery
from routing.scheduling.dispatcher import Dispatcher

PROBE_INTERVAL_S = 1.0
log = logging.getLogger("tenantry.gateway")


class AdapterSync(Protocol):
    """Tells each replica which adapters to hold."""

    @property
    def changed(self) -> Mapping[str, asyncio.Event]:
        """Set for a replica, by name, when it is to be looked at at once."""
        ...

    def forget(self, replica: str) -> None:
        """Forget what a replica said that it holds."""
        ...

    async def sync(self, client: ReplicaClient) -> bool:
        """Tell a replica what to hold; return whether it may be given requests."""
        ...


class Requests(Protocol):
    """The requests under way."""

    def leave(self, client: ReplicaClient) -> None:
        """Have others asked for what a replica has not begun to answer."""
        ...


class ReplicaRegistry:
    """The replicas that the fleet declares, each with its client once it is known where it is."""

    def __init__(
        self,
        discovery: Discovery,
        dispatcher: Dispatcher,
        lifecycle: AdapterSync,
        requests: Requests,
        clients: dict[str, ReplicaClient],
        token: str,
    ) -> None:
        """`requests` leave a replica that answers no probe; `token` is what engines let the gateway in by.

        `clients` are written here alone. Whatever was ready once stays there, so that a request it was
        granted finds it.
        """
        self.clients = clients
        self._discovery = discovery
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._requests = requests
        self._token = token
        self._urls: dict[str, str] = {}  # where discovery says they are
        self._moving: dict[str, ReplicaClient] = {}  # not ready yet where they are now
        self._undeclared: set[str] = set()  # names that were logged
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: dict[ReplicaClient, asyncio.Task[None]] = {}  # still in use, or being closed

    async def start(self) -> None:
        """Connect to the replicas and begin to probe them; returns at once.

        Raises `RuntimeError` for a replica that is nowhere and cannot come, `ValueError` for a wrong address.
        """
        if self._discovery.is_static:
            await self._follow()
            missing = self._dispatcher.replicas.keys() - self._urls.keys()
            if missing:
                raise RuntimeError(f"no address is known for {', '.join(sorted(missing))}")
        else:
            self._tasks.append(asyncio.create_task(self._follow()))
        self._tasks += [asyncio.create_task(self._probe(name)) for name in self._dispatcher.replicas]

    async def stop(self) -> None:
        """Stop probing; the clients stay usable."""
        tasks = [*self._tasks, *self._retired.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Close every client."""
        for client in (*self.clients.values(), *self._moving.values(), *self._retired):
            client.close()

    # -- where they are ------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for addresses in self._discovery.watch():
            self._take(addresses)

    def _take(self, addresses: Addresses) -> None:
        """Take over where all replicas are now."""
        self._report_undeclared(addresses.keys() - self._dispatcher.replicas.keys())
        for name in self._dispatcher.replicas:
            url, before = addresses.get(name), self._urls.get(name)
            if url == before:
                continue
            if url is None:
                self._vanish(name)
            else:
                self._place(name, url, moves=before is not None)
            self._lifecycle.changed[name].set()  # have it probed at once

    def _vanish(self, name: str) -> None:
        log.warning("replica %s has vanished; it gets nothing new", name)
        del self._urls[name]
        self._dispatcher.set_ready(name, False)
        self._give_up_move(name)

    def _place(self, name: str, url: str, *, moves: bool) -> None:
        level = logging.DEBUG if url.startswith("file:") else logging.INFO  # a socket of BentoML's
        log.log(level, "replica %s %s %s", name, "moves to" if moves else "is at", url)
        self._urls[name] = url
        self._give_up_move(name)
        current = self.clients.get(name)
        if current is not None and current.url == url:
            return
        if moves:
            self._moving[name] = ReplicaClient(name, url, self._token)
        else:
            self._replace(name, ReplicaClient(name, url, self._token))

    def _replace(self, name: str, client: ReplicaClient) -> None:
        """Serve a replica through another client; the one before goes when its requests have ended."""
        before = self.clients.get(name)
        self.clients[name] = client
        if before is not None:
            self._retire(before)

    def _give_up_move(self, name: str) -> None:
        client = self._moving.pop(name, None)
        if client is not None:
            self._retire(client)

    def _retire(self, client: ReplicaClient) -> None:
        self._retired[client] = asyncio.create_task(self._close_unused(client))

    async def _close_unused(self, client: ReplicaClient) -> None:
        """Close a client once its requests have ended; have it left meanwhile if it hangs."""
        while client.in_use:
            if not await client.is_ready():
                self._requests.leave(client)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_INTERVAL_S):
                    await client.unused()
        client.close()
        del self._retired[client]

    def _report_undeclared(self, names: Iterable[str]) -> None:
        """Log names that the fleet does not declare, once each."""
        for name in sorted(set(names) - self._undeclared):
            self._undeclared.add(name)
            log.warning("the fleet declares no replica %r; its address is ignored", name)

    # -- whether they are ready ----------------------------------------------------------------------------

    async def _probe(self, name: str) -> None:
        """Keep the dispatcher's picture of one replica's readiness current."""
        changed = self._lifecycle.changed[name]
        while True:
            changed.clear()
            if not await self._has_moved(name):
                await self._look(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_INTERVAL_S):
                    await changed.wait()

    async def _has_moved(self, name: str) -> bool:
        """Go over to where a replica moves to, as soon as it is ready there."""
        client = self._moving.get(name)
        if client is None or not await client.is_ready():
            return False
        self._lifecycle.forget(name)  # what it said where it was does not hold here
        ready = await self._lifecycle.sync(client)
        if self._moving.get(name) is not client:  # it has moved on, or vanished
            self._lifecycle.forget(name)
            return False
        if ready:
            del self._moving[name]
            self._replace(name, client)
            self._set_ready(name, True)
        return ready

    async def _look(self, name: str) -> None:
        """Ask a replica whether it may be used, tell it what to serve, and tell the dispatcher."""
        client = self.clients.get(name)
        if client is None:
            return
        # One without an address is asked only for the sake of what it runs.
        health = await client.health() if name in self._urls or client.in_use else None
        answers = health is not None and health.state is EngineState.READY
        if not answers or name not in self._urls:
            self._lifecycle.forget(name)
        ready = answers and name in self._urls and await self._lifecycle.sync(client)
        if self.clients[name] is client:
            self._dispatcher.replicas[name].engine.told = health
        # Meanwhile it may have gone, or come back somewhere else.
        self._set_ready(name, ready and name in self._urls and self.clients[name] is client)
        if not answers:
            self._requests.leave(client)

    def _set_ready(self, name: str, ready: bool) -> None:
        replica = self._dispatcher.replicas[name]
        if ready != replica.ready:
            log.info("replica %s is %s", name, "ready" if ready else "not ready")
        self._dispatcher.set_ready(name, ready)
