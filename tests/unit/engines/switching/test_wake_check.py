"""Does a model answer as it did? What is kept, what is compared, what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from engines.switching.library import Library
from engines.switching.live import LiveEngine, WaySpoiled
from engines.switching.wake_check import WakeCheck
from tests.unit.engines.switching.engine import FakeEngine, live, studied

COUNTER = "tenantry_wake_check_failures_total"


async def engine_in(folder: Path) -> tuple[FakeEngine, LiveEngine]:
    library = Library()
    models = await studied(library, folder, "a")
    engine = FakeEngine()
    return engine, live(library, models["a"], engine)


def counted() -> float:
    return REGISTRY.get_sample_value(COUNTER) or 0.0


async def test_the_first_answer_is_kept_and_the_same_one_passes(tmp_path: Path) -> None:
    _, one = await engine_in(tmp_path)
    check, before = WakeCheck(), counted()
    assert not check.knows(one, "")
    await check.verify(one, is_new=True)
    assert check.knows(one, "") and not check.knows(one, "adapter@1")
    await check.verify(one, is_new=False)
    assert counted() == before


async def test_another_answer_spoils_a_switch_and_is_counted(tmp_path: Path) -> None:
    engine, one = await engine_in(tmp_path)
    check, before = WakeCheck(), counted()
    await check.verify(one, is_new=True)
    engine.answer = (1, 2, 4)
    with pytest.raises(WaySpoiled, match="the model does not answer as it did"):
        await check.verify(one, is_new=False)
    engine.answer = (1, 2, 3)
    await check.verify(one, is_new=False)
    assert counted() == before + 1


async def test_an_adapter_has_an_answer_of_its_own(tmp_path: Path) -> None:
    engine, one = await engine_in(tmp_path)
    check = WakeCheck()
    await check.verify(one, is_new=True)
    engine.answer = (7, 8)
    await check.verify(one, is_new=False, adapter="adapter@1", request=object())
    engine.answer = (1, 2, 3)
    with pytest.raises(WaySpoiled, match="adapter adapter@1 does not answer"):
        await check.verify(one, is_new=False, adapter="adapter@1", request=object())


async def test_a_new_engine_is_believed_and_counted(tmp_path: Path) -> None:
    engine, one = await engine_in(tmp_path)
    check, before = WakeCheck(), counted()
    await check.verify(one, is_new=True)
    engine.answer = (9,)
    await check.verify(one, is_new=True)
    await check.verify(one, is_new=False)
    assert counted() == before + 1


async def test_an_engine_that_dies_of_the_question_is_spoiled(tmp_path: Path) -> None:
    engine, one = await engine_in(tmp_path)
    engine.errored = True
    with pytest.raises(WaySpoiled):
        await WakeCheck().verify(one, is_new=False)
