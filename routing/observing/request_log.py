"""Writes the log lines of requests, several as one message.

A call of the logging machinery and a write to standard error for every request would cost more than all
metrics together.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from engines.logs import printable
from routing.record import Record

log = logging.getLogger("tenantry.request")


class _Lines:
    """The lines of some requests, in the format of the handler."""

    __slots__ = ("_records",)

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __str__(self) -> str:
        return "\n".join(map(str, self._records))

    def for_people(self, at: str) -> str:
        return "\n".join([at + printable(record.short()) for record in self._records])


def write_lines(records: Sequence[Record]) -> None:
    """Write a line for each to the logger `tenantry.request`: JSON, or a short one for people."""
    lines = _Lines(records)
    log.info("%s", lines, extra={"for_people": lines.for_people})
