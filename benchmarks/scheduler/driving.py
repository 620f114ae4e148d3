"""When is each request sent? Open loops follow a list, closed loops send when one has ended."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival, Prompts
from benchmarks.scheduler.doors import Door

LEAD_S = 0.2  # between the call and the first due time
PAUSE_AFTER_ERROR_S = 0.2  # a closed loop must not spin on refusals


@dataclass(slots=True)
class Drive:
    """All that was sent, and when the list began and ended."""

    started_s: float
    ended_s: float = 0.0  # when the last was awaited, or the rest cut off
    answers: list[Answer] = field(default_factory=list)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Look for cycles before, and not again until it is left.

    Thousands of answers are kept until the end. Walking them takes tenths of a second, in which nothing is
    sent, and what comes counts as late.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def open_loop(
    door: Door, arrivals: Sequence[Arrival], prompts: Prompts, tokens: int, *, drain_s: float
) -> Drive:
    """Send each request when due, await all but the flood's for at most `drain_s`, and cut off the rest.

    The flood's requests stay until then: the others must not gain by its end.
    """
    texts = [prompts.next() for _ in arrivals]
    drive = Drive(time.monotonic() + LEAD_S)
    awaited: set[asyncio.Task[None]] = set()
    flood: set[asyncio.Task[None]] = set()
    for arrival, text in zip(arrivals, texts, strict=True):
        due_s = drive.started_s + arrival.at_s
        delay_s = due_s - time.monotonic()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        answer = Answer(arrival, due_s)
        drive.answers.append(answer)
        task = asyncio.create_task(door.ask(answer, text, tokens))
        (flood if arrival.flood else awaited).add(task)
    if awaited:
        await asyncio.wait(awaited, timeout=drain_s)
    drive.ended_s = time.monotonic()
    await _cut(awaited | flood)
    return drive


async def closed_loop(
    door: Door, clients: Sequence[Iterator[Arrival]], prompts: Prompts, tokens: int, *, seconds: float
) -> Drive:
    """Each client sends its next request when its last one has ended; all are cut off in the end."""
    drive = Drive(time.monotonic())

    async def run(requests: Iterator[Arrival]) -> None:
        for arrival in requests:
            answer = Answer(arrival, time.monotonic())
            drive.answers.append(answer)
            await door.ask(answer, prompts.next(), tokens)
            if answer.error:
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)

    tasks = {asyncio.create_task(run(requests)) for requests in clients}
    await asyncio.sleep(seconds)
    drive.ended_s = time.monotonic()
    await _cut(tasks)
    return drive


async def _cut(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what still runs. Raises what a task raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
