"""What does a step of an engine cost? Short closed loops at one engine, for the simulator's fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

from benchmarks.scheduler.arrivals import Arrival, Prompts
from benchmarks.scheduler.doors import Door
from benchmarks.scheduler.driving import closed_loop
from benchmarks.scheduler.engines import EngineEyes
from benchmarks.scheduler.fleet import Shape
from benchmarks.scheduler.phases import IDLE_WITHIN_S

BATCHES = (1, 2, 4, 8, 16, 32, 64)
TOKENS = 96  # long answers, so that few prompts fall into the measured steps
SETTLE_S = 1.0  # at the beginning of each loop
SECONDS = 5.0  # after it; some answers must begin and end within


@dataclass(frozen=True, slots=True)
class Step:
    """One point."""

    batch: int  # sequences decoding at once
    adapters: int  # that they use
    slots: int
    itl_ms: float  # mean time between two tokens of one stream


def points(shape: Shape) -> Iterator[tuple[int, int]]:
    """(batch, adapters) that one engine can run at once."""
    for batch in BATCHES:
        for adapters in sorted({1, 2, shape.slots}):
            if adapters <= min(batch, shape.slots) and batch <= shape.max_sequences:
                yield batch, adapters


async def measure_steps(door: Door, shape: Shape, eyes: EngineEyes) -> list[Step]:
    """Measure every point; `door` leads to one engine. Raises ToolError."""
    steps = []
    for batch, adapters in points(shape):
        await eyes.wait_until_idle(IDLE_WITHIN_S)
        clients = [
            itertools.repeat(Arrival(0.0, shape.owner(number % adapters), number % adapters))
            for number in range(batch)
        ]
        prompts = Prompts(f"fit/{batch}/{adapters}")
        drive = await closed_loop(door, clients, prompts, TOKENS, seconds=SETTLE_S + SECONDS)
        settled_s = drive.started_s + SETTLE_S
        itl_s = [t for a in drive.answers if a.sent_s >= settled_s and (t := a.tpot_s(TOKENS)) is not None]
        if itl_s:
            steps.append(Step(batch, adapters, shape.slots, 1000 * mean(itl_s)))
    return steps
