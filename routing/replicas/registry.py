"""The replicas that take part, from start to stop: they join, are followed, and leave.

The only way in and out while the gateway runs. `join` and `leave` tell the dispatcher, the adapters'
lifecycle and a prober of the replica's own; views and metrics show the replicas that the dispatcher has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from fleet.types import Fleet, Host
from routing.replicas.client import Address, ReplicaClient
from routing.replicas.discovery import Addresses, Discovery
from routing.replicas.prober import AdapterSync, Prober, Requests
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica, declared_replicas

log = logging.getLogger("tenantry.gateway")


_Made = tuple[object, ...]  # the devices of a host, and the weights of an engine that is alone there


class ReplicaRegistry:
    """The replicas that take part, and those that have left and still run something."""

    def __init__(
        self,
        discovery: Discovery,
        dispatcher: Dispatcher,
        lifecycle: AdapterSync,
        requests: Requests,
        clients: dict[Replica, ReplicaClient],
        token: str,
    ) -> None:
        """`requests` leave a replica that answers no probe; `token` is what engines let the gateway in by.

        A replica's client stays in `clients` until the last request that was granted it has ended.
        """
        self.clients = clients
        self._discovery = discovery
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._requests = requests
        self._token = token
        self._addresses: Addresses | None = None  # None: discovery has not said yet
        self._probers: dict[str, Prober] = {}
        self._leaving: dict[Prober, asyncio.Task[None]] = {}
        self._made: dict[str, _Made] = {}  # with what engines were started together with the service
        self._undeclared: set[str] = set()  # names with an address that take no part
        self._following: asyncio.Task[None] | None = None

    async def start(self, fleet: Fleet) -> None:
        """Follow discovery, and let the replicas that a fleet declares join; returns at once.

        Engines that were started together with the service have been so with this fleet.

        Raises `RuntimeError` for a replica that is nowhere and cannot come, `ValueError` for a wrong address.
        """
        hosts = (host for pool in fleet.pools.values() for host in pool.hosts)
        self._made = {h.name: _made(h, fleet) for h in hosts if self._discovery.is_started_here(h.name)}
        for replica in declared_replicas(fleet):
            self.join(replica)
        if self._discovery.is_static:
            await self._follow()
        else:
            self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop probing; the clients stay usable."""
        tasks = [*self._leaving.values(), *([self._following] if self._following else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(
            *tasks, *(prober.stop() for prober in self._all_probers()), return_exceptions=True
        )

    async def close(self) -> None:
        """Close every client."""
        for prober in self._all_probers():
            prober.close()

    # -- who takes part ------------------------------------------------------------------------------------

    def join(self, replica: Replica) -> None:
        """Let a replica take part. It gets requests once it is ready and has confirmed its adapters.

        Raises `ValueError` where a replica of its name takes part already, its pool has no such base model
        or its address is wrong; `RuntimeError` where it is nowhere and cannot come. Nothing has changed then.
        """
        name, url = replica.name, None
        if self._addresses is not None:
            self._require_addresses([replica.host], self._addresses)
            url = self._addresses.get(replica.host)
        if url is not None:
            Address.parse(url)
        self._dispatcher.join(replica)
        for leaving in self._leaving:
            leaving.keep_engine(name)
        prober = self._probers[name] = Prober(
            replica, self._dispatcher, self._lifecycle, self._requests, self.clients, self._token
        )
        prober.locate(url)
        self._undeclared.discard(replica.host)

    def leave(self, name: str) -> None:
        """Let a replica go: it gets nothing new, and requests that it runs end there.

        What it has not begun to answer after a while is given to others, as where it hangs. Waiting requests
        that no other replica could serve are refused. Raises `LookupError` where no such replica takes part.
        """
        if name not in self._probers:
            raise LookupError(f"there is no replica {name!r}")
        log.info("replica %s leaves", name)
        prober = self._probers.pop(name)
        # A shared host takes orders wherever it runs; another one's engine is its own affair elsewhere.
        prober.leave(stop_engine=prober.shares_host or self._discovery.is_started_here(prober.host))
        self._dispatcher.leave(name)
        self._leaving[prober] = asyncio.create_task(self._see_off(prober))

    def take_fleet(self, fleet: Fleet) -> None:
        """Let the replicas take part that a fleet declares, and no others; `why_not` has found no reason."""
        declared = {replica.name: replica for replica in declared_replicas(fleet)}
        for name in self._probers.keys() - declared.keys():
            self.leave(name)
        for name, replica in declared.items():
            if name not in self._probers:
                self.join(replica)

    def why_not(self, before: Fleet, after: Fleet) -> list[str]:
        """Say why replicas cannot be those of another fleet while this gateway runs; empty: they can."""
        old, new = _models(before), _models(after)
        moved = [
            f"pool {pool}: replica {name} would serve {model} instead of {old[name][1]}: this needs a "
            "restart of the service"
            for name, (pool, model) in new.items()
            if name in old and old[name] != (pool, model)
        ]
        here = {*(self._addresses or {})}
        here |= {host.name for pool in before.pools.values() for host in pool.hosts}
        nowhere = [
            f"pool {pool.name}: replica {host.name} has no engine: engines start together with the service. "
            "Restart it with more replicas in its fleet file, or have engines started elsewhere, named in a "
            "file (TENANTRY_ENGINE_FILE)"
            for pool in after.pools.values()
            for host in pool.hosts
            if host.name not in here and self._discovery.is_static
        ]
        return moved + nowhere + self._why_other(before, after)

    def _why_other(self, before: Fleet, after: Fleet) -> list[str]:
        """Say which hosts come back, or get other base models, and were started for something else."""
        known = {host.name: host.base_models for pool in before.pools.values() for host in pool.hosts}
        return [
            f"pool {pool.name}: replica {host.name} was started with other base models, weights or devices: "
            "this needs a restart of the service"
            for pool in after.pools.values()
            for host in pool.hosts
            if known.get(host.name) != host.base_models and host.name in self._made
            if self._made[host.name] != _made(host, after)
        ]

    async def _see_off(self, prober: Prober) -> None:
        await prober.left()
        del self._leaving[prober]

    def _all_probers(self) -> list[Prober]:
        return [*self._probers.values(), *self._leaving]

    # -- where they are ------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for addresses in self._discovery.watch():
            self._take(addresses)

    def _take(self, addresses: Addresses) -> None:
        """Take over where all replicas are now."""
        hosts = {prober.host for prober in self._probers.values()}
        self._require_addresses(hosts, addresses)
        self._addresses = addresses
        for prober in self._probers.values():
            prober.locate(addresses.get(prober.host))
        undeclared = addresses.keys() - hosts
        for name in sorted(undeclared - self._undeclared):
            log.warning("the fleet declares no replica %r; its address is ignored", name)
        self._undeclared = undeclared

    def _require_addresses(self, names: Iterable[str], addresses: Addresses) -> None:
        """Raise `RuntimeError` for replicas that are nowhere and cannot come."""
        missing = set(names) - addresses.keys() if self._discovery.is_static else None
        if missing:
            raise RuntimeError(f"no address is known for {', '.join(sorted(missing))}")


def _made(host: Host, fleet: Fleet) -> _Made:
    """Return with what the engines of a host are made; a shared one is told its models later."""
    if any(replica != host.name for replica, _ in host.replicas):
        return (host.device,)
    models = (fleet.base_models[name] for name in host.base_models)
    return host.device, *((model.name, model.source, model.revision) for model in models)


def _models(fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Pool and base model of every replica that a fleet declares."""
    return {name: (pool.name, model) for pool in fleet.pools.values() for name, model in pool.replica_models}
