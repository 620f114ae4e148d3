"""Which runs does a sweep make, and what does it say of them?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.portions import Done
from benchmarks.simulator.models.comparison import Figures
from benchmarks.simulator.models.scenarios import POLICIES
from benchmarks.simulator.models.sweep import BEST, OBJECTIVE, PLAIN, fleets, tables, to_do


def seen(good: float, p99_s: float) -> dict[str, float]:
    return asdict(Figures(good, good, 1.0, p99_s, 2 * p99_s, 0.0, 60.0, 0.9))


def all_done(name: str, **by_policy: tuple[float, float]) -> Done:
    named = {"plain": PLAIN, "objective": OBJECTIVE, "best": BEST}
    told = {named[key]: figures for key, figures in by_policy.items()}
    return {(name, policy, 1): seen(*told.get(policy, (0.3, 50.0))) for policy in POLICIES}


def test_each_load_meets_each_number_of_devices_and_each_cost(tmp_path: Path) -> None:
    assert len(fleets((1, 2), None)) == 2 * 2 * 3
    known = fleets((1, 2), tmp_path)
    assert len(known) == 4 * 2 * 3 and "code, 2 devices, 0.5 s" in known
    fleet = known["bursts, 2 devices, 5 s"]
    assert (fleet.models, fleet.devices, fleet.rate_per_s, fleet.switch_s) == (12, 2, 1.2, 5.0)
    assert len(known["Zipf, 1 device, 2 s"].calls(1)) == pytest.approx(0.6 * 1200, rel=0.2)


def test_a_seed_is_whole_before_the_next_one_begins_and_nothing_is_made_twice() -> None:
    known = fleets((2, 1), None)
    todo = list(to_do({}, known, 2))
    assert len(todo) == 2 * len(known) * len(POLICIES) == len(set(todo))
    assert [seed for _, _, seed in todo] == sorted(seed for _, _, seed in todo)
    assert "1 device" in todo[0][0], "small fleets first"
    assert list(to_do({key: {} for key in todo[:-1]}, known, 2)) == todo[-1:]


def test_what_is_told_is_of_fleets_that_every_rule_has_met() -> None:
    known = fleets((1,), None)
    first, second, third, *_ = known
    done = all_done(first, best=(0.4, 40.0), plain=(0.5, 44.0), objective=(0.6, 20.0))
    done |= all_done(second, best=(0.4, 40.0), plain=(0.2, 40.0), objective=(0.4, 40.0))
    done[third, BEST, 1] = seen(0.4, 40.0)
    text = list(tables(done, known))
    assert any(line.startswith(f"| {first} | 1 | 40.0%, 40.0 s | 1.25 times, 1.10 times |") for line in text)
    assert not any(line.startswith(f"| {third} ") for line in text)
    behind = text[text.index(f"{PLAIN}: fewer in time than the best other one in 1 of 2 fleets") :]
    assert behind[1] == f"- {second}"
    assert behind[2:4] == [
        f"{PLAIN}: a p99 longer than {BEST}'s by more than 2 % in 1 of 2 fleets",
        f"- {first}",
    ]
    assert list(tables({}, known)) == []
