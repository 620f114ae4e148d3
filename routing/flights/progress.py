"""How far is the answer to the client, and how fast does a stream come?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.tickets import Ticket


@dataclass(frozen=True, slots=True)
class Waits:
    """How long nothing may happen until something is done about it, in seconds; None: nothing is done."""

    hedge_after_s: float | None = None  # a second replica is asked too
    heartbeat_s: float | None = None  # a stream gets a sign of life


NO_WAITS = Waits()


@dataclass(slots=True)
class Progress:
    """How far the answer to the client is."""

    status: int | None = None  # once the answer has begun
    first_byte_s: float | None = None
    sending_since_s: float | None = None  # while the client's connection takes no more
    moved_s: float | None = None  # when a part of the answer was sent last
    stalled_s: float | None = None  # `moved_s` at the last stall that was counted
    finished: bool = False


class Pace:
    """Tells the dispatcher how fast a stream comes, where its replica is held to a pace."""

    def __init__(self, ticket: Ticket, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        engine = ticket.engine
        self._replica = engine.name if engine is not None and engine.limit is not None else None
        self._sequences = ticket.request.sequences  # a stream of several choices brings their tokens in turn
        self._dispatcher = dispatcher
        self._clock = clock
        self._last_s: float | None = None
        self._events = 0

    def came(self, events: int) -> None:
        """Note that so many events have come in all; those of one chunk share the time since the last one."""
        if self._replica is None:
            return
        now = self._clock()
        if self._last_s is not None:
            tokens = max(1, round((events - self._events) / self._sequences))
            self._dispatcher.note_gap(self._replica, now - self._last_s, tokens)
        self._last_s, self._events = now, events
