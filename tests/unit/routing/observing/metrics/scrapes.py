"""What a scraper makes of a page: its samples, and the increases that it adds up as Prometheus does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from routing.types import Outcome, Record, Target

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]  # name -> labels -> value


def samples(page: bytes) -> Samples:
    """Read a page in Prometheus' format."""
    found: Samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def series_of(page: bytes, name: str) -> dict[Labels, float]:
    """Read one name's samples; on a large page this is far quicker than reading all."""
    wanted = (line for line in page.decode().splitlines() if line.startswith(f"{name}{{"))
    return samples("\n".join([*wanted, ""]).encode()).get(name, {})


def openmetrics_families(page: bytes) -> dict[str, Any]:
    """Read a page in OpenMetrics; raises `ValueError` for what breaks its rules."""
    families = openmetrics.text_string_to_metric_families(page.decode())  # type: ignore[no-untyped-call]
    return {family.name: family for family in families}


@dataclass
class Scraper:
    """Adds up a counter's increases. A series that drops has been restarted; a new one is taken from zero."""

    name: str
    increases: dict[Labels, float] = field(default_factory=dict)
    last: dict[Labels, float] = field(default_factory=dict)

    def see(self, page: bytes) -> None:
        now = series_of(page, self.name)
        for labels, value in now.items():
            before = self.last.get(labels, 0.0)
            increase = value - before if value >= before else value
            self.increases[labels] = self.increases.get(labels, 0.0) + increase
        self.last = now

    @property
    def total(self) -> float:
        return sum(self.increases.values())


def ended(number: int = 0, *, version: int = 1, pool: str = "shared", **changes: Any) -> Record:
    """A completed stream of adapter `number` of 2000."""
    name = f"adapter-{number:04}"
    target = Target(f"tenant-{number % 50:02}", name, name, "base", pool, version, f"{name}@{version}")
    given: dict[str, Any] = {
        "replica": f"{pool}-0",
        "stream": True,
        "queue_s": 0.01,
        "first_byte_s": 0.3,
        "total_s": 2.3,
        "prompt_tokens": 100,
        "cached_tokens": 64,
        "completion_tokens": 41,
        "attempts": 1,
        "picked": "running",
    }
    return Record("id", target, Outcome.COMPLETED, 200, **{**given, **changes})
