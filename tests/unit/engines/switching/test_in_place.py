"""When may an engine's weights be exchanged, what is it told, and what becomes of one where it fails?"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines.switching import in_place as module
from engines.switching.holding import Holding, HostMemory
from engines.switching.in_place import InPlace, Means
from engines.switching.library import Library
from engines.switching.live import LiveEngine, Model, WaySpoiled
from engines.switching.salting import salt_of
from tests.adapter_kinds import base_tensors, raw, safetensors
from tests.fakes import eventually
from tests.unit.engines.switching.engine import FakeEngine, live, model, studied
from tests.unit.engines.switching.test_shape import whole_model

PLENTY = HostMemory(2**40, 2**40)


def fine_tune(one: Model, value: float) -> None:
    """Other weights of the same shape."""
    assert one.folder is not None
    changed = base_tensors() | {"model.norm.weight": raw(np.full(8, value))}
    (one.folder / "model.safetensors").write_bytes(safetensors(changed))


class Host:
    """Two fine-tunes of one shape, one of another, and an engine with the first."""

    def __init__(self, models: dict[str, Model], library: Library, memory: HostMemory) -> None:
        self.models, self.library = models, library
        self.engine = FakeEngine()
        self.live = live(library, models["a"], self.engine)
        self.in_place = InPlace(library, Holding(lambda: memory))

    def why_not(self, means: Means, name: str) -> str:
        return self.in_place.why_not(means, self.live, self.models[name])

    async def go(self, means: Means, name: str) -> None:
        assert self.why_not(means, name) == ""
        await self.in_place.exchange(means, self.live, self.models[name])


async def host_in(folder: Path, memory: HostMemory = PLENTY) -> Host:
    library = Library()
    models = {name: model(whole_model(folder / name)) for name in ("a", "b")}
    models["c"] = model(whole_model(folder / "c", hidden_size=9))
    fine_tune(models["b"], 2.0)
    for one in models.values():
        assert await library.studied(one) is not None
    return Host(models, library, memory)


async def test_a_model_comes_by_reload_and_goes_back_by_put(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    assert host.why_not(Means.PUT, "b") == "its weights are not in host memory"
    await host.go(Means.RELOAD, "b")
    assert host.engine.calls == ["tenantry_hold", "pause wait False", "reload_weights", "resume"]
    host.engine.calls.clear()
    await host.go(Means.PUT, "a")
    assert host.engine.calls == ["tenantry_hold", "pause wait False", "tenantry_put", "resume"]
    host.engine.calls.clear()
    await host.go(Means.PUT, "b")
    assert host.engine.calls == ["pause wait False", "tenantry_put", "resume"], (
        "both are held: nothing is copied"
    )


async def test_the_cache_is_parted_by_models_and_each_finds_its_own_again(tmp_path: Path) -> None:
    host = await host_in(tmp_path)

    async def ask(salt: str | None) -> str:
        await host.engine.engine_core.add_request_async(SimpleNamespace(cache_salt=salt))
        return host.engine.salts[-1]

    of_a = await ask("tenant"), await ask(None)
    await host.go(Means.RELOAD, "b")
    of_b = await ask("tenant"), await ask(None)
    await host.go(Means.PUT, "a")
    assert (await ask("tenant"), await ask(None)) == of_a
    assert len({*of_a, *of_b}) == 4
    assert salt_of("m", salt_of("m", "tenant")) == salt_of("m", "tenant"), "vLLM may send a request's copies"


async def test_another_shape_is_refused_before_the_engine_is_touched(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    for means in Means:
        assert host.why_not(means, "c") == "config.json: 'hidden_size' is 8 and 9"
    assert host.engine.calls == []


async def test_what_an_engine_was_started_with_must_be_the_same(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    b = host.models["b"]
    assert "other flags" in host.in_place.why_not(
        Means.RELOAD, host.live, model(tmp_path / "b", "--seed", "1")
    )
    host.live.tasks = ("embed",)
    assert "no text" in host.in_place.why_not(Means.RELOAD, host.live, b)
    host.live.tasks = ("generate",)
    host.engine.vllm_config.cache_config.cache_dtype = "fp8_e4m3"
    assert "FP8" in host.in_place.why_not(Means.RELOAD, host.live, b)
    host.engine.model_config.is_multimodal_model = True
    assert "other media" in host.in_place.why_not(Means.RELOAD, host.live, b)
    host.engine.errored = True
    assert "dead" in host.in_place.why_not(Means.RELOAD, host.live, b)


async def test_a_model_that_has_not_been_read_or_has_changed_comes_another_way(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    fresh = model(whole_model(tmp_path / "fresh"))
    assert "not been read" in host.in_place.why_not(Means.RELOAD, host.live, fresh)
    nowhere = Model("nowhere", None, fresh.argv)
    assert "not in a folder" in host.in_place.why_not(Means.RELOAD, host.live, nowhere)
    await host.go(Means.RELOAD, "b")
    fine_tune(host.models["a"], 3.0)
    assert "not been read" in host.why_not(Means.PUT, "a")
    assert await host.library.studied(host.models["a"]) is not None
    assert host.why_not(Means.PUT, "a") == "its weights are not in host memory", "those held are the former's"
    assert host.why_not(Means.RELOAD, "a") == ""


async def test_an_engine_whose_own_files_were_changed_is_compared_with_nothing(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    fine_tune(host.models["a"], 3.0)
    assert await host.library.studied(host.models["a"]) is not None
    assert "changed since it read them" in host.why_not(Means.RELOAD, "b")


async def test_an_unreadable_model_is_told_with_its_reason(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    folder = tmp_path / "b"
    (folder / "model.safetensors").write_bytes(b"short")
    assert await host.library.studied(host.models["b"]) is None
    assert "not a safetensors file" in host.why_not(Means.RELOAD, "b")


@pytest.mark.parametrize("call", ["pause wait False", "reload_weights", "resume"])
async def test_whatever_fails_in_the_middle_spoils_the_engine(tmp_path: Path, call: str) -> None:
    host = await host_in(tmp_path)
    host.engine.fails[call] = RuntimeError("shape mismatch")
    with pytest.raises(WaySpoiled, match="shape mismatch"):
        await host.go(Means.RELOAD, "b")


async def test_an_engine_that_dies_or_hangs_in_the_middle_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await host_in(tmp_path)
    host.engine.hangs.add("reload_weights")
    going = asyncio.create_task(host.go(Means.RELOAD, "b"))
    await eventually(lambda: "reload_weights" in host.engine.calls)
    host.engine.errored = True
    with pytest.raises(WaySpoiled, match="the engine died"):
        await going
    host.engine.errored = False
    monkeypatch.setattr(module, "EXCHANGE_WITHIN_S", 0.01)
    with pytest.raises(WaySpoiled, match="TimeoutError"):
        await host.go(Means.RELOAD, "b")


async def test_a_file_that_changes_while_the_engine_reads_spoils_it(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    real = host.engine._called

    async def changing(name: str) -> None:
        await real(name)
        if name == "reload_weights":
            fine_tune(host.models["b"], 5.0)

    host.engine._called = changing  # type: ignore[method-assign]
    with pytest.raises(WaySpoiled, match=r"model\.safetensors was changed"):
        await host.go(Means.RELOAD, "b")


async def test_weights_are_not_held_where_memory_is_short_and_reload_remains(tmp_path: Path) -> None:
    host = await host_in(tmp_path, HostMemory(2**34, 2**30))
    await host.go(Means.RELOAD, "b")
    assert "tenantry_hold" not in host.engine.calls
    assert host.why_not(Means.PUT, "a") == "its weights are not in host memory"
    assert host.why_not(Means.RELOAD, "a") == ""


async def test_a_worker_that_cannot_hold_weights_goes_on(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    host.engine.fails["tenantry_hold"] = RuntimeError("out of memory")
    await host.go(Means.RELOAD, "b")
    assert not host.live.held and host.live.model.name == "b"


async def test_quantised_weights_are_read_anew_and_never_held(tmp_path: Path) -> None:
    library = Library()
    models = await studied(library, tmp_path, "a", "b", quantization_config={"bits": 4})
    engine = FakeEngine()
    one = live(library, models["a"], engine)
    in_place = InPlace(library, Holding(lambda: PLENTY))
    await in_place.exchange(Means.RELOAD, one, models["b"])
    assert "tenantry_hold" not in engine.calls and not one.held


async def test_an_engine_that_began_with_an_unknown_model_takes_no_turns(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    unknown = LiveEngine(FakeEngine(), ("generate",), host.models["a"], None)
    assert "not known" in host.in_place.why_not(Means.RELOAD, unknown, host.models["b"])


async def test_a_library_reads_ahead_and_again_what_has_changed(tmp_path: Path) -> None:
    host = await host_in(tmp_path)
    first = host.library.identity(host.models["a"])
    config = tmp_path / "a" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_cache": False}))
    assert host.library.identity(host.models["a"]) is None
    host.library.study(host.models.values())
    again = await host.library.studied(host.models["a"])
    assert first is not None and again is not None and first.digest != again.digest
    await host.library.close()


async def test_a_model_that_is_waited_for_is_read_before_the_others(tmp_path: Path) -> None:
    library = Library()
    models = {name: model(whole_model(tmp_path / name)) for name in ("a", "b", "c")}
    library.study(models.values())
    assert await library.studied(models["c"]) is not None
    assert library.identity(models["b"]) is None
    assert await library.studied(models["b"]) is not None
    await library.close()


async def test_nothing_is_read_once_the_library_is_closed(tmp_path: Path) -> None:
    library = Library()
    one = model(whole_model(tmp_path / "a"))
    await library.close()
    assert await library.studied(one) is None
    await library.close()
