"""Does the ledger have what the engines counted? Sums of its rows against the engines' own counters.

What ended as it should is in both to the token. Of a request that was left or broken off an engine may have
counted more than it got to send; where the gateway had to estimate, it may have counted less.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass
class Counted:
    """Tokens."""

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: Counted) -> Counted:
        return Counted(self.prompt - other.prompt, self.completion - other.completion)

    def __mul__(self, times: int) -> Counted:
        return Counted(self.prompt * times, self.completion * times)

    def exceeds(self, other: Counted) -> bool:
        """Whether there is more of anything."""
        return self.prompt > other.prompt or self.completion > other.completion


def rows_of(database: Path) -> list[dict[str, Any]]:
    """Read the ledger's rows of requests, past the gateway."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM usage_records")]
    connection.close()
    return rows


def by(name: str, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by tenant, by replica, or by whatever else they have."""
    found = defaultdict(list)
    for row in rows:
        found[str(row[name])].append(row)
    return dict(found)


def tokens(rows: Iterable[Row]) -> Counted:
    """What the ledger has for these."""
    return sum((Counted(row["prompt_tokens"], row["completion_tokens"]) for row in rows), Counted())


def counted_by_vllm(page: str) -> Counted:
    """What an engine counted since its start, by its own metrics page."""
    return Counted(_series(page, "vllm:prompt_tokens_total"), _series(page, "vllm:generation_tokens_total"))


def _series(page: str, name: str) -> int:
    lines = (line for line in page.splitlines() if line.startswith(f"{name}{{"))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def differences(rows: Iterable[Row], engine: Counted, *, unread: Counted, besides: Counted) -> list[str]:
    """Say where ledger and engine differ by more than can be.

    `unread` is the most that an engine counts of one request that did not end as it should, and that is in
    no answer; `besides` the most that it counted of what is no client's.
    """
    rows = list(rows)
    told, guessed = tokens(rows), tokens(row for row in rows if row["estimated"])
    unsure = sum(row["outcome"] != "completed" or bool(row["estimated"]) for row in rows)
    found = []
    if (told - guessed).exceeds(engine):
        found.append(f"the ledger has {told}, {guessed} of it guessed, and the engine counted only {engine}")
    if engine.exceeds(told + unread * unsure + besides):
        found.append(f"the engine counted {engine}, and the ledger has only {told} ({unsure} unsure)")
    return found
