"""Writes a value over in the environment that the kernel shows of this process (/proc/PID/environ).

That is the block of memory which a process was started with: what Python sets later is kept elsewhere, and
a forked child shows its parent's block. So a variable whose value others are to read is started with room
after it, and written over in place.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

ROOM = 8192  # of a replica's name and a path: Linux allows 4096 bytes for one
_FILL = " "


def with_room(value: str) -> str:
    """Return a value with the room after it."""
    return value + _FILL * (ROOM - len(os.fsencode(value)))


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a variable with room lies in this process's memory, and in that of those forked from it."""

    address: int

    @classmethod
    def find(cls, name: str) -> Slot:
        """Find it, before anything in this process has set the variable. Raises `ValueError`."""
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        address = libc.getenv(name.encode())
        if address is None or len(ctypes.string_at(address)) != ROOM:
            raise ValueError(f"{name} was not started with room of {ROOM} bytes")
        return cls(address)

    def write(self, value: str) -> None:
        """Write a value over. Raises `ValueError`."""
        if len(os.fsencode(value)) > ROOM:
            raise ValueError(f"more than {ROOM} bytes: {value[:80]}...")
        ctypes.memmove(self.address, os.fsencode(value).ljust(ROOM, b"\0"), ROOM)
