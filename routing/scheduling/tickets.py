"""How far is one request on its way through the dispatcher? Its ticket, from admission to settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from routing.errors import RequestError
from routing.scheduling.filters import WaitReason
from routing.scheduling.state import Engine, Lease, Replica
from routing.scheduling.users import User
from routing.types import Outcome, Request


class Grant(NamedTuple):
    """What a ticket was given on an engine. A value: two tickets can exchange theirs."""

    engine: Engine
    granted_s: float
    reserved_tokens: int  # of the engine's KV cache
    period: int  # of the engine's health, to report with
    picked: str  # what spoke for the engine: an `Affinity`, or `only`
    engine_mark_s: float  # where the engine's clock stood
    slot_mark_s: float  # and that of the adapter's slot


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request. Its owner waits for it and has it settled.

    The dispatcher alone writes it; the turns of whole models add `switch_s`.
    """

    request: Request
    estimate_tokens: float = 0.0  # its price, as expected
    grant: Grant | None = None  # the last one
    is_running: bool = False  # it holds what that grant gave it
    refusal: RequestError | None = None  # why it left the queue without a replica
    charged_tokens: float = 0.0
    user: User | None = None  # to whom they were charged too; None: its tenant's users were not told apart
    settled: Outcome | None = None
    waits_for: WaitReason | None = None  # why it had to wait; kept after the grant
    failed_on: frozenset[str] = frozenset()  # replicas that broke under it, whether they may try again or not
    engine_s: float = 0.0  # its share of engines' time, of all that it left
    slot_s: float = 0.0  # and of its adapter's slots
    switch_s: float = 0.0  # and of the switches that it waited for
    is_hedge: bool = False  # a second try of another ticket's request; no tenant is charged for it
    _tell: Callable[[], None] | None = None

    @property
    def is_decided(self) -> bool:
        """Whether it has a replica, or will get none."""
        return self.is_running or self.refusal is not None

    @property
    def engine(self) -> Engine | None:
        """Return the engine of which it holds capacity, while it does."""
        return self.grant.engine if self.is_running and self.grant is not None else None

    @property
    def granted_s(self) -> float | None:
        """When it was granted its engine; None while it waits."""
        waits = not self.is_running and self.settled is None
        return None if waits or self.grant is None else self.grant.granted_s

    @property
    def picked(self) -> str | None:
        """Return what spoke for the engine that it was granted last."""
        return None if self.grant is None else self.grant.picked

    @property
    def replica(self) -> Replica | None:
        """Return where it runs, while it does."""
        return self.grant.engine.replica if self.is_running and self.grant is not None else None

    @property
    def queued_s(self) -> float | None:
        """Seconds it waited before its last grant; None while it waits."""
        granted_s = self.granted_s
        return None if granted_s is None else granted_s - self.request.arrived_s

    @property
    def woke_s(self) -> float | None:
        """Seconds that it waited until its model was awake; None: it did not wait for that."""
        if self.grant is None or self.waits_for is not WaitReason.ASLEEP:
            return None
        awake_since_s = self.grant.engine.replica.awake_since_s
        return min(
            max(0.0, awake_since_s - self.request.arrived_s), self.grant.granted_s - self.request.arrived_s
        )

    def begin(self, grant: Grant) -> None:
        """Hold what a grant gives."""
        self.grant = grant
        self.is_running = True

    def end(self) -> Grant:
        """Hold its grant no more, and return it. Raises `RuntimeError` where it holds none."""
        if self.grant is None or not self.is_running:
            raise RuntimeError("a ticket that runs nowhere holds no capacity")
        self.is_running = False
        return self.grant

    def add_time(self, grant: Grant, lease: Lease | None) -> None:
        """Add its share of an engine's time, and of a slot's, under a grant that has ended."""
        sequences = self.request.sequences
        self.engine_s += sequences * (grant.engine.clock.share_s - grant.engine_mark_s)
        if lease is not None:
            self.slot_s += sequences * (lease.clock.share_s - grant.slot_mark_s)

    def take_over(self, hedge: Ticket) -> None:
        """Add the time that a hedge used, once it has ended: it ran for the same request."""
        self.engine_s += hedge.engine_s
        self.slot_s += hedge.slot_s

    def when_decided(self, tell: Callable[[], None]) -> None:
        """Call `tell` once: now, or when the ticket is granted or refused."""
        if self.is_decided:
            tell()
        else:
            self._tell = tell

    async def granted(self) -> Replica:
        """Wait for the decision. Raises the `RequestError` it was refused with."""
        if not self.is_decided:
            decided = asyncio.Event()
            self.when_decided(decided.set)
            await decided.wait()
        if self.refusal is not None:
            raise self.refusal
        if self.replica is None:
            raise RuntimeError("a ticket was decided and holds no replica")
        return self.replica

    def announce(self) -> None:
        """Wake the owner. For the dispatcher, once the decision stands on the ticket."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


def share_switch(waiting: Iterable[Ticket], took_s: float) -> None:
    """Have those that waited for a switch between whole models bear its time in equal shares."""
    tickets = list(waiting)
    for ticket in tickets:
        ticket.switch_s += took_s / len(tickets)
