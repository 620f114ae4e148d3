"""How fast are this machine's cores just now? Others on the same host slow them, and no counter here says so.

Two cores that share their caches or their threads with somebody else's do the same work in one and a half
times as long while that one computes, with no stolen time on record. So a small piece of work is done again
and again, on each core in turn, and its own CPU time is taken: waiting for a core does not count. What was
done in a phase is compared with another's at equal pace.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

from benchmarks.stats import mean_of

STEPS = 10_000  # of the work: some 0.4 ms, less than what makes Python change threads
EVERY_S = 0.04  # one in a hundred of a core at most; over 20 s the mean is known to one in a hundred


@dataclass(frozen=True, slots=True)
class Reading:
    """How long the work took once."""

    at_s: float  # of `time.monotonic`
    cpu_s: float


class Pace:
    """The readings of some time."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def work_s(self, start_s: float, end_s: float) -> float | None:
        """Mean CPU time of the work within a window; None without a reading."""
        return mean_of(reading.cpu_s for reading in self.readings if start_s <= reading.at_s < end_s)


@contextmanager
def measured_pace() -> Iterator[Pace]:
    """Read it from a thread of its own until it is left."""
    pace, over = Pace(), threading.Event()
    thread = threading.Thread(target=_read, args=(pace, over), name="pace", daemon=True)
    thread.start()
    try:
        yield pace
    finally:
        over.set()
        thread.join()


def _read(pace: Pace, over: threading.Event) -> None:
    for core in cycle(sorted(os.sched_getaffinity(0))):
        os.sched_setaffinity(0, {core})  # of this thread
        before_s = time.thread_time()
        _work()
        pace.readings.append(Reading(time.monotonic(), time.thread_time() - before_s))
        if over.wait(EVERY_S):
            return


def _work() -> int:
    total = 0
    for number in range(STEPS):
        total += number & 7
    return total
