"""One metric as data: its name, kind, labels and meaning; pages and documents are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MetricKind(StrEnum):
    """How a metric behaves; the values are Prometheus' words."""

    COUNTER = "counter"  # only grows; its samples end in `_total`
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: it is a key on the hot path
class Metric:
    """One metric family. The name is the family's: a counter's has no `_total`."""

    name: str
    kind: MetricKind
    text: str  # one sentence: the thing counted or measured, from when to when
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # of a histogram: upper bounds, without +Inf
    gen_ai: str = ""  # OpenTelemetry's GenAI metric that says the same, if there is one

    @property
    def unit(self) -> str:
        """The unit that its name ends in, or nothing: it counts things."""
        return next((u for u in ("seconds", "tokens", "bytes", "ratio") if self.name.endswith(f"_{u}")), "")

    @property
    def sample(self) -> str:
        """The name in queries: the family, or `..._total` of a counter."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name
