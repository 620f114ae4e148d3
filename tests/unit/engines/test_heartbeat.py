"""Does a hanging engine show?"""

from __future__ import annotations

import asyncio

import pytest

from engines.heartbeat import Heartbeat
from tests.fakes import FakeClock, eventually


async def test_an_engine_that_does_not_answer_is_silent_after_a_while_and_no_longer_once_it_does() -> None:
    clock, answer, asked = FakeClock(), asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        asked.set()
        await answer.wait()

    heartbeat = Heartbeat(ask, silent_after_s=5.0, clock=clock)
    assert not heartbeat.is_silent(), "nothing was asked yet"
    beating = asyncio.create_task(heartbeat.run())
    await asked.wait()
    clock.now += 5.0
    assert not heartbeat.is_silent()
    clock.now += 0.1
    assert heartbeat.is_silent()
    answer.set()
    await eventually(lambda: not heartbeat.is_silent(), "the end of the silence")
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


async def test_a_dead_engine_is_not_silent_but_dead() -> None:
    async def ask() -> None:
        raise ConnectionResetError("EngineCore died")

    heartbeat = Heartbeat(ask, silent_after_s=0.0)
    with pytest.raises(ConnectionResetError):
        await heartbeat.run()
    assert not heartbeat.is_silent()
