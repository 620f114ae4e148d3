"""Is an engine that is being started gone at once when nobody wants it any more?"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from engines import builder as builder_module
from engines import orphans
from engines.builder import Builder, builder_thread

MOMENT_S = 5.0  # a loaded machine; what would not be given up takes for ever


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started here is an engine's."""
    for name, value in orphans.mark("shared-0").items():
        monkeypatch.setenv(name, value)


def made(
    build: Callable[[], str], undo: Callable[[str], None], thread: ThreadPoolExecutor | None = None
) -> Builder[str]:
    return Builder(build, undo, end=lambda: orphans.end_own("shared-0"), thread=thread or builder_thread())


async def give_up_on(build: Callable[[], str], begun: threading.Event) -> list[str]:
    """Cancel a build that has begun; returns what was taken down because it was finished after all."""
    undone: list[str] = []
    builder = made(build, undone.append)
    building = asyncio.create_task(builder.build())
    await asyncio.to_thread(begun.wait)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(building, MOMENT_S)
    builder._thread.shutdown(wait=False)
    return undone


async def test_what_is_built_is_returned_and_so_is_its_error() -> None:
    assert await made(lambda: "engine", print).build() == "engine"

    def fail() -> str:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        await made(fail, print).build()


async def test_a_thread_that_computes_stops_at_its_next_step() -> None:
    begun, ended = threading.Event(), threading.Event()

    def import_for_ever() -> str:
        begun.set()
        try:
            while True:
                try:
                    time.sleep(0.01)
                except Exception:  # noqa: BLE001 - as vLLM's imports take any failure for a missing library
                    continue
        finally:
            ended.set()

    assert await give_up_on(import_for_ever, begun) == []
    assert ended.is_set()


async def test_processes_that_the_thread_waits_for_are_killed_and_none_is_started_after_that() -> None:
    begun = threading.Event()
    statuses: list[int] = []

    def start_engines() -> str:
        while True:
            pid = os.posix_spawn(
                sys.executable, [sys.executable, "-c", "import time; time.sleep(99)"], os.environ
            )
            begun.set()
            statuses.append(os.waitpid(pid, 0)[1])

    await give_up_on(start_engines, begun)
    assert all(os.WTERMSIG(status) == signal.SIGKILL for status in statuses)
    assert orphans.end_own("shared-0") == []


async def test_an_engine_that_came_up_in_that_moment_is_taken_down() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def come_up() -> str:
        begun.set()
        try:
            go_on.wait()
        except BaseException:  # noqa: BLE001 - whatever it is
            return "engine"
        raise AssertionError

    threading.Timer(0.5, go_on.set).start()
    assert await give_up_on(come_up, begun) == ["engine"]


async def test_a_thread_that_cannot_be_stopped_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "GIVE_UP_WITHIN_S", 0.2)
    begun, go_on = threading.Event(), threading.Event()

    def map_into_memory() -> str:
        begun.set()
        while not go_on.is_set():
            try:
                time.sleep(0.001)
            except BaseException:  # noqa: BLE001 - whatever it is
                continue
        return "late"

    try:
        assert await give_up_on(map_into_memory, begun) == []
    finally:
        go_on.set()


def test_the_marks_are_of_this_process() -> None:
    assert os.environ[orphans.WORKER_MARK].startswith(f"{os.getpid()}:")


async def test_engines_of_one_process_are_built_one_after_the_other() -> None:
    thread, go_on, order = builder_thread(), threading.Event(), list[str]()

    def first() -> str:
        go_on.wait()
        order.append("first")
        return "first"

    def second() -> str:
        order.append("second")
        return "second"

    both = [asyncio.create_task(made(build, print, thread).build()) for build in (first, second)]
    await asyncio.sleep(0.05)
    go_on.set()
    assert await asyncio.gather(*both) == order == ["first", "second"]
    thread.shutdown()


async def test_one_that_waits_for_the_thread_is_given_up_without_a_word_to_the_one_that_has_it() -> None:
    thread, begun, go_on = builder_thread(), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        go_on.wait()
        return "first"

    building = asyncio.create_task(made(first, print, thread).build())
    waiting = asyncio.create_task(made(lambda: "second", print, thread).build())
    await asyncio.to_thread(begun.wait)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await building == "first"
    thread.shutdown()
