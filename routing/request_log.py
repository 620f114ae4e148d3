"""How are the log lines of requests written? Several as one message.

A call of the logging machinery and a write to standard error for every request would cost more than all
metrics together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from routing.record import Record

log = logging.getLogger("tenantry.request")


def write_lines(records: Iterable[Record]) -> None:
    """Write a line of JSON for each, to the logger `tenantry.request`."""
    log.info("%s", "\n".join(map(str, records)))
