"""An id that nobody else has: 128 random bits. The system is asked for the bits of many ids at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

ID_DIGITS = 32
IDS_AT_ONCE = 256


def _ids() -> Iterator[str]:
    while True:
        digits = os.urandom(IDS_AT_ONCE * ID_DIGITS // 2).hex()
        for start in range(0, len(digits), ID_DIGITS):
            yield digits[start : start + ID_DIGITS]


_source = _ids()


def random_id() -> str:
    """Return 32 hexadecimal digits, as many as a UUID has."""
    return next(_source)
