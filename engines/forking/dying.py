"""Has the kernel end a process with its parent, however that ends. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG


def die_with_parent() -> None:
    """Have this process killed as soon as the thread that started it ends. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
