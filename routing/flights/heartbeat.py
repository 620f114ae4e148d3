"""Keeps a client's connection alive while its stream has nothing to say, so that nobody between cuts it.

Load balancers close connections on which nothing moves for a minute. A comment is no event, so clients skip
it, and it is no answer: as long as nothing else was sent, another replica may be asked. But the head goes
with it, so that the status can no longer say what went wrong. While its model has to come first, the comment
says so, for whoever reads the stream by eye or shows it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from routing.asgi import ClientGone, Exchange, HeaderList
from routing.scheduling.filters import WaitReason
from routing.scheduling.forecast import TurnForecast
from routing.scheduling.tickets import Ticket

COMMENT = b": keep-alive\n\n"


def comment_of(ticket: Ticket, turns: TurnForecast | None) -> bytes:
    """Say what a request waits for: a turn of its model, and about how long yet; else nothing but a comment.

    `turns` forecasts its model's turn; None: that takes none. The name is the client's, as JSON writes it.
    """
    if turns is None or ticket.is_decided or ticket.waits_for is not WaitReason.ASLEEP:
        return COMMENT
    until_s = turns.until_awake_s()
    about = "" if until_s is None else f", about {max(1, round(until_s))} s"
    name = json.dumps(ticket.request.target.answers_as)[1:-1]
    return f": waiting for model {name}{about}\n\n".encode()


class Heartbeat:
    """Sends comments between the events of one stream, whose parts go through it too, one after the other."""

    def __init__(
        self,
        exchange: Exchange,
        every_s: float,
        head: HeaderList,
        clock: Callable[[], float],
        comment: Callable[[], bytes],
    ) -> None:
        """A comment goes out when nothing was sent for so many seconds, with `head` where it is the first.

        It begins at once, in the running event loop; `stop` must follow.
        """
        self.has_begun = False  # the head was sent
        self._exchange = exchange
        self._every_s = every_s
        self._head = head
        self._clock = clock
        self._comment = comment
        self._sent_s = clock()
        self._turn = asyncio.Lock()
        self._task = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """Send nothing any more."""
        self._task.cancel()

    async def fall_silent(self) -> None:
        """Stop, once what is being sent is sent."""
        async with self._turn:
            self.stop()

    async def begin(self, status: int, headers: HeaderList) -> None:
        """Send the head of the answer, unless one was sent. Raises `OSError`."""
        async with self._turn:
            await self._begin(status, headers)

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Send a part of the answer. Raises `OSError`."""
        async with self._turn:
            if not more:
                self.stop()
            await self._exchange.send_body(data, more=more)
            self._sent_s = self._clock()

    @property
    def takes_more(self) -> bool:
        """Whether `send_at_once` may be called."""
        return not self._turn.locked() and self._exchange.takes_more

    def send_at_once(self, data: bytes, *, more: bool) -> None:
        """Send a part of the answer in this very step, where `takes_more`."""
        if not more:
            self.stop()
        self._exchange.send_at_once(data, more=more)
        self._sent_s = self._clock()

    async def _begin(self, status: int, headers: HeaderList) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._exchange.begin(status, headers)

    async def _beat(self) -> None:
        while True:
            rest_s = self._sent_s + self._every_s - self._clock()
            if rest_s > 0:
                await asyncio.sleep(rest_s)
                continue
            try:
                async with self._turn:
                    await self._begin(200, self._head)
                    await self._exchange.send_body(self._comment(), more=True)
            except (OSError, ClientGone):  # whoever watches the connection ends the request
                return
            self._sent_s = self._clock()
