"""How does usage look in a spreadsheet? CSV as RFC 4180 has it, always with the same columns. Pure.

A program that opens it takes a cell that begins with one of `FORMULA` for a formula to run; such text gets an
apostrophe in front, as OWASP advises ("CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from routing.usage.query import DIMENSIONS, MEASURES, UsageLine

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
COLUMNS = (*DIMENSIONS, *MEASURES, "currency")


def to_csv(lines: Iterable[UsageLine], currency: str | None = None) -> str:
    """Write lines below a head. A dimension that was not asked for, or the base model's, is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for line in lines:
        named = {**line, "currency": currency}
        writer.writerow([_cell(named.get(name)) for name in COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
