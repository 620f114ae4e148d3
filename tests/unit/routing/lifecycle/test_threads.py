"""Calls that block, and callers that leave."""

from __future__ import annotations

import asyncio
import threading

import pytest

from routing.lifecycle.threads import in_thread


async def test_a_call_gives_its_result_or_its_error() -> None:
    assert await in_thread(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_waits_for_the_end_of_the_call(fails: bool) -> None:
    begun, go, loop, ended = asyncio.Event(), threading.Event(), asyncio.get_running_loop(), list[bool]()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(10)
        ended.append(True)
        if fails:
            raise OSError("the disk is gone")

    task = asyncio.create_task(in_thread(work))
    await begun.wait()
    task.cancel()
    loop.call_later(0.01, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
