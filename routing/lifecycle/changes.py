"""Who may change what at the same moment, and for how long is anybody kept waiting?

Changes of one thing come one after another, changes of different things do not wait for each other. Who does
not get its turn in time is told so, and nothing was changed. A change that was begun goes on to its end
whoever stops waiting for it, so that it is either done and seen, or not done.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from routing.errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")
TURN_S = 5.0
DEADLINE_S = 20.0  # longer than waiting for a turn, for the database's thread, and for its lock
RETRY_AFTER_S = 5.0


class Changes:
    """The changes that are under way."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def of(self, what: Hashable) -> AsyncIterator[None]:
        """Be the only one that changes something. Raises `Unavailable` where others take too long."""
        lock = self._locks.setdefault(what, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_S):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable(
                f"Another change of this has not ended within {TURN_S:g} s; nothing was changed. Try again.",
                code="change_running",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        try:
            yield
        finally:
            lock.release()

    async def seen_through(self, change: Coroutine[Any, Any, T]) -> T:
        """Have a change made to its end; returns what it returns. Raises `Unavailable` if that takes long."""
        task = asyncio.create_task(change)
        self._running.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=DEADLINE_S)
        if task.done():
            return task.result()
        raise Unavailable(
            f"The change has not ended within {DEADLINE_S:g} s, and goes on. Look whether it was made before "
            "you ask for it again.",
            code="change_unfinished",
            retry_after_s=RETRY_AFTER_S,
        )

    async def stop(self) -> None:
        """Stop what is under way; what a database was told is done there."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # who asked for it may be gone


class HasChanges(Protocol):
    """Whose methods are changes."""

    changes: Changes


S = TypeVar("S", bound=HasChanges)


def change(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Have calls of a method seen through: bounded for who waits, whole whoever leaves."""

    @functools.wraps(method)
    async def bounded(self: S, /, *args: P.args, **options: P.kwargs) -> T:
        return await self.changes.seen_through(method(self, *args, **options))

    return bounded
