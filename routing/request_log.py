"""When is the log line of a request written? Within a quarter of a second, several at once.

A call of the logging machinery and a write to standard error for every request would cost more than all
metrics together. A line is rendered when its request ends; lines are handed over when `LINES` have come, at
every sweep of the gateway, and when it stops. A process that is killed loses those of the last sweep.
"""

from __future__ import annotations

import logging

from routing.record import Record

LINES = 64
log = logging.getLogger("tenantry.request")


class RequestLog:
    """Lines of requests that have ended, on their way to the logger `tenantry.request`."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._lines: list[str] = []

    def note(self, record: Record) -> None:
        """Take the line of a settled request."""
        if not self._enabled:
            return
        self._lines.append(str(record))
        if len(self._lines) >= LINES:
            self.flush()

    def flush(self) -> None:
        """Hand over what has come, as one message of as many lines."""
        if self._lines:
            lines, self._lines = self._lines, []
            log.info("%s", "\n".join(lines))
