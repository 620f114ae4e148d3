"""A full disk becomes one error, whether a version is fetched, unpacked or stored."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.errors import StoreFull

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing() -> Iterator[None]:
    """Turn a full disk into `StoreFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreFull(
            "the disk of the store is full; free some space, or retire adapters or models"
        ) from error
