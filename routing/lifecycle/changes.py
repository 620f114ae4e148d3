"""Serialises changes of one thing, and bounds how long callers wait for them.

Changes of one thing come one after another, changes of different things do not wait for each other. A caller
without a turn in time gets an error, and nothing was changed. A change that was begun runs to its end
even if its caller leaves, so that it is either done and visible, or not done.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from routing.errors import Unavailable

# Who asked for what this task does, and the tasks that it began: a key's id, or the gateway itself.
ACTOR: ContextVar[str] = ContextVar("ACTOR", default="tenantry")
T = TypeVar("T")
P = ParamSpec("P")
TURN_S = 5.0
DEADLINE_S = 20.0  # longer than waiting for a turn, for the database's thread, and for its lock
RETRY_AFTER_S = 5.0


class Changes:
    """The running changes."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def of(self, what: Hashable) -> AsyncIterator[None]:
        """Hold the only turn for a thing. Raises `Unavailable` if others take too long."""
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
        """Run a change to its end; return its result. Raises `Unavailable` if that takes too long."""
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
        """Cancel the running changes; the database completes the calls that it has received."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone


class HasChanges(Protocol):
    """An object whose methods are changes."""

    changes: Changes


S = TypeVar("S", bound=HasChanges)


def change(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Run a method's calls to their end: a caller's wait is bounded, the change whole even if it leaves."""

    @functools.wraps(method)
    async def bounded(self: S, /, *args: P.args, **options: P.kwargs) -> T:
        return await self.changes.seen_through(method(self, *args, **options))

    return bounded
