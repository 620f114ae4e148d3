"""The same work is timed again and again, on every core."""

from __future__ import annotations

import os
import threading
import time

import pytest

from benchmarks.scheduler import pace
from benchmarks.scheduler.pace import Pace, Reading, measured_pace


def test_what_counts_is_read_within_the_window() -> None:
    found = Pace()
    found.readings = [Reading(0.9, 5.0), Reading(1.0, 1.0), Reading(1.5, 2.0), Reading(2.0, 5.0)]
    assert found.work_s(1.0, 2.0) == pytest.approx(1.5)
    assert found.work_s(3.0, 4.0) is None


def test_every_core_is_read_in_turn_and_other_threads_stay_where_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "EVERY_S", 0.0)
    before, seen = os.sched_getaffinity(0), set[int]()
    enough = threading.Event()

    def work() -> int:
        seen.update(os.sched_getaffinity(0))
        if seen == before:
            enough.set()
        return 0

    monkeypatch.setattr(pace, "_work", work)
    start_s = time.monotonic()
    with measured_pace() as found:
        assert enough.wait(10.0)
    assert os.sched_getaffinity(0) == before
    assert found.work_s(start_s, time.monotonic()) is not None
    assert not any(thread.name == "pace" for thread in threading.enumerate())


def test_the_work_takes_some_time() -> None:
    with measured_pace() as found:
        pass
    (reading,) = found.readings
    assert reading.cpu_s > 0
