"""Is a model read ahead of its turn, where there is room for it, and one at a time?"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engines import read_ahead as module
from engines.read_ahead import ReadAhead
from engines.switching.holding import MIN_RESERVE_BYTES, HostMemory
from tests.fakes import eventually

SIZE = 3 * 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json"):
        (tmp_path / name).write_bytes(os.urandom(SIZE))
    return tmp_path


class Reading:
    """A host's reading, and the bytes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spare_bytes: int) -> None:
        self.ahead = ReadAhead(lambda: HostMemory(2**40, int(0.1 * 2**40) + spare_bytes))
        self.files: list[str] = []
        opened = Path.open

        def open_counted(path: Path, *told: object, **options: object) -> object:
            if path.suffix == ".safetensors":
                self.files.append(path.name)
            return opened(path, *told, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", open_counted)

    async def done(self) -> list[str]:
        assert self.ahead._reading is not None
        await asyncio.wait_for(self.ahead._reading, 10)
        return self.files


async def test_all_weights_are_read_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch, 2 * SIZE)
    reading.ahead.begin("even", folder)
    assert await reading.done() == ["model-1.safetensors", "model-2.safetensors"]


async def test_what_does_not_fit_beside_the_reserve_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch, 2 * SIZE - 1)
    reading.ahead.begin("even", folder)
    assert await reading.done() == []


async def test_a_model_that_is_not_there_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch, MIN_RESERVE_BYTES)
    reading.ahead.begin("even", tmp_path / "absent")
    assert await reading.done() == []
    (tmp_path / "model.safetensors").mkdir()
    reading.ahead.begin("even", tmp_path)
    assert await reading.done() == ["model.safetensors"], "a folder in its place"


async def test_one_is_read_at_a_time_and_none_after_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch, 2 * SIZE)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)  # as slow as that
    reading.ahead.begin("even", folder)
    first = reading.ahead._reading
    reading.ahead.begin("odd", folder)
    assert reading.ahead._reading is first
    await eventually(lambda: bool(reading.files))
    await asyncio.wait_for(reading.ahead.stop(), 10)
    assert first is not None and first.done()
