"""An engine on a MIG slice starts there with the memory that it has there, or not at all. Without vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import runpy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engines import engine_process, logs, orphans
from engines import recipe as recipe_module
from engines import supervisor as supervisor_module
from engines.devices import pinning, vllm_guard
from engines.devices.layout import Gpu, Machine, Slice, SliceError
from engines.devices.nvml import NoNvml
from engines.devices.pinning import Pin, pin
from engines.health import EngineState
from engines.recipe import Recipe
from engines.restarts import Restarts
from engines.supervisor import Supervisor
from fleet.mig import SliceName
from fleet.types import BaseModel

NAME = SliceName(uuid="MIG-a1")
MODEL = BaseModel("base", "some-org/never-fetched", kv_cache_bytes=3 * 2**30)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Engines set the device in the environment of their process: it is put back."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    yield


def recipe(*, on_cpu: bool = False, on_slice: SliceName | None = NAME) -> Recipe:
    return Recipe(1.0, on_cpu=on_cpu, traces_endpoint=None, on_slice=on_slice)


async def test_it_starts_on_its_slice_with_the_memory_that_it_has_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[SliceName, BaseModel]] = []

    def found(wanted: SliceName, model: BaseModel) -> Pin:
        asked.append((wanted, model))
        return Pin({"CUDA_VISIBLE_DEVICES": "MIG-a1"}, 1234567)

    monkeypatch.setattr(recipe_module, "pin", found)
    argv = await recipe().arguments(MODEL)
    assert asked == [(NAME, MODEL)]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-a1"
    assert argv[argv.index("--kv-cache-memory-bytes") + 1] == "1234567"
    assert argv.count("--kv-cache-memory-bytes") == 1


async def test_an_engine_that_measures_its_cache_itself_is_told_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_module, "pin", lambda *_: Pin({"CUDA_VISIBLE_DEVICES": "MIG-a1"}, None))
    assert "--kv-cache-memory-bytes" not in await recipe().arguments(MODEL)


async def test_without_its_slice_nothing_is_started_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Restarts, "delay_s", 0.0)
    monkeypatch.setattr(supervisor_module, "WATCH_INTERVAL_S", 0.0)
    found: list[Any] = [SliceError("slice MIG-a1 is not there: GPU 0 (NVIDIA H200) has no slice"), None]

    def look(*_: Any) -> Pin:
        outcome = found.pop(0) if found else None
        if outcome is not None:
            raise outcome
        return Pin({"CUDA_VISIBLE_DEVICES": "MIG-a1"}, None)

    built = asyncio.Event()

    async def build(_: Any) -> Any:
        built.set()
        await asyncio.Event().wait()
        raise AssertionError("cancelled before")

    monkeypatch.setattr(recipe_module, "pin", look)
    monkeypatch.setattr(orphans, "reap", lambda _: None)
    monkeypatch.setattr(engine_process, "become_main_of_children", lambda: None)
    supervisor = Supervisor("small-0", MODEL, shutdown_grace_s=1.0, on_slice=NAME)
    supervisor._recipe = recipe()
    monkeypatch.setattr(supervisor, "_build", build)
    reasons: list[str] = []
    told = Restarts.did_not_start

    def did_not_start(self: Restarts, words: str) -> None:
        reasons.append(words)
        told(self, words)

    monkeypatch.setattr(Restarts, "did_not_start", did_not_start)
    task = asyncio.create_task(supervisor._supervise())
    await asyncio.wait_for(built.wait(), 30)
    assert reasons == ["slice MIG-a1 is not there: GPU 0 (NVIDIA H200) has no slice"]
    assert supervisor.health().state is EngineState.FAILED and supervisor.health().reason == reasons[0]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await supervisor.stop()


async def test_an_engine_for_cpus_does_not_run_elsewhere_instead() -> None:
    with pytest.raises(
        SliceError, match="slice MIG-a1 cannot be used: the installed vLLM is the one for CPUs"
    ):
        await recipe(on_cpu=True).arguments(MODEL)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


async def test_an_engine_without_a_slice_looks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_module, "pin", None)
    argv = await recipe(on_slice=None).arguments(MODEL)
    assert argv[argv.index("--kv-cache-memory-bytes") + 1] == str(MODEL.kv_cache_bytes)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


# -- what is known of the model ----------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slice of 16 GiB."""
    one = Slice("MIG-a1", "1g.18gb", 7, 1, 16 * 2**30)
    gpu = Gpu(0, "GPU-a", "NVIDIA H200", 140 * 2**30, True, (one,))
    monkeypatch.setattr(pinning, "read_machine", lambda: Machine((gpu,)))


def knows(
    monkeypatch: pytest.MonkeyPatch, weights: int | None, sizes: tuple[tuple[int | None, int, int], ...] = ()
) -> None:
    """Let a model's files tell the weights' bytes, and inputs, outputs and experts of its modules."""
    modules = {
        str(number): SimpleNamespace(inputs=inputs, outputs=outputs, experts=experts)
        for number, (inputs, outputs, experts) in enumerate(sizes)
    }
    monkeypatch.setattr(pinning, "find_weight_bytes", lambda *_, **__: weights)
    monkeypatch.setattr(pinning, "find_shape", lambda *_: SimpleNamespace(modules=modules))


@pytest.mark.usefixtures("machine")
def test_slots_of_adapters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch, 2**30, ((4096, 4096, 0), (None, 1024, 4)))
    plain = BaseModel("base", "/models/base")
    with_slots = BaseModel("base", "/models/base", max_loras=8, max_lora_rank=64)
    without, left = pin(NAME, plain).kv_cache_bytes, pin(NAME, with_slots).kv_cache_bytes
    assert without is not None and left is not None
    assert without - left == (8192 + 4 * 1024) * 64 * 8 * 2


@pytest.mark.usefixtures("machine")
def test_an_engine_measures_what_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch, None)
    assert pin(NAME, BaseModel("base", "org/base")).kv_cache_bytes is None
    knows(monkeypatch, 2**30)
    resized = BaseModel("base", "/models/base", vllm_args=("--quantization", "fp8"))
    assert pin(NAME, resized).kv_cache_bytes is None
    assert pin(NAME, BaseModel("base", "/models/base")).kv_cache_bytes is not None


def test_why_the_driver_tells_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> Machine:
        raise NoNvml("the NVIDIA driver is not loaded")

    monkeypatch.setattr(pinning, "read_machine", silent)
    with pytest.raises(SliceError, match="slice MIG-a1 is not there: the NVIDIA driver is not loaded"):
        pin(NAME, MODEL)


def test_every_process_that_vllm_starts_corrects_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(logs, "set_up", lambda: done.append("log"))
    monkeypatch.setattr(vllm_guard, "correct_vllm", lambda: done.append("corrected"))
    runpy.run_path(engine_process.__file__, run_name="__mp_main__")
    assert done == ["log", "corrected"]
