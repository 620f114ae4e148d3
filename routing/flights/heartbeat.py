"""Keeps a client's connection alive while its stream has nothing to say, so that nobody between cuts it.

Load balancers close connections on which nothing moves for a minute. A comment is no event, so clients skip
it, and it is no answer: as long as nothing else was sent, another replica may be asked. But the head goes
with it, so that the status can no longer say what went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from routing.asgi import ClientGone, Exchange, HeaderList

COMMENT = b": keep-alive\n\n"


class Heartbeat:
    """Sends comments between the events of one stream, whose parts go through it too, one after the other."""

    def __init__(
        self, exchange: Exchange, every_s: float, head: HeaderList, clock: Callable[[], float]
    ) -> None:
        """A comment goes out when nothing was sent for so many seconds, with `head` where it is the first.

        It begins at once, in the running event loop; `stop` must follow.
        """
        self.has_begun = False  # the head was sent
        self._exchange = exchange
        self._every_s = every_s
        self._head = head
        self._clock = clock
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
                    await self._exchange.send_body(COMMENT, more=True)
            except (OSError, ClientGone):  # whoever watches the connection ends the request
                return
            self._sent_s = self._clock()
