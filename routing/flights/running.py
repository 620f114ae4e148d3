"""The flights under way: to be swept, moved to other replicas and drained together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from fleet.current import CurrentFleet
from routing.flights.endings import Abort
from routing.flights.flight import Flight
from routing.replicas.client import ReplicaClient

STREAM_STALL_S = 5.0  # a reader who sees nothing new for so long believes that it is over


class RunningFlights:
    """The flights of one gateway, each from its start to its settlement."""

    def __init__(self, fleet: CurrentFleet) -> None:
        self.draining = False
        self._fleet = fleet
        self._flights: set[Flight] = set()
        self._ended = asyncio.Event()  # set whenever the last flight ends

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._flights))

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, flight: Flight) -> None:
        """Take in a flight that is about to begin."""
        self._flights.add(flight)

    def remove(self, flight: Flight) -> None:
        """Let go of a flight that is settled."""
        self._flights.discard(flight)
        if not self._flights:
            self._ended.set()

    def move_on(self, client: ReplicaClient) -> None:
        """Have other replicas answer the requests that a hanging one has not begun to answer."""
        for flight in self:
            flight.move_on(client)

    def stalled(self, now_s: float) -> Iterator[tuple[str, str]]:
        """Name pool and replica of each stream that has brought nothing for a while; once for each pause."""
        for flight in self:
            replica = flight.stalls(now_s, STREAM_STALL_S)
            if replica is not None:
                yield flight.ticket.request.target.pool, replica

    def abort_overdue(self, now_s: float) -> None:
        """End flights whose client has not read, or whose engine has not finished, for too long."""
        for flight in self:
            reason = self._overdue(flight, now_s)
            if reason is not None:
                flight.abort(reason)

    async def drain(self) -> None:
        """Return once all have ended, by themselves or at the end of the grace period."""
        self.draining = True
        if self._flights:
            self._ended.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._fleet.now.gateway.shutdown_grace_s):
                    await self._ended.wait()
        for flight in self:
            flight.abort(Abort.SHUTTING_DOWN)

    def _overdue(self, flight: Flight, now_s: float) -> Abort | None:
        sending_since_s = flight.progress.sending_since_s
        if sending_since_s is not None and now_s - sending_since_s > self._fleet.now.gateway.stall_timeout_s:
            return Abort.CLIENT_STALLED
        granted_s = flight.ticket.granted_s
        if granted_s is not None and now_s - granted_s > self._fleet.now.gateway.request_timeout_s:
            return Abort.ENGINE_TIMEOUT
        return None
