"""What does the ledger keep of one request? A row with an id of its own. Pure.

An id begins with the time, so that rows lie in the database in their order and old ones are a range; then
comes the gateway's start, then a number. Whatever is written twice has the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from routing.types import Record

DAY_S = 86_400
Row = tuple[str | float | bool | None, ...]  # in the order of COLUMNS

COLUMNS = (
    "id",
    "at_s",  # Unix time of the end
    "day",  # of the end, UTC, as 2026-01-31
    "request_id",  # x-request-id; a client may send the same one twice
    "tenant",  # its account: the name, and the generation where tenants of that name were removed before
    "model",
    "adapter",  # empty: the base model
    "version",  # 0: the base model
    "pool",
    "replica",  # empty: none was asked
    "outcome",
    "reason",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "estimated",
    "queue_s",
    "run_s",
    "slot_s",
    "engine_s",
    "cost",  # in units of a cost; None: its model had no price
    "fallback_of",  # the alias in whose place the model answered; None: it was asked for itself
    "key",  # id of the API key; None: an earlier release wrote the row
    "switch_s",  # of the switches that it waited for; None: it waited for none
    "first_s",  # arrival to the first byte of a stream; None: no stream, or none came
)
ID, AT_S, DAY, TENANT = (COLUMNS.index(name) for name in ("id", "at_s", "day", "tenant"))
COST, KEY = COLUMNS.index("cost"), COLUMNS.index("key")
FIRST_COLUMNS = COST  # of the first release; those after them may be missing in a journal
PROMPT_TOKENS, COMPLETION_TOKENS = (COLUMNS.index(f"{name}_tokens") for name in ("prompt", "completion"))


class Entries:
    """Makes the rows of one gateway, from its start to its end."""

    def __init__(self, start: str) -> None:
        """`start` is unlike that of any other gateway or start: random hex digits."""
        self._start = start
        self._numbers = count()
        self._day = ""
        self._day_begins_s = self._day_ends_s = 0.0

    def row(self, record: Record) -> Row:
        """Return the row of a request that has ended."""
        at_s = record.ended_at_s
        if not self._day_begins_s <= at_s < self._day_ends_s:
            self._day = day_of(at_s)
            self._day_begins_s = at_s // DAY_S * DAY_S
            self._day_ends_s = self._day_begins_s + DAY_S
        target, queue_s = record.target, record.queue_s
        return (
            f"{id_at(at_s)}{self._start}{next(self._numbers):08x}",
            at_s,
            self._day,
            record.request_id,
            target.account,
            target.model,
            target.adapter or "",
            target.version or 0,
            target.pool,
            record.replica or "",
            record.outcome.value,
            record.reason,
            record.prompt_tokens,
            record.completion_tokens,
            record.cached_tokens,
            record.estimated,
            record.total_s if queue_s is None else queue_s,
            0.0 if queue_s is None else max(0.0, record.total_s - queue_s),
            record.slot_s,
            record.engine_s,
            record.cost,
            target.fallback_of or None,
            record.key or None,
            record.switch_s or None,
            record.first_byte_s if record.stream else None,
        )


def id_at(time_s: float) -> str:
    """Return how the ids of rows made at this Unix time begin; those of earlier ones are smaller."""
    return f"{int(time_s * 1000):012x}"


def day_of(time_s: float) -> str:
    """Return the day of a Unix time, UTC."""
    return datetime.fromtimestamp(time_s, UTC).date().isoformat()


def tokens_of(row: Row) -> int:
    """Tokens of a row that count for a budget: prompt and completion."""
    return int(row[PROMPT_TOKENS] or 0) + int(row[COMPLETION_TOKENS] or 0)


def whole(row: Sequence[Any]) -> Row | None:
    """Return a row with all columns; one of an earlier release lacks the newest. None where it is no row."""
    if not FIRST_COLUMNS <= len(row) <= len(COLUMNS):
        return None
    return (*row, *[None] * (len(COLUMNS) - len(row)))
