"""Carries out one switch at one host: orders it, waits until the model takes requests, or gives it back.

A switch that was begun goes on whoever leaves meanwhile. A model that does not come awake is stopped, so that
its place is free again; the others at its host are not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from engines.health import EngineHealth, EngineState
from engines.protocol import EngineOrder
from routing.replicas.client import OrderRefused, ReplicaClient, ReplicaSilent
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica
from routing.turns.seats import HostSeats, Seat

AWAKE_WITHIN_S = 900.0  # a large model on a slow disk
STOPPED_WITHIN_S = 120.0  # vLLM's processes may need as long to end
FIRST_POLL_S, LAST_POLL_S = 0.02, 0.5  # a switch in place takes tens of milliseconds, a cold start minutes
SILENT_S = 15.0  # a host that imports vLLM on a loaded machine may miss several probes
GRACE_S = 2.0  # in which a host that was told to start an engine may still say that it is stopped


class NotAwake(Exception):
    """A model did not come awake; says why."""


class DoesNotLoad(NotAwake):
    """Its engine does not start; says why in the engine's words."""


class HostSilent(NotAwake):
    """Its host does not answer: nothing is known of its models until it does."""


class Switching:
    """Speaks to the hosts of a gateway."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clients: Mapping[Replica, ReplicaClient],
        look_at: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """`look_at` has a replica probed at once."""
        self._dispatcher = dispatcher
        self._clients = clients
        self._look_at = look_at
        self._clock = clock
        self.files_at = ""  # where hosts get the files that they have not: this gateway's address, a URL

    async def bring(self, seat: Seat, instead_of: Seat | None, *, ordered: bool = True) -> None:
        """Have a model come awake, told of its adapters. Raises `NotAwake`; then it has been stopped.

        Without `ordered` it comes already, by another's order.
        """
        try:
            if ordered:
                client = self._client(seat)
                going = None if instead_of is None else instead_of.model
                await client.order(
                    EngineOrder.START, seat.model_told, instead_of=going, files_at=self.files_at
                )
                if instead_of is not None:
                    self._goes(instead_of)
                self._look_at(seat.replica.name)
            await self._until_awake(seat)
        except NotAwake:
            await self.stop(seat)
            raise
        except ReplicaSilent as error:
            await self.stop(seat)
            kind = NotAwake if isinstance(error, OrderRefused) else HostSilent
            raise kind(str(error)) from error

    async def prepare(self, host: HostSeats, model: str | None) -> None:
        """Have a host read the weights of the model that comes next, if one does; nothing depends on it."""
        if model is not None and model in host.seats:
            with contextlib.suppress(ReplicaSilent, NotAwake):
                seat = host.seats[model]
                client = self._client(seat)
                await client.order(EngineOrder.PREPARE, seat.model_told, files_at=self.files_at)

    async def stop(self, seat: Seat) -> None:
        """Have a model go to disk, and wait until it is gone; a host that is silent is not waited for."""
        self._dispatcher.set_ready(seat.replica.name, False)
        with contextlib.suppress(ReplicaSilent, NotAwake):
            client = self._client(seat)
            await client.order(EngineOrder.STOP)
            self._goes(seat)
            due_s = self._clock() + STOPPED_WITHIN_S
            while self._clock() < due_s and (health := await client.health()) is not None:
                if health.state is EngineState.STOPPED:
                    seat.replica.engine.told = health
                    break
                await asyncio.sleep(LAST_POLL_S / 5)
        if not seat.replica.left:
            self._look_at(seat.replica.name)

    def _goes(self, seat: Seat) -> None:
        """Count a model as gone: a probe that was under way when that was ordered may say it is there."""
        seat.replica.orders += 1
        self._dispatcher.set_ready(seat.replica.name, False)
        self._look_at(seat.replica.name)

    async def has_left(self, seat: Seat) -> None:
        """Wait until nothing is left of a replica that takes part no more: then its place is free."""
        while seat.replica in self._clients:  # noqa: ASYNC110 - whoever sees it off has no event for it
            await asyncio.sleep(LAST_POLL_S / 5)

    def forget(self, host: HostSeats) -> None:
        """Know nothing of the models of a host that is silent, and have it probed until it answers."""
        for seat in host.seats.values():
            seat.replica.engine.told = None
            self._look_at(seat.replica.name)

    async def _until_awake(self, seat: Seat) -> None:
        began_s, pause_s = self._clock(), FIRST_POLL_S
        heard_s = began_s
        while not seat.replica.engine.ready:
            if seat.replica.left:
                raise NotAwake("its replica takes part no more")
            waited_s = self._clock() - began_s
            if waited_s > AWAKE_WITHIN_S:
                raise NotAwake(f"it is not ready after {AWAKE_WITHIN_S:g} s")
            health, now_s = await self._client(seat).health(), self._clock()
            if health is not None:
                heard_s = now_s
                _require_coming(health, waited_s)
            elif now_s - heard_s > SILENT_S:
                raise HostSilent("its host does not answer")
            if seat.replica.engine.told is None or seat.replica.engine.told.state is not EngineState.READY:
                self._look_at(seat.replica.name)
            await asyncio.sleep(pause_s)
            pause_s = min(LAST_POLL_S, 1.5 * pause_s)

    def _client(self, seat: Seat) -> ReplicaClient:
        client = self._clients.get(seat.replica)
        if client is None:
            raise NotAwake("the address of its host is not known")
        return client


def _require_coming(health: EngineHealth, waited_s: float) -> None:
    """Raise `NotAwake` where an engine will not come."""
    if health.state is EngineState.FAILED:
        raise DoesNotLoad(health.reason or "its engine does not start")
    elif health.state is EngineState.DRAINING:
        raise NotAwake("its host is shutting down")
    elif health.state is EngineState.STOPPED and waited_s > GRACE_S:
        raise NotAwake(health.reason or "its host has stopped it")
