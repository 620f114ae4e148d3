"""Keeps signed URLs out of the log: client libraries log the addresses they ask, queries and all."""

from __future__ import annotations

import logging
import re

_QUERY = re.compile(r"\?\S*")
_LOGGERS = ("httpx", "httpx2")  # httpx2 is huggingface_hub's


def hide_queries() -> None:
    """Leave queries out of the client libraries' log lines; call it before their first use."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _without_query not in logger.filters:
            logger.addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    record.msg, record.args = _QUERY.sub("?...", record.getMessage()), ()
    return True
