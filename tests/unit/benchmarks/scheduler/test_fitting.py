"""Steps are measured at every point that one engine can run, from whole answers alone."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from benchmarks.scheduler import fitting
from benchmarks.scheduler.__main__ import write_steps
from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.fitting import TOKENS, Step, measure_steps, points
from benchmarks.scheduler.fleet import Shape
from tests.unit.benchmarks.scheduler.fakes import FakeDoor, IdleEyes


def test_points_fit_into_slots_and_sequences() -> None:
    found = list(points(Shape(slots=3, max_sequences=8)))
    assert found == [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 3), (8, 1), (8, 2), (8, 3)]
    assert list(points(Shape(slots=1, max_sequences=2))) == [(1, 1), (2, 1)]


async def test_each_point_has_the_mean_gap_of_answers_that_began_and_ended_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "SETTLE_S", 0.0)
    monkeypatch.setattr(fitting, "SECONDS", 0.02)
    calls = itertools.count()

    async def act(answer: Answer) -> None:
        await asyncio.sleep(0)
        if next(calls) % 2:
            await asyncio.Event().wait()  # cut off in the end
        answer.sent_s = answer.first_s = answer.due_s
        answer.last_s, answer.whole = answer.due_s + 0.005 * (TOKENS - 1), True

    door = FakeDoor("one", act)
    steps = await measure_steps(door, Shape(slots=2, max_sequences=2), IdleEyes())
    assert [(step.batch, step.adapters, step.slots) for step in steps] == [(1, 1, 2), (2, 1, 2), (2, 2, 2)]
    assert [step.itl_ms for step in steps] == pytest.approx([5.0] * 3)
    assert {answer.arrival.adapter for answer, _ in door.asked} == {0, 1}


async def test_a_point_at_which_nothing_ended_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SETTLE_S", 0.0)
    monkeypatch.setattr(fitting, "SECONDS", 0.0)

    async def never(answer: Answer) -> None:
        await asyncio.Event().wait()

    assert await measure_steps(FakeDoor("one", never), Shape(slots=1, max_sequences=1), IdleEyes()) == []


def test_steps_are_written_as_a_list(tmp_path: Path) -> None:
    write_steps(tmp_path / "steps.json", [Step(4, 2, 3, 7.5)])
    assert json.loads((tmp_path / "steps.json").read_text()) == [
        {"batch": 4, "adapters": 2, "slots": 3, "itl_ms": 7.5}
    ]
