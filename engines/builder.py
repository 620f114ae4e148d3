"""Starts an engine in a thread for that, which takes minutes, and can cancel that within a moment.

The thread itself cannot be cancelled: it imports, then waits for processes that it has started. So
these are killed, and the thread gets an exception at its next step in Python, so that it starts no more.
Engines of one process are started one after the other: each finds its own environment, and its own metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from engines.forking.server import ForkServer
from fleet.types import BaseModel

GIVE_UP_WITHIN_S = 3.0  # a library that is being mapped into memory blocks the thread until it is done
_LOOK_INTERVAL_S = 0.1
T = TypeVar("T")


class GivenUp(BaseException):
    """Raised inside the thread. No `Exception`, which vLLM's imports would take for a missing library."""


def builder_thread() -> ThreadPoolExecutor:
    """Make the one thread in which the engines of a process are started.

    Engine processes are children of the thread that starts them; it must live as long as they do.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-builder")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the engines of several base models in one process share."""

    thread: ThreadPoolExecutor  # in which all of them are started
    models: Sequence[BaseModel]  # all of them
    forks: ForkServer | None = None  # None: every engine is started from nothing
    sleeps: bool = False  # engines are started so that they can sleep


class Builder(Generic[T]):
    """Builds the engines of one replica, one after the other."""

    def __init__(
        self,
        build: Callable[..., T],
        undo: Callable[[T], None],
        *,
        end: Callable[[], object],
        thread: ThreadPoolExecutor,
    ) -> None:
        """`undo` ends an engine that was finished just as its build was cancelled; `end` its processes."""
        self._build = build
        self._undo = undo
        self._end = end
        self._thread = thread
        self._building_in: int | None = None
        self._lock = threading.Lock()

    async def build(self, *told: object) -> T:
        """Build one as told, once the thread is free. Cancelling this removes it altogether."""
        building = self._thread.submit(self._run, *told)
        built = asyncio.wrap_future(building)
        try:
            return await asyncio.shield(built)
        except asyncio.CancelledError:
            if not building.cancel():  # it has begun
                built.add_done_callback(lambda done: done.exception())  # nothing else reads it
                await asyncio.to_thread(self._give_up, building)
            raise

    def _run(self, *told: object) -> T:
        with self._lock:
            self._building_in = threading.get_ident()
        try:
            return self._build(*told)
        finally:
            with self._lock:
                self._building_in = None

    def _give_up(self, building: Future[T]) -> None:
        deadline = time.monotonic() + GIVE_UP_WITHIN_S
        while not building.done() and time.monotonic() < deadline:
            self._interrupt()
            self._end()
            with contextlib.suppress(BaseException):
                building.result(_LOOK_INTERVAL_S)
        if building.done() and building.exception() is None:
            self._undo(building.result())
        self._end()

    def _interrupt(self) -> None:
        with self._lock:
            if self._building_in is not None:
                raised = ctypes.py_object(GivenUp)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._building_in), raised)
