"""Which processes are left? Where nobody collects orphans, what has ended stays as a zombie."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

LOOK_INTERVAL_S = 0.05


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left_of(processes: Iterable[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    """Wait until all have ended; returns those that have not in time."""
    deadline_s = time.monotonic() + within_s
    left = [process for process in processes if runs(process)]
    while left and time.monotonic() < deadline_s:
        time.sleep(LOOK_INTERVAL_S)
        left = [process for process in left if runs(process)]
    return left
