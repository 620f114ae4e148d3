"""Writes metrics as text: Prometheus' format 0.0.4 or OpenMetrics 1.0, as the scraper asks.

A model's samples are rendered once and kept until they change, which the client library cannot do: it takes
some 10 us a line, and a page of 200 models has 20 000 lines, during which nothing is relayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from engines.metric import Metric, MetricKind


class TextFormat(Enum):
    """A format and its content type."""

    PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

    @classmethod
    def accepted(cls, accept: str | None) -> TextFormat:
        """Choose for an `Accept` header: OpenMetrics if its weight is at least text's."""
        wanted = dict(_preferences(accept or ""))
        openmetrics = wanted.get("application/openmetrics-text", 0.0)
        text = wanted.get("text/plain", wanted.get("text/*", wanted.get("*/*", 0.0)))
        return cls.OPENMETRICS if openmetrics > 0.0 and openmetrics >= text else cls.PROMETHEUS


def _preferences(accept: str) -> Iterable[tuple[str, float]]:
    """Read media types with their weights (RFC 9110, 12.5.1); an invalid weight counts as 0."""
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind == "application/openmetrics-text" and not _is_version_1(parameters):
            continue
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            yield kind, float(weight)
        except ValueError:
            yield kind, 0.0


def _is_version_1(parameters: Iterable[str]) -> bool:
    """Whether the requested version is one that is written here, or none is given."""
    version = next((p[8:].strip('"') for p in parameters if p.startswith("version=")), "1.0.0")
    return version in ("1.0.0", "0.0.1")  # Prometheus asks for both; the older one reads the same


def head(metric: Metric, form: TextFormat) -> str:
    """Return the lines above a family's samples."""
    name = metric.name if form is TextFormat.OPENMETRICS else metric.sample
    lines = f"# HELP {name} {_escape(metric.text)}\n# TYPE {name} {metric.kind.value}\n"
    if form is TextFormat.OPENMETRICS and metric.unit and metric.kind is not MetricKind.COUNTER:
        lines += f"# UNIT {name} {metric.unit}\n"
    return lines


def labelled(names: Iterable[str], values: Iterable[str]) -> str:
    """Return `name="value",...` without braces."""
    return ",".join(f'{name}="{_escape_value(value)}"' for name, value in zip(names, values, strict=True))


def line(name: str, labels: str, value: float) -> str:
    """Return one sample."""
    return f"{name}{{{labels}}} {number(value)}\n" if labels else f"{name} {number(value)}\n"


def family(metric: Metric, rows: Mapping[tuple[str, ...], float], form: TextFormat) -> str:
    """Return a whole family of counters or gauges; "" for one without rows."""
    if not rows:
        return ""
    samples = (line(metric.sample, labelled(metric.labels, row), value) for row, value in rows.items())
    return head(metric, form) + "".join(samples)


def number(value: float) -> str:
    """Write a number as Go does; both formats take it."""
    return "+Inf" if value == float("inf") else repr(float(value))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_value(text: str) -> str:
    return _escape(text).replace('"', r"\"")
