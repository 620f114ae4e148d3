"""Finding step costs, and reading what they are found from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.simulator.fit import Measurement, errors, fit, read_measurements
from simulation.costs import StepCosts

TRUE = StepCosts(20.0, 0.5, 3.0, 0.01, 0.2, 0.05, 4.0, 50.0)
LOADS = [  # sequences, adapters, slots, loads from disk
    (1, 1, 8, 0.0),
    (2, 1, 4, 1.0),
    (8, 4, 8, 0.0),
    (16, 4, 8, 0.5),
    (32, 8, 16, 0.1),
    (64, 16, 16, 0.0),
    (64, 2, 32, 0.2),
    (96, 30, 32, 0.3),
    (128, 7, 8, 0.7),
]


def measured(batch: float, adapters: float, slots: float, **more: float) -> Measurement:
    """A load as an engine with the costs `TRUE` takes it."""
    blank = Measurement(batch, adapters, slots, 1.0, **more)
    itl_ms = sum(term * cost for term, cost in zip(blank.terms(), asdict(TRUE).values(), strict=True))
    return Measurement(batch, adapters, slots, itl_ms, **more)


def test_costs_are_found_again() -> None:
    loads = [
        measured(b, a, s, prefill_tokens=b * s, gpu_loads=a / b, disk_loads=disk) for b, a, s, disk in LOADS
    ]
    found = fit(loads, StepCosts())
    assert list(asdict(found).values()) == pytest.approx(list(asdict(TRUE).values()), rel=1e-6)
    assert errors(loads, found) == pytest.approx([0.0] * len(loads), abs=1e-9)


def test_a_term_that_does_not_vary_keeps_its_value() -> None:
    loads = [measured(batch, adapters, 8) for batch, adapters in [(1, 1), (8, 2), (16, 8), (32, 4), (64, 8)]]
    found = fit(loads, StepCosts(slot_ms=0.2, disk_load_ms=7.0))
    assert (found.slot_ms, found.disk_load_ms) == (0.2, 7.0)
    assert found.base_ms == pytest.approx(20.0)


def test_no_cost_is_below_nothing() -> None:
    loads = [Measurement(batch, 1, 8, itl_ms) for batch, itl_ms in [(1, 30.0), (10, 25.0), (20, 21.0)]]
    assert fit(loads, StepCosts()).sequence_ms == 0.0


def test_fewer_measurements_than_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="at least as many"):
        fit([Measurement(1, 1, 8, 20.0), Measurement(2, 2, 8, 22.0)], StepCosts())


def test_a_time_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        fit([Measurement(1, 1, 8, 0.0)], StepCosts())


def test_measurements_are_read_and_what_else_is_said_of_them_is_left_aside(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps([{"batch": 4, "adapters": 2, "slots": 8, "itl_ms": 21.5, "note": "x"}]))
    assert read_measurements(file) == [Measurement(4.0, 2.0, 8.0, 21.5)]


@pytest.mark.parametrize("text", ["{}", "[]", '[{"batch": 1}]', '["x"]', '[{"batch": "many"}]', "nonsense"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "measured.json"
    file.write_text(text)
    with pytest.raises(ValueError):
        read_measurements(file)
