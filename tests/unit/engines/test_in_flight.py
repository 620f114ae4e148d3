"""Weights are exchanged under no request: those that run are waited for, and none begins meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from engines.in_flight import InFlight
from tests.fakes import eventually


async def test_it_is_closed_at_once_where_nothing_runs() -> None:
    requests = InFlight()
    await requests.close(1.0)
    assert requests.is_closed


async def test_it_waits_for_the_last_of_those_that_run() -> None:
    requests = InFlight()
    with requests:
        with requests:
            closing = asyncio.create_task(requests.close(5.0))
            await eventually(lambda: requests.is_closed)
        await asyncio.sleep(0)
        assert not closing.done()
    await closing


async def test_it_is_open_again_where_one_does_not_end_in_time_or_nobody_waits_any_more() -> None:
    requests = InFlight()
    with requests:
        with pytest.raises(TimeoutError):
            await requests.close(0.01)
        assert not requests.is_closed
        closing = asyncio.create_task(requests.close(5.0))
        await eventually(lambda: requests.is_closed)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert not requests.is_closed
