"""Checks an adapter's files and reads them into memory before the engine reads them.

The engine reads between two decoding steps: a missing file stops it, and a slow disk
stops all decoding. So the files are checked first, and read once in a thread, into the page cache.
"""

from __future__ import annotations

import stat
from pathlib import Path

from adapters.errors import AdapterError
from adapters.layout import SERVED_FILES

_CHUNK_BYTES = 4 * 2**20


def check_files(name: str, folder: Path) -> None:
    """Raise `AdapterError` unless each served file is a plain, non-empty file. The message holds no path."""
    for file in SERVED_FILES:
        try:
            status = (folder / file).lstat()
        except OSError as error:
            raise AdapterError(
                f"adapter {name!r} has no readable {file} in the store ({error.strerror}); register it again"
            ) from error
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise AdapterError(f"{file} of adapter {name!r} is empty or not a plain file; register it again")


def warm(name: str, folder: Path) -> None:
    """Read the files once. Blocks; for a thread. Raises `AdapterError`."""
    check_files(name, folder)
    buffer = bytearray(_CHUNK_BYTES)
    try:
        for file in SERVED_FILES:
            with (folder / file).open("rb", buffering=0) as opened:
                while opened.readinto(buffer):
                    pass
    except OSError as error:
        raise AdapterError(
            f"adapter {name!r} cannot be read from the store ({error.strerror}); register it again"
        ) from error
