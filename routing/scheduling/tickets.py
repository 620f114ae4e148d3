"""Where is one request on its way through the dispatcher? Its ticket, from admission to settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from routing.errors import RequestError
from routing.scheduling.state import Engine, Lease, Replica
from routing.types import Outcome, Request


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request. The dispatcher alone writes it; its owner waits for it and has it settled."""

    request: Request
    estimate_tokens: float = 0.0  # its price, as expected
    engine: Engine | None = None  # holds capacity of it while set
    refusal: RequestError | None = None  # why it left the queue without a replica
    granted_s: float | None = None
    reserved_tokens: int = 0  # of the engine's KV cache, while it holds capacity there
    charged_tokens: float = 0.0
    period: int = 0  # of the engine's health, to report with
    settled: Outcome | None = None
    held: str | None = None  # why it had to wait: a `Hold`
    failed_on: frozenset[str] = frozenset()  # replicas that broke under it, whether they may try again or not
    picked: str | None = None  # what spoke for its engine: a `Place`, or `only`
    engine_s: float = 0.0  # its share of engines' time, of all that it left
    slot_s: float = 0.0  # and of its adapter's slots
    engine_mark_s: float = 0.0  # where the engine's clock stood when it was granted
    slot_mark_s: float = 0.0  # and the slot's
    is_hedge: bool = False  # a second try of another ticket's request; nobody is charged for it
    _tell: Callable[[], None] | None = None

    @property
    def is_decided(self) -> bool:
        """Whether it has a replica, or will get none."""
        return self.engine is not None or self.refusal is not None

    @property
    def replica(self) -> Replica | None:
        """Return where it runs, while it does."""
        return self.engine.replica if self.engine is not None else None

    @property
    def queued_s(self) -> float | None:
        """Seconds it waited before its last grant; None while it waits."""
        return None if self.granted_s is None else self.granted_s - self.request.arrived_s

    def begin_share(self, engine: Engine) -> None:
        """Note where the clocks of an engine stand that the ticket has just been put on."""
        self.engine_mark_s = engine.clock.share_s
        lease = engine.leases.get(self.request.target.adapter_id or "")
        self.slot_mark_s = lease.clock.share_s if lease is not None else 0.0

    def end_share(self, engine: Engine, lease: Lease | None) -> None:
        """Take its share of an engine's time and of a slot's, which it has just been taken off."""
        sequences = self.request.sequences
        self.engine_s += sequences * (engine.clock.share_s - self.engine_mark_s)
        if lease is not None:
            self.slot_s += sequences * (lease.clock.share_s - self.slot_mark_s)

    def take_over(self, hedge: Ticket) -> None:
        """Bear what a hedge that has ended used: it ran for the same request."""
        self.engine_s += hedge.engine_s
        self.slot_s += hedge.slot_s

    def when_decided(self, tell: Callable[[], None]) -> None:
        """Have somebody told, once: now, or when it is granted or refused."""
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
        if self.engine is None:
            raise RuntimeError("a ticket was decided and holds no replica")
        return self.engine.replica

    def decide(self) -> None:
        """Tell whoever waits. For the dispatcher, once it has written the decision down."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()
