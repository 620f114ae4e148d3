"""Which replica answers a request first? The one it was granted, or a second one where that stays silent.

Hedged requests, from Dean and Barroso, "The Tail at Scale" (2013): the second is asked only after a while,
and whoever loses is cancelled at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from routing.errors import InvalidRequest, RequestError
from routing.flights.attempt import Attempt, ReplicaBroken
from routing.replicas.client import ReplicaClient
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica
from routing.scheduling.tickets import Ticket
from routing.types import Outcome

RETRY_S = 0.25  # until a hedge that had no place is tried again; queues are swept as often
Failure = ReplicaBroken | RequestError


@dataclass(slots=True, eq=False)
class _Try:
    """One replica that is asked, and the ticket that holds capacity there."""

    ticket: Ticket
    attempt: Attempt
    opening: asyncio.Task[Failure | None] | None = None  # None: the request itself waits for it


class HedgedRequest:
    """Asks the replica that a ticket was granted, and perhaps a second one for the same ticket.

    The ticket stands where `attempt` runs, and its owner settles it. The hedge's own ticket is settled here,
    before `first_answer` returns or raises.
    """

    def __init__(
        self,
        ticket: Ticket,
        dispatcher: Dispatcher,
        ask: Callable[[Replica], Attempt],
        *,
        hedge_after_s: float | None,
    ) -> None:
        """`ask` makes an attempt at a replica. Without `hedge_after_s` there is no hedge."""
        self.asked = 0  # replicas
        self._ticket = ticket
        self._dispatcher = dispatcher
        self._ask = ask
        self._hedge_after_s = hedge_after_s
        self._tries = [self._try(ticket)]  # at most two; the ticket's own is the first
        self.attempt = self._tries[0].attempt

    @property
    def hedged(self) -> bool:
        """Whether a second replica was asked too."""
        return self.asked > 1

    async def first_answer(self) -> Attempt:
        """Return the attempt whose answer has begun; no other one is left.

        Raises `ReplicaBroken` where nobody is left to answer, or the `RequestError` for the client.
        """
        if self._hedge_after_s is not None:
            return await self._first_of_two(self._hedge_after_s)
        try:
            await self.attempt.open()
        except ReplicaBroken as error:
            self._note_broken(self._ticket, error)
            raise
        return self.attempt

    def leave(self, client: ReplicaClient) -> None:
        """Wait no longer for a replica that hangs, if another may answer and this one has not begun to."""
        for each in self._tries:
            if each.attempt.client is client and self._dispatcher.has_alternative(each.ticket):
                each.attempt.leave()

    # -- two of them ---------------------------------------------------------------------------------------

    async def _first_of_two(self, hedge_after_s: float) -> Attempt:
        self._start(self._tries[0])
        try:
            while True:
                for each, failure in await self._ended(hedge_after_s):
                    # What is wrong with the request is an answer; of what else fails, the last one counts.
                    if failure is None or isinstance(failure, InvalidRequest) or len(self._tries) == 1:
                        self._end_all_but(each)
                        if failure is not None:
                            raise failure
                        return each.attempt
                    self._drop(each, failure)
        except BaseException:
            for each in reversed(self._tries):  # the hedge first, so that the ticket stays where it is
                self._drop(each)
            raise

    async def _ended(self, hedge_after_s: float) -> list[tuple[_Try, Failure | None]]:
        """Wait until somebody has answered or failed, and hedge once it is time."""
        patience_s: float | None = None if self.hedged else hedge_after_s
        while True:
            openings = {each.opening: each for each in self._tries if each.opening is not None}
            done, _ = await asyncio.wait(openings, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
            patience_s = None if self._hedge() else max(hedge_after_s, RETRY_S)
        ended = [(each, opening.result()) for opening, each in openings.items() if opening in done]
        for each, failure in ended:
            if isinstance(failure, ReplicaBroken):
                self._note_broken(each.ticket, failure)
        return ended

    def _hedge(self) -> bool:
        """Ask a second replica, if one can take it now."""
        hedge = self._dispatcher.hedge(self._ticket)
        if hedge is None:
            return False
        self._tries.append(self._try(hedge))
        self._start(self._tries[-1])
        return True

    def _end_all_but(self, last: _Try) -> None:
        for each in list(self._tries):
            if each is not last:
                self._drop(each)

    def _drop(self, dropped: _Try, failure: Failure | None = None) -> None:
        """Be done with a try. The ticket goes over to the other one, if it stood here."""
        self._tries.remove(dropped)
        if dropped.ticket is self._ticket and self._tries:
            other = self._tries[0]
            self._dispatcher.swap(self._ticket, other.ticket)
            dropped.ticket, other.ticket = other.ticket, dropped.ticket
            self.attempt = other.attempt
        if dropped.opening is not None:
            dropped.opening.cancel()
        dropped.attempt.close()
        if dropped.ticket is not self._ticket:
            broken = failure if isinstance(failure, ReplicaBroken) else None
            if broken is not None and dropped.ticket.engine is not None:
                self._dispatcher.avoid(self._ticket, dropped.ticket.engine, begun=broken.begun)
            self._dispatcher.settle(
                dropped.ticket,
                Outcome.CANCELLED,
                fault=broken is not None,
                certain=broken is not None and not broken.crashed,
            )
            self._ticket.take_over(dropped.ticket)

    def _note_broken(self, ticket: Ticket, error: ReplicaBroken) -> None:
        replica = ticket.replica
        if error.is_down and replica is not None and not replica.left:
            self._dispatcher.set_ready(replica.name, False)  # until a probe says otherwise

    def _try(self, ticket: Ticket) -> _Try:
        if ticket.replica is None:
            raise RuntimeError("a ticket without a replica cannot be tried")
        self.asked += 1
        return _Try(ticket, self._ask(ticket.replica))

    def _start(self, each: _Try) -> None:
        each.opening = asyncio.create_task(_open(each.attempt))


async def _open(attempt: Attempt) -> Failure | None:
    """Return how it failed instead of raising, so that nobody need ask a task that lost."""
    try:
        await attempt.open()
    except (ReplicaBroken, RequestError) as error:
        return error
    return None
