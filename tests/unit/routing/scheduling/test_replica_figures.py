"""The figures of a replica: what is declared once is shown everywhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
from pydantic import TypeAdapter

from engines.health import EngineHealth, EngineState
from routing.scheduling.figure import Gauge, figure, gauges, rounded, same_as
from routing.scheduling.replica_figures import (
    ReplicaFigures,
    ReplicaReport,
    ReplicaState,
    replica_figures,
    replica_report,
)
from routing.scheduling.state import Engine, Replica, SlotDrain
from tests.unit.routing.scheduling.busy import busy


def engine(*, draining: bool = False, **values: Any) -> Engine:
    """An engine in a replica."""
    values = {"slots": 4, "max_sequences": 8, "ready": True, **values}
    return Replica("shared-0", "shared", Engine("shared-0", "base", **values), draining).engine


@dataclass(frozen=True)
class Example:
    """A report with one figure."""

    warmth: float = figure(
        "How warm it is.", Gauge("warmth"), Gauge("cold", "1 below 0.", lambda w: int(w < 0))
    )


def test_a_gauge_without_a_text_of_its_own_means_what_the_figure_means() -> None:
    found = [(name, gauge.name, gauge.text) for name, gauge in gauges(Example)]
    assert found == [("warmth", "warmth", "How warm it is."), ("warmth", "cold", "1 below 0.")]


def test_a_gauge_reads_its_figure() -> None:
    assert [gauge.read(name, Example(-0.5)) for name, gauge in gauges(Example)] == [-0.5, 1]


def test_a_figure_is_described_in_the_schema_of_answers() -> None:
    assert TypeAdapter(Example).json_schema()["properties"]["warmth"]["description"] == "How warm it is."


def test_a_figure_must_be_given() -> None:
    with pytest.raises(TypeError, match="warmth"):
        Example()


def test_a_figure_may_be_shown_under_another_name_as_it_is_declared() -> None:
    @dataclass(frozen=True)
    class Another:
        heat: float = same_as(Example, "warmth")

    properties = TypeAdapter(Another).json_schema()["properties"]
    assert properties["heat"]["description"] == "How warm it is."


def test_times_have_no_more_digits_than_a_clock() -> None:
    assert rounded(Example(1 / 3)) == Example(0.333333)


def test_a_report_has_the_figures_of_the_engine_and_more() -> None:
    house = busy()
    running = house.dispatcher.replicas["shared-0"].engine
    report = replica_report(running, house.clock.now)
    assert report.by_name() == replica_figures(running).by_name()
    assert list(report.by_name()) == [each.name for each in fields(ReplicaFigures)]
    assert [lease.leased_s for lease in report.leases] == [12.5]


def test_what_is_not_known_is_none() -> None:
    figures = replica_figures(engine())
    assert (figures.itl_s, figures.slot_drains_for, figures.slot_evicted) == (None, None, None)


def test_a_free_slot_that_is_promised_evicts_no_adapter() -> None:
    figures = replica_figures(engine(slot_drain=SlotDrain("a-sales@1", "a", None)))
    assert (figures.slot_drains_for, figures.slot_evicted) == ("a-sales@1", None)


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, ReplicaState.READY),
        ({"trusted": False}, ReplicaState.NOT_TRUSTED),
        ({"ready": False}, ReplicaState.NOT_READY),
        ({"ready": False, "trusted": False}, ReplicaState.NOT_READY),
        ({"ready": False, "told": EngineHealth(EngineState.FAILED, "no compiler")}, ReplicaState.FAILED),
        ({"draining": True, "ready": False}, ReplicaState.DRAINING),
    ],
)
def test_the_state_says_why_a_replica_gets_no_work(values: dict[str, Any], state: ReplicaState) -> None:
    assert replica_figures(engine(**values)).state is state


def test_every_figure_is_described() -> None:
    for each in fields(ReplicaReport):
        assert "description" in each.metadata or each.name in ("name", "health"), each.name
