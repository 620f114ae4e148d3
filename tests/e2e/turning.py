"""Real engines that take turns in place, in a process of their own; prints what happened as JSON.

    python -m tests.e2e.turning SCENARIO FOLDER

A process of its own, since vLLM starts others that run this one's main module first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from engines import engine_process, orphans, vllm_engine
from engines.switching.holding import Holding, HostMemory
from engines.switching.in_place import InPlace, Means
from engines.switching.library import Library
from engines.switching.live import LiveEngine, Model, WaySpoiled
from engines.switching.wake_check import WakeCheck
from engines.vllm_args import engine_args, engine_environment
from fleet.types import BaseModel

QUESTION = "What are your opening hours?"
PLENTY = HostMemory(64 * 2**30, 32 * 2**30)
TURNS = int(os.environ.get("TENANTRY_TURNS", "20"))


class Turning:
    """One engine after the other, or one that takes turns, as a supervisor has them."""

    def __init__(self, folder: Path, *, dtype: str = "float32", memory: HostMemory = PLENTY) -> None:
        self.library, self.check = Library(), WakeCheck()
        self.models = {
            path.name: self._model(path, dtype) for path in sorted(folder.iterdir()) if path.is_dir()
        }
        self.in_place = InPlace(self.library, Holding(lambda: memory))
        self.live: LiveEngine | None = None
        self.args: Any = None
        self.app: Any = None
        self.stack = contextlib.AsyncExitStack()

    def _model(self, path: Path, dtype: str) -> Model:
        served = BaseModel(
            path.name, str(path), dtype=dtype, max_model_len=512, max_loras=2, max_cpu_loras=4,
            kv_cache_bytes=2**28, max_lora_rank=8, vllm_args=("--enforce-eager",),
        )  # fmt: skip
        os.environ.update(engine_environment(served, on_cpu=True))
        return Model(path.name, path, tuple(engine_args(served, shutdown_grace_s=2.0, on_cpu=True)))

    async def go(self, name: str) -> dict[str, Any]:
        """Bring a model by the cheapest legal way; say how."""
        model, began_s = self.models[name], time.monotonic()
        reasons: list[list[str]] = []
        for means in Means if self.live is not None else ():
            live = self.live
            assert live is not None
            if reason := self.in_place.why_not(means, live, model):
                reasons.append([means, reason])
                continue
            try:
                await self.in_place.exchange(means, live, model)
                exchanged_s = time.monotonic() - began_s
                await self.serve(vllm_engine.args_for(self.args, name, str(model.folder)))
                await self.check.verify(live, is_new=False)
                return {"model": name, "way": means, "exchange_s": round(exchanged_s, 3),
                        "seconds": round(time.monotonic() - began_s, 3), "reasons": reasons}  # fmt: skip
            except WaySpoiled as error:
                reasons.append([means, str(error)])
                await self.end(at_once=True)
                break
        await self.start(model)
        return {
            "model": name,
            "way": "cold",
            "seconds": round(time.monotonic() - began_s, 3),
            "reasons": reasons,
        }

    async def start(self, model: Model) -> None:
        """Start an engine, in the place of one that runs."""
        await self.end()
        os.environ.update(orphans.mark("turning"))
        engine_process.become_main_of_children()
        identity = await self.library.studied(model)
        args, engine = await asyncio.to_thread(vllm_engine.build_engine, model.argv)
        self.live = LiveEngine(engine, await engine.get_supported_tasks(), model, identity)
        await self.serve(args)
        await self.check.verify(self.live, is_new=True)

    async def serve(self, args: Any) -> None:
        """Make vLLM's app anew over the engine."""
        assert self.live is not None
        await self.stack.aclose()
        self.args = args
        self.app = await vllm_engine.start_app(self.stack, args, self.live.engine, self.live.tasks)

    async def end(self, *, at_once: bool = False) -> None:
        """End what runs."""
        if self.live is None:
            return
        if at_once:
            orphans.end_own()
        await self.stack.aclose()
        await asyncio.to_thread(self.live.engine.shutdown, 0 if at_once else 2.0)
        orphans.end_own()
        self.live = None

    async def library_says(self, name: str) -> str:
        """The digest of a model."""
        identity = await self.library.studied(self.models[name])
        return identity.digest if identity else ""

    async def ask(self, *, salt: str = "tenant", model: str | None = None, question: str = QUESTION) -> Any:
        """Ask over vLLM's app, as the gateway does."""
        assert self.live is not None
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=120) as client:
            body = {
                "model": model or self.live.model.name,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 24,
                "temperature": 0,
                "cache_salt": salt,
            }
            return (await client.post("/v1/chat/completions", json=body)).json()

    async def says(self, **wanted: Any) -> str:
        """The text of an answer."""
        answer = await self.ask(**wanted)
        return str(answer["choices"][0]["message"]["content"]) if "choices" in answer else json.dumps(answer)


def memory_mib() -> int:
    """Resident memory of this process and all below it, in MiB; shared pages by their part."""
    import psutil

    own = psutil.Process()
    return sum(p.memory_full_info().pss for p in [own, *own.children(recursive=True)]) // 2**20


async def turns(folder: Path) -> dict[str, Any]:
    """Each model alone, then many turns among all three, in place where that is legal."""
    turning, alone, seen = Turning(folder), {}, []
    for name in ("a", "b", "c"):
        await turning.go(name)
        alone[name] = await turning.says()
        await turning.end()
    first = [await turning.go("a"), await turning.go("b"), await turning.go("a")]
    memory = []
    for turn in range(TURNS):
        how = await turning.go("ba"[turn % 2])
        seen.append({**how, "says": await turning.says()})
        memory.append(memory_mib())
    other_name = await turning.ask(model="b" if turning.live and turning.live.model.name == "a" else "a")
    shape = await turning.go("c")
    says_c = await turning.says()
    await turning.end()
    return {
        "alone": alone, "first": first, "turns": seen, "memory_mib": memory,
        "other_name": other_name, "other_shape": shape, "says_c": says_c, "left": left_behind(),
    }  # fmt: skip


def left_behind() -> list[str]:
    """Processes below this one that should have ended."""
    import psutil

    left = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(
                process.cmdline()
            ):
                left.append(process.name())
    return left


async def cache(folder: Path) -> dict[str, Any]:
    """A long prompt asked of A, B and A again: with the models' salts, then with one salt for both."""
    turning = Turning(folder)
    question = " ".join(["Where is my order?"] * 40) + " " + QUESTION
    result: dict[str, Any] = {}

    async def round_of(kind: str) -> None:
        for step in ("a", "b", "a"):
            await turning.go(step)
            answer = await turning.ask(question=question, salt=kind)
            cached = answer["usage"]["prompt_tokens_details"] or {}
            result.setdefault(kind, []).append(
                [answer["choices"][0]["message"]["content"], cached.get("cached_tokens") or 0]
            )

    await round_of("parted")
    assert turning.live is not None and turning.live._salting is not None
    kept, turning.live._salting._send = turning.live._salting._send, turning.live._salting._send
    turning.live.engine.engine_core.add_request_async = kept  # as if the models were not parted
    await round_of("shared")
    await turning.end()
    return result


async def spoiled(folder: Path) -> dict[str, Any]:
    """A reload that fails in the middle; an answer that is another; a file that is written meanwhile."""
    turning = Turning(folder)
    result: dict[str, Any] = {"alone": {}}
    await turning.go("a")
    result["alone"]["a"] = await turning.says()
    former = turning.live
    assert former is not None
    core = former.engine.engine_core.resources.engine_manager.processes[0].pid
    # The shapes are said to be the same: the worker finds out when a part of the weights is in.
    alike, turning.library.why_not_alike = turning.library.why_not_alike, lambda *_: ""  # type: ignore[method-assign]
    result["mid_reload"] = await turning.go("c")
    turning.library.why_not_alike = alike  # type: ignore[method-assign]
    result["former_core_is_gone"] = not is_running(core)
    result["says_c"] = await turning.says()
    result["back"] = await turning.go("a")
    result["a_again"] = await turning.says()
    # What A answered at first is said to have been something else.
    await turning.go("b")
    for key in turning.check._answers:
        turning.check._answers[key] = (1, 2, 3)
    result["wrong_answer"] = await turning.go("a")
    result["a_at_last"] = await turning.says()
    # A file of B is written anew: it is other content, and nothing of the former is used.
    result["before"] = await turning.library_says("b")
    config = folder / "b" / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    assert turning.live is not None
    result["changed"] = turning.in_place.why_not(Means.RELOAD, turning.live, turning.models["b"])
    await turning.library.studied(turning.models["b"])
    result["after"] = await turning.library_says("b")
    await turning.end()
    result["left"] = left_behind()
    return result


def is_running(pid: int) -> bool:
    """Whether a process runs."""
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def costs(folder: Path) -> dict[str, Any]:
    """Seconds of each way with 603 MiB models, to the first token."""
    turning = Turning(folder, dtype="bfloat16")
    result = []
    for name in ("large1", "large2", "large1", "large2", "large1", "large2"):
        how = await turning.go(name)
        began_s = time.monotonic()
        await turning.says()
        result.append({**how, "answer_s": round(time.monotonic() - began_s, 3)})
    await turning.end()
    return {"switches": result}


SCENARIOS: dict[str, Callable[[Path], Coroutine[Any, Any, dict[str, Any]]]] = {
    "turns": turns, "cache": cache, "spoiled": spoiled, "costs": costs,
}  # fmt: skip

if __name__ == "__main__":
    said = asyncio.run(SCENARIOS[sys.argv[1]](Path(sys.argv[2])))
    sys.stdout.write("\nRESULT " + json.dumps(said) + "\n")
    sys.stdout.flush()
    os._exit(0)
