"""An engine on a MIG slice starts there with the memory that it has there, or not at all. Without vLLM."""

from __future__ import annotations

import asyncio
import os
import runpy
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engines import engine_process, logs, orphans, vllm_engine
from engines import start as start_module
from engines.assembly import host_of
from engines.devices import pinning, vllm_guard
from engines.devices.layout import Gpu, Machine, Slice, SliceError
from engines.devices.nvml import NoNvml
from engines.devices.pinning import Pin, pin
from engines.host import EngineHost
from engines.restarts import Restarts
from engines.supervisor import Supervisor
from fleet.mig import Mig, SliceName
from fleet.types import BaseModel, Fleet, Pool, Strategy

NAME = SliceName(uuid="MIG-a1")
MODEL = BaseModel("base", "some-org/never-fetched", kv_cache_bytes=3 * 2**30)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Engines set the device in the environment of their process: it is put back."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    yield


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """One whose engines run on a slice; what it would start them with is in `started`."""
    made = Supervisor("small-0", MODEL, shutdown_grace_s=1.0, on_slice=NAME)
    made._start.on_cpu = False
    return made


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Device and flags of every engine that is started; each start fails after that."""
    seen: list[tuple[str, list[str]]] = []

    def build(argv: list[str], forks: None) -> tuple[Any, Any]:
        seen.append((os.environ["CUDA_VISIBLE_DEVICES"], argv))
        raise RuntimeError("no engine in these tests")

    monkeypatch.setattr(vllm_engine, "build_engine", build)
    return seen


def finds(monkeypatch: pytest.MonkeyPatch, *outcomes: Pin | SliceError) -> None:
    """Let each look for the slice have its outcome."""
    left = list(outcomes)

    def look(*_: Any, **__: Any) -> Pin:
        outcome = left.pop(0)
        if isinstance(outcome, SliceError):
            raise outcome
        return outcome

    monkeypatch.setattr(start_module, "pin", look)


def make(supervisor: Supervisor) -> None:
    """Start an engine as the builder's thread does."""
    with pytest.raises(RuntimeError, match="no engine in these tests"):
        supervisor._start.make(MODEL, supervisor.metrics)
    supervisor._start.last_words.close()


def on_it(kv_cache_bytes: int | None) -> Pin:
    return Pin({"CUDA_VISIBLE_DEVICES": "MIG-a1"}, replace(MODEL, kv_cache_bytes=kv_cache_bytes))


def test_it_starts_on_its_slice_with_the_memory_that_it_has_there(
    supervisor: Supervisor, started: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    finds(monkeypatch, on_it(1234567))
    make(supervisor)
    ((device, argv),) = started
    assert device == "MIG-a1"
    assert argv[argv.index("--kv-cache-memory-bytes") + 1] == "1234567"
    assert argv.count("--kv-cache-memory-bytes") == 1


def test_an_engine_that_measures_its_cache_itself_is_told_none(
    supervisor: Supervisor, started: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    finds(monkeypatch, on_it(None))
    make(supervisor)
    assert "--kv-cache-memory-bytes" not in started[0][1]


async def test_without_its_slice_nothing_is_started_until_it_is_back(
    supervisor: Supervisor, started: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "slice MIG-a1 is not there: GPU 0 (NVIDIA H200) has no slice"
    finds(monkeypatch, SliceError(gone), on_it(None), SliceError("over"))
    monkeypatch.setattr(Restarts, "delay_s", 0.0)
    monkeypatch.setattr(orphans, "reap", lambda _: None)
    monkeypatch.setattr(engine_process, "become_main_of_children", lambda: None)
    told: list[tuple[str, int]] = []

    def did_not_start(self: Restarts, words: str) -> None:
        told.append((words, len(started)))
        if words == "over":
            supervisor.draining = True

    monkeypatch.setattr(Restarts, "did_not_start", did_not_start)
    await asyncio.wait_for(supervisor._supervise(), 30)
    assert told == [(gone, 0), ("RuntimeError: no engine in these tests", 1), ("over", 1)]
    await supervisor.stop()


def test_an_engine_for_cpus_does_not_run_elsewhere_instead(
    supervisor: Supervisor, started: list[tuple[str, list[str]]]
) -> None:
    supervisor._start.on_cpu = True
    with pytest.raises(
        SliceError, match="slice MIG-a1 cannot be used: the installed vLLM is the one for CPUs"
    ):
        supervisor._start.make(MODEL, supervisor.metrics)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0" and not started


def test_an_engine_without_a_slice_looks_for_none(
    supervisor: Supervisor, started: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning, "read_machine", None)
    supervisor._start.on_slice = None
    make(supervisor)
    ((device, argv),) = started
    assert device == "0" and argv[argv.index("--kv-cache-memory-bytes") + 1] == str(MODEL.kv_cache_bytes)


def test_a_host_gives_its_slice_to_its_engine() -> None:
    pool = Pool("small", Strategy.MIG, ("base",), 2, (), ("t",), mig=Mig("3", "1g.18gb", 2))
    fleet = Fleet({"base": MODEL}, {}, {}, {"small": pool})
    hosts = [host_of(fleet, pool, place, token="token", withheld=()) for place in pool.hosts]
    assert [host._supervisor._start.on_slice for host in hosts if isinstance(host, EngineHost)] == [
        SliceName(gpu="3", profile="1g.18gb", number=number) for number in (0, 1)
    ]


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


def cache_of(model: BaseModel) -> int | None:
    return pin(NAME, model, on_cpu=False).model.kv_cache_bytes


@pytest.mark.usefixtures("machine")
def test_slots_of_adapters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch, 2**30, ((4096, 4096, 0), (None, 1024, 4)))
    plain = BaseModel("base", "/models/base")
    with_slots = BaseModel("base", "/models/base", max_loras=8, max_lora_rank=64)
    without, left = cache_of(plain), cache_of(with_slots)
    assert without is not None and left is not None
    assert without - left == (8192 + 4 * 1024) * 64 * 8 * 2


@pytest.mark.usefixtures("machine")
def test_an_engine_measures_what_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    knows(monkeypatch, None)
    assert cache_of(BaseModel("base", "org/base")) is None
    knows(monkeypatch, 2**30)
    resized = BaseModel("base", "/models/base", vllm_args=("--quantization", "fp8"))
    assert cache_of(resized) is None
    assert cache_of(BaseModel("base", "/models/base")) is not None


def test_why_the_driver_tells_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> Machine:
        raise NoNvml("the NVIDIA driver is not loaded")

    monkeypatch.setattr(pinning, "read_machine", silent)
    with pytest.raises(SliceError, match="slice MIG-a1 is not there: the NVIDIA driver is not loaded"):
        pin(NAME, MODEL, on_cpu=False)


def test_every_process_that_vllm_starts_corrects_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(logs, "set_up", lambda: done.append("log"))
    monkeypatch.setattr(vllm_guard, "correct_vllm", lambda: done.append("corrected"))
    runpy.run_path(engine_process.__file__, run_name="__mp_main__")
    assert done == ["log", "corrected"]
