"""Step costs and the flags of an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.costs import EngineSettings, StepCosts


def test_a_step_costs_what_is_in_it() -> None:
    costs = StepCosts(10.0, 1.0, 2.0, 0.5, 0.25, 0.0, 0.0, 0.0)
    assert costs.decode_ms(4, 2, 8) == 10 + 4 + 4 + 4 + 2


def test_costs_survive_their_file(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    file.write_text(StepCosts(base_ms=3.5).as_json())
    assert StepCosts.read(file) == StepCosts(base_ms=3.5)


@pytest.mark.parametrize("text", ["[]", '{"base_ms": 1}', '{"nonsense": 1}', "3"])
def test_a_file_with_other_terms_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "costs.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="exactly"):
        StepCosts.read(file)


@pytest.mark.parametrize(("slots", "places"), [(-1, 4), (8, 4)])
def test_an_engine_has_at_least_as_many_places_as_slots(slots: int, places: int) -> None:
    with pytest.raises(ValueError, match="max_loras"):
        EngineSettings(slots=slots, host_places=places)


def test_slots_take_memory_from_the_kv_cache_until_none_is_left() -> None:
    assert EngineSettings(slots=8).kv_capacity == 302_000
    assert EngineSettings(slots=9).kv_capacity == 302_000 - 758
    assert EngineSettings(kv_tokens=500).kv_capacity == 500
    with pytest.raises(ValueError, match="no memory"):
        EngineSettings(slots=512, host_places=512)
