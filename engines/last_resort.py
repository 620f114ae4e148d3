"""Ends a process by force where its ordered end takes too long, whatever it waits for or is busy with."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import types

import psutil

LEEWAY_S = 6.0  # beyond the grace period: what runs is ended then, engines' processes go, connections close
log = logging.getLogger("tenantry.engine")


def bound_the_end(grace_s: float) -> None:
    """After SIGTERM or SIGINT, end this process and its children by force once the grace period is well over.

    Call it in the main thread, after the other handlers of these signals are there.
    """
    told, tell = os.pipe()  # a handler of signals may write to it, but take no lock
    thread = threading.Thread(target=_end, args=(told, grace_s + LEEWAY_S), name="last resort", daemon=True)
    thread.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        _tell_on(number, tell)


def _tell_on(number: signal.Signals, tell: int) -> None:
    previous = signal.getsignal(number)

    def on_signal(signum: int, frame: types.FrameType | None) -> None:
        os.write(tell, b".")
        if callable(previous):
            previous(signum, frame)

    signal.signal(number, on_signal)


def _end(told: int, within_s: float) -> None:
    os.read(told, 1)
    time.sleep(within_s)
    log.error("the end took more than %g s: what is left is ended by force", within_s)
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(1)
