"""Fifty fine-tunes: what is written is what a plan takes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import typer
import yaml

from benchmarks.fine_tunes import dealt, fleet, models
from fleet import read_fleet
from planning.reading.model_table import read_models

ROWS = "\n".join(
    f"2023-11-16 18:{10 + i // 60}:{i % 60:02}.0000000,{100 + i},{1 + i % 9}" for i in range(600)
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{ROWS}\n")
    return path


def test_as_many_requests_are_kept_as_the_models_rates_ask_for(trace: Path) -> None:
    requests = dealt(trace, [("a", 0.3), ("b", 0.1)], random.Random(1))
    assert len(requests) == pytest.approx(0.4 * 599, rel=0.15)
    counts = [sum(model == name for _, model, _, _ in requests) for name in "ab"]
    assert counts[0] > 2 * counts[1]


def test_a_trace_with_too_few_requests_is_an_error(trace: Path) -> None:
    with pytest.raises(typer.BadParameter, match="too few requests"):
        dealt(trace, [("a", 2.0)], random.Random(1))


def test_the_fleet_and_its_models_are_read(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet()))
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(models()))
    declared = read_fleet(tmp_path / "fleet.yaml", keys_needed=False).fleet
    named = {model.name for model in read_models(tmp_path / "models.yaml")}
    assert named == {*declared.base_models, *declared.adapters}
    assert len(named) == 51  # a base model, and fifty fine-tunes
