"""Reads a client's `traceparent`, the W3C header, strictly, and writes it anew; pure.

W3C Trace Context, level 1: https://www.w3.org/TR/trace-context/. Nothing of it is passed on unchanged, and
`tracestate` and `baggage`, which are free text, not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SAMPLED = 0x01
# Later versions may append fields to version 00's; ff is no version.
_HEADER = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span in a trace, as in the header."""

    trace_id: str  # 32 lower-case hex digits
    span_id: str  # 16
    sampled: bool

    @property
    def header(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED if self.sampled else 0:02x}"


def read(header: str | None) -> TraceContext | None:
    """Read a `traceparent`; None if there is no valid one."""
    match = _HEADER.fullmatch(header) if header and len(header) <= 512 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & SAMPLED))


def trace_id_of(header: str | None) -> str | None:
    """Return the trace that a `traceparent` names, if it is valid."""
    context = read(header)
    return None if context is None else context.trace_id
