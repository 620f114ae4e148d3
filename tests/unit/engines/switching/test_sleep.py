"""When may an engine sleep, at which level, and what is vLLM told? Fakes; vLLM sleeps on GPUs alone."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.switching import sleep as module
from engines.switching.holding import MIN_RESERVE_BYTES, HostMemory
from engines.switching.library import Library
from engines.switching.live import LiveEngine, WaySpoiled
from engines.switching.sleep import Sleep
from tests.unit.engines.switching.engine import FakeEngine, live, studied


class Sleeper:
    """An engine of one model, and the memory of its machine."""

    def __init__(self, library: Library, one: LiveEngine) -> None:
        self.live = one
        self.spare_bytes = 2**30
        self.sleep = Sleep(library, lambda: HostMemory(2**32, MIN_RESERVE_BYTES + self.spare_bytes))

    @property
    def engine(self) -> FakeEngine:
        engine: FakeEngine = self.live.engine
        return engine

    def level(self, *, has_slots: bool = False) -> int:
        return self.sleep.level(self.live, has_slots=has_slots)


@pytest.fixture
async def sleeper(tmp_path: Path) -> Sleeper:
    library = Library()
    models = await studied(library, tmp_path, "a")
    return Sleeper(library, live(library, models["a"]))


async def test_at_level_1_weights_wait_in_pinned_memory_and_all_wakes_at_once(sleeper: Sleeper) -> None:
    assert sleeper.level() == 1
    await sleeper.sleep.sleep(sleeper.live, 1)
    await sleeper.sleep.wake(sleeper.live, 1)
    assert sleeper.engine.calls == ["sleep 1 wait", "wake all"]


async def test_at_level_2_weights_are_read_before_the_kv_cache_is_there(sleeper: Sleeper) -> None:
    sleeper.spare_bytes = 10
    assert sleeper.level() == 2
    await sleeper.sleep.sleep(sleeper.live, 2)
    await sleeper.sleep.wake(sleeper.live, 2)
    assert sleeper.engine.calls == ["sleep 2 wait", "wake weights", "reload_weights", "wake kv_cache"]


async def test_what_would_be_pinned_is_counted_before_and_what_is_pinned_is_not_counted_twice(
    sleeper: Sleeper,
) -> None:
    sleeper.spare_bytes = 10
    assert sleeper.level(has_slots=True) == 0, "level 2 with slots for adapters crashes in vLLM"
    sleeper.spare_bytes = 2**30
    assert sleeper.level(has_slots=True) == 1
    await sleeper.sleep.sleep(sleeper.live, 1)
    sleeper.spare_bytes = 10
    assert sleeper.level() == 1, "vLLM keeps what it has pinned"
    sleeper.sleep.ended(sleeper.engine)
    assert sleeper.level() == 2


def hybrid(sleeper: Sleeper) -> None:
    sleeper.engine.vllm_config.model_config.is_hybrid = True


def without_sleep_mode(sleeper: Sleeper) -> None:
    sleeper.engine.vllm_config.model_config.enable_sleep_mode = False


def fp8_cache(sleeper: Sleeper) -> None:
    sleeper.engine.vllm_config.cache_config.cache_dtype = "fp8_e5m2"


def no_text(sleeper: Sleeper) -> None:
    sleeper.live.tasks = ("embed",)


def unknown(sleeper: Sleeper) -> None:
    sleeper.live.identity = None


def changed_files(sleeper: Sleeper) -> None:
    assert sleeper.live.model.folder is not None
    (sleeper.live.model.folder / "config.json").write_text("{}")


@pytest.mark.parametrize("change", [hybrid, without_sleep_mode, fp8_cache, no_text, unknown, changed_files])
async def test_what_might_not_wake_as_it_was_ends_instead(
    sleeper: Sleeper, change: Callable[[Sleeper], None]
) -> None:
    change(sleeper)
    assert sleeper.level() == 0


@pytest.mark.parametrize("call", ["wake weights", "reload_weights", "wake kv_cache"])
async def test_an_engine_that_fails_in_the_middle_is_fit_for_nothing(sleeper: Sleeper, call: str) -> None:
    sleeper.engine.fails[call] = RuntimeError("CUDA error: out of memory")
    with pytest.raises(WaySpoiled, match="out of memory"):
        await sleeper.sleep.wake(sleeper.live, 2)


async def test_an_engine_that_dies_or_hangs_is_not_waited_for(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WITHIN_S", 0.02)
    sleeper.engine.hangs.add("sleep 1 wait")
    with pytest.raises(WaySpoiled, match="does not sleep at level 1"):
        await sleeper.sleep.sleep(sleeper.live, 1)
    monkeypatch.setattr(module, "WITHIN_S", 60.0)
    sleeper.engine.hangs.add("wake all")
    sleeper.engine.errored = True
    with pytest.raises(WaySpoiled, match="died"):
        await sleeper.sleep.wake(sleeper.live, 1)


def arguments(source: Path, name: str) -> list[str]:
    """The parameters of a method in a file of the installed vLLM."""
    functions = [
        node
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    return [one.arg for one in functions[0].args.args]


def test_the_installed_vllm_has_these_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vllm")
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    folder = Path(spec.origin).parent
    assert arguments(folder / "v1/engine/async_llm.py", "sleep") == ["self", "level", "mode"]
    assert arguments(folder / "v1/engine/async_llm.py", "wake_up") == ["self", "tags"]
    assert '"--enable-sleep-mode"' in (folder / "engine/arg_utils.py").read_text()
    settings = (folder / "config/model.py").read_text()
    assert "enable_sleep_mode: bool" in settings and "def is_hybrid(" in settings
    starting = (folder / "v1/engine/utils.py").read_text()  # where a core is forked
    assert "target=EngineCoreProc.run_engine_core" in starting and "context = get_mp_context()" in starting
