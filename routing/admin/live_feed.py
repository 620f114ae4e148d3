"""The live feed: one snapshot a second for all viewers, and none while there are no viewers.

A viewer gets the newest events when its connection takes them: one that is slower than the ticks misses
some, one that takes nothing for `SEND_TIMEOUT_S` is dropped. Each ends after `MAX_WATCH_S`, so that a revoked
key sees no more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from routing.admin.live_answers import LiveAnswer, decisions_of, history_of, snapshot_of
from routing.errors import Unavailable
from routing.observing.live import LiveView, Snapshot
from routing.observing.live.figures import BUCKET_S
from routing.scheduling.decisions import Decision

TICK_S = 1.0
MAX_VIEWERS = 16
SEND_TIMEOUT_S = 10.0
MAX_WATCH_S = 300.0
RETRY_AFTER_S = 5.0
END = b"event: end\ndata: {}\n\n"  # a clean end: come again at once


@dataclass(slots=True, eq=False)
class Viewer:
    """One open stream: the events that its connection has not taken yet, and whether it is over."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    events: bytes = b""  # the newest, not taken yet
    closed: bool = False

    def put(self, events: bytes) -> None:
        """Replace the events that were not taken yet."""
        self.events = events
        self.ready.set()

    def close(self) -> None:
        """Let it end."""
        self.closed = True
        self.ready.set()

    async def take(self) -> bytes:
        """Wait for events; none at the end."""
        await self.ready.wait()
        events, self.events = self.events, b""
        if not self.closed:
            self.ready.clear()
        return events


class LiveFeed:
    """The live snapshot of one gateway, as one answer or as a stream of events."""

    def __init__(
        self,
        view: LiveView,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
        tick_s: float = TICK_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
        max_watch_s: float = MAX_WATCH_S,
    ) -> None:
        self._view = view
        self._clock = clock
        self._unix_time = unix_time
        self._tick_s = tick_s
        self.send_timeout_s = send_timeout_s
        self.max_watch_s = max_watch_s
        self._viewers: set[Viewer] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._closed = False
        self._seen: Decision | None = None
        self._bucket = 0

    @property
    def viewers(self) -> int:
        """Number of open streams."""
        return len(self._viewers)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is computed."""
        return self._ticking is None

    def answer(self) -> LiveAnswer:
        """Take one whole snapshot."""
        snapshot = self._view.snapshot()
        now_s, at_s = self._clock(), self._unix_time()
        return LiveAnswer(
            **dict(snapshot_of(snapshot, at_s)),
            history=history_of(self._view.history(snapshot.models), now_s, at_s),
            decisions=decisions_of(snapshot),
        )

    def join(self) -> Viewer:
        """Add a viewer, with a whole snapshot to begin with. Raises `Unavailable`."""
        if self._closed:
            raise Unavailable(
                "The service is shutting down.", code="shutting_down", retry_after_s=RETRY_AFTER_S
            )
        if len(self._viewers) >= MAX_VIEWERS:
            raise Unavailable(
                f"{MAX_VIEWERS} viewers are connected already.",
                code="too_many_viewers",
                retry_after_s=RETRY_AFTER_S,
            )
        viewer = Viewer()
        viewer.put(self._first())
        self._viewers.add(viewer)
        if self._ticking is None:
            self._seen, self._bucket = self._view.newest_decision(), self._number()
            self._ticking = asyncio.create_task(self._tick())
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer; without viewers nothing is computed."""
        self._viewers.discard(viewer)
        if not self._viewers and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def close(self) -> None:
        """End every stream and take no more viewers; returns at once."""
        self._closed = True
        for viewer in self._viewers:
            viewer.close()

    def _first(self) -> bytes:
        snapshot = self._view.snapshot()
        return b"retry: 1000\n\n" + self._events(snapshot, with_history=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            snapshot = self._view.snapshot(since=self._seen)
            self._seen = self._view.newest_decision() or self._seen
            number = self._number()
            events = self._events(snapshot, with_history=number != self._bucket)
            self._bucket = number
            for viewer in self._viewers:
                viewer.put(events)

    def _number(self) -> int:
        return int(self._clock() // BUCKET_S)

    def _events(self, snapshot: Snapshot, *, with_history: bool) -> bytes:
        at_s = self._unix_time()
        events = _event("snapshot", snapshot_of(snapshot, at_s))
        if with_history:
            history = self._view.history(snapshot.models)
            events += _event("history", history_of(history, self._clock(), at_s))
        if snapshot.decisions:
            events += _event("decisions", decisions_of(snapshot))
        return events


class EventStream(Response):
    """Sends a viewer's events until they end, the client leaves or takes nothing for too long."""

    media_type = "text/event-stream"

    def __init__(self, feed: LiveFeed) -> None:
        """Raise `Unavailable` where there are too many viewers."""
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._viewer = feed.join()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; ends the viewer whatever happens."""
        gone = asyncio.ensure_future(_disconnected(receive, self._viewer))
        bound = asyncio.timeout(self._feed.max_watch_s)
        try:
            async with bound:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while (events := await self._viewer.take()) or not self._viewer.closed:
                    async with asyncio.timeout(self._feed.send_timeout_s):
                        await send({"type": "http.response.body", "body": events, "more_body": True})
        except TimeoutError:
            if not bound.expired():
                return  # it takes nothing; the server closes a connection whose answer was left unfinished
        except OSError:
            return  # it has left
        finally:
            gone.cancel()
            self._feed.leave(self._viewer)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._feed.send_timeout_s):
                await send({"type": "http.response.body", "body": END, "more_body": False})


async def _disconnected(receive: Receive, viewer: Viewer) -> None:
    with contextlib.suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
    viewer.close()


def _event(name: str, data: BaseModel) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data.model_dump_json().encode())
