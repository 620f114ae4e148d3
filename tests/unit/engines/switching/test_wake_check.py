"""Does a model answer as it did? What is kept, what is compared, what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.residency import EngineAdapter
from engines.switching.library import Library
from engines.switching.live import LiveEngine, WaySpoiled
from engines.switching.wake_check import WakeCheck
from tests.unit.engines.switching.engine import FakeEngine, live, studied

ADAPTER = EngineAdapter("adapter@1", "/store/adapter")


class Checked:
    """An engine, the check of its host, and the differences that were counted."""

    def __init__(self, engine: FakeEngine, one: LiveEngine) -> None:
        self.engine, self.live, self.check, self.counted = engine, one, WakeCheck(), 0

    def count(self) -> None:
        self.counted += 1

    async def ask(self, *, is_new: bool = False, adapter: EngineAdapter | None = None) -> None:
        await self.check.verify(
            self.live, is_new=is_new, differs=self.count, adapter=adapter, request=adapter and object()
        )


@pytest.fixture
async def checked(tmp_path: Path) -> Checked:
    library = Library()
    models = await studied(library, tmp_path, "a")
    engine = FakeEngine()
    return Checked(engine, live(library, models["a"], engine))


async def test_the_first_answer_is_kept_and_the_same_one_passes(checked: Checked) -> None:
    await checked.ask(is_new=True)
    await checked.ask()
    assert checked.counted == 0 and checked.engine.calls == ["generate", "generate"]


async def test_another_answer_spoils_a_switch_and_is_counted(checked: Checked) -> None:
    await checked.ask(is_new=True)
    checked.engine.answer = (1, 2, 4)
    with pytest.raises(WaySpoiled, match="the model does not answer as it did"):
        await checked.ask()
    checked.engine.answer = (1, 2, 3)
    await checked.ask()
    assert checked.counted == 1


async def test_an_adapter_has_an_answer_of_its_own_until_it_is_forgotten(checked: Checked) -> None:
    await checked.ask(is_new=True)
    assert checked.check.adapter_of(checked.live) is None
    checked.engine.answer = (7, 8)
    await checked.ask(adapter=ADAPTER)
    assert checked.check.adapter_of(checked.live) == ADAPTER
    checked.engine.answer = (1, 2, 3)
    with pytest.raises(WaySpoiled, match="adapter adapter@1 does not answer"):
        await checked.ask(adapter=ADAPTER)
    checked.check.forget_adapter(checked.live)
    assert checked.check.adapter_of(checked.live) is None
    await checked.ask()


async def test_a_new_engine_is_believed_and_counted(checked: Checked) -> None:
    await checked.ask(is_new=True)
    checked.engine.answer = (9,)
    await checked.ask(is_new=True)
    await checked.ask()
    assert checked.counted == 1


async def test_an_engine_that_dies_of_the_question_is_spoiled(checked: Checked) -> None:
    checked.engine.errored = True
    with pytest.raises(WaySpoiled, match="died"):
        await checked.ask()


async def test_what_is_not_known_or_generates_nothing_is_not_asked(checked: Checked) -> None:
    checked.live.tasks = ("embed",)
    await checked.ask()
    checked.live.tasks, checked.live.identity = ("generate",), None
    await checked.ask()
    assert checked.engine.calls == []


async def test_an_engine_that_has_just_answered_as_before_is_not_asked_twice(checked: Checked) -> None:
    await checked.ask(is_new=True)
    assert await checked.check.answers_as_before(checked.live)
    await checked.ask(is_new=True)
    assert checked.engine.calls == ["generate"] * 2, "the check was asked already"
    await checked.ask()
    assert checked.engine.calls == ["generate"] * 3, "after the next switch it is asked again"


async def test_one_that_answered_otherwise_is_asked_again_and_counted(checked: Checked) -> None:
    await checked.ask(is_new=True)
    checked.engine.answer = (9,)
    assert not await checked.check.answers_as_before(checked.live)
    await checked.ask(is_new=True)
    assert checked.counted == 1 and checked.engine.calls == ["generate"] * 3
