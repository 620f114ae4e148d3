"""How is a figure declared that operators see? As a field of a dataclass; its name is its name in JSON.

pydantic reads `description` and `examples` of a field's metadata, so that the admin API's document, and the
console's types that are made from it, say what stands there. The metrics page shows the gauges it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Report = TypeVar("Report", bound=DataclassInstance)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A gauge of the metrics page that shows a figure."""

    name: str  # in full
    text: str = ""  # one sentence; empty: the figure's description
    of: Callable[[Any], float | None] = lambda figure: figure  # None: its replica is left out

    def read(self, name: str, report: Any) -> float | None:
        """Return its value in a report that has the figure under this name."""
        return self.of(getattr(report, name))


def figure(
    text: str = "", *gauges: Gauge, read: Callable[[Any], Any] | None = None, example: Any = None
) -> Any:
    """Declare a dataclass's field. Without `read` it is the attribute of that name of what is reported on."""
    described = {"description": text} if text else {}
    examples = {} if example is None else {"examples": [example]}
    return field(metadata={**described, **examples, "gauges": gauges, "read": read})


def same_as(report: type[Any], name: str) -> Any:
    """Declare a dataclass's field as another report declares the figure of this name."""
    return field(metadata=next(each.metadata for each in fields(report) if each.name == name))


def gauges(report: type[Any]) -> Iterator[tuple[str, Gauge]]:
    """Return every gauge of a report's figures, its text filled in, with the figure's name."""
    for each in fields(report):
        for gauge in each.metadata["gauges"]:
            yield each.name, replace(gauge, text=gauge.text or each.metadata["description"])


def rounded(report: Report) -> Report:
    """Cut a report's times and parts to microseconds: no clock is better, nobody reads sixteen digits."""
    values = {each.name: getattr(report, each.name) for each in fields(report)}
    return replace(report, **{name: round(v, 6) for name, v in values.items() if isinstance(v, float)})
