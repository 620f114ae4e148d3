"""A stand-in for a running engine that takes turns: what it was told, and what it answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engines.switching.library import Library
from engines.switching.live import LiveEngine, Model
from tests.unit.engines.switching.test_shape import whole_model


class FakeEngine:
    """Stands for vLLM's AsyncLLM; `fails` are calls that raise, `hangs` those that never return."""

    def __init__(self) -> None:
        self.errored = False
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.hangs: set[str] = set()
        self.engine_core = SimpleNamespace(add_request_async=self._add)
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(cache_dtype="auto", block_size=16),
            model_config=SimpleNamespace(enable_sleep_mode=True, is_hybrid=False),
            shutdown_timeout=0,
        )
        self.model_config = SimpleNamespace(max_model_len=64, is_multimodal_model=False)
        self.salts: list[str] = []
        self.answer: tuple[int, ...] = (1, 2, 3)

    async def _add(self, request: Any) -> None:
        self.salts.append(request.cache_salt)

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.hangs:
            await asyncio.Event().wait()
        if name in self.fails:
            raise self.fails[name]

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None:
        await self._called(f"pause {mode} {clear_cache}")

    async def resume_generation(self) -> None:
        await self._called("resume")

    async def collective_rpc(self, method: str, args: Any = (), kwargs: Any = None) -> list[Any]:
        await self._called(method)
        return [None]

    async def sleep(self, level: int = 1, mode: str = "abort") -> None:
        await self._called(f"sleep {level} {mode}")

    async def wake_up(self, tags: list[str] | None = None) -> bool:
        await self._called(f"wake {'all' if tags is None else ' '.join(tags)}")
        return True

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(encode=lambda text: [len(text)])

    async def generate(self, prompt: Any, params: Any, request_id: str, **_: Any) -> Any:
        self.calls.append("generate")
        if self.errored:  # vLLM leaves such a request waiting for ever
            await asyncio.Event().wait()
        yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.answer)])


def model(folder: Path, *flags: str) -> Model:
    """A whole model in a folder, with flags beside those that name it."""
    argv = ("--model", str(folder), "--served-model-name", folder.name, "--dtype", "float32", *flags)
    return Model(folder.name, folder, argv)


async def studied(library: Library, folder: Path, *names: str, **config: Any) -> dict[str, Model]:
    """Models that the library knows."""
    models = {name: model(whole_model(folder / name, **config)) for name in names}
    for one in models.values():
        (folder / one.name / "added_tokens.json").write_text("{}")
        assert await library.studied(one) is not None
    return models


def live(library: Library, one: Model, engine: FakeEngine | None = None) -> LiveEngine:
    """An engine that runs with a model."""
    return LiveEngine(engine or FakeEngine(), ("generate",), one, library.identity(one))
