"""Real engines at one host that take turns, in a process of their own; prints what happened as JSON.

    python -m tests.e2e.turning SCENARIO FLEET

A process of its own, since vLLM starts others that run this one's main module first. Only the gateway and
BentoML are missing: orders and requests come from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from adapters.checkpoint import inspect_adapter
from engines.assembly import host_of
from engines.health import EngineState
from engines.protocol import EngineOrder
from engines.residency import DesiredAdapters, EngineAdapter
from engines.shared_host import SharedHost
from engines.supervisor import Supervisor
from fleet.file import FleetFile
from tests.processes import left_of, runs

QUESTIONS = ("What are your opening hours?", "Where is my order?", "How can I pay?")
TURNS = int(os.environ.get("TENANTRY_TURNS", "20"))
COMES_WITHIN_S = 240.0  # a cold start on a loaded machine


class Turning:
    """One host, and its orders."""

    def __init__(self, fleet_file: Path) -> None:
        fleet, _ = FleetFile(fleet_file, None).load()
        (pool,) = fleet.pools.values()
        made = host_of(fleet, pool, pool.hosts[0], token="t", withheld=())
        assert isinstance(made, SharedHost)
        self.host, self.turns = made, made.turns
        self.now: str | None = None

    def __getitem__(self, model: str) -> Supervisor:
        return self.host.supervisors[model]

    @property
    def running(self) -> Any:
        """What runs of the model that is awake."""
        assert self.now is not None
        running = self[self.now].running
        assert running is not None
        return running

    async def go(self, model: str) -> dict[str, Any]:
        """Bring a model in the place of the one that is awake; say how."""
        began_s = time.monotonic()
        self.host.places.follow(model, EngineOrder.START, self.now)
        health = self.host.places.health
        await until(lambda: health(model).state is EngineState.READY and not self.is_switching())
        self.now = model
        place = self.host.places.health(model).place
        assert place is not None
        return {"model": model, "way": place.way, "seconds": round(time.monotonic() - began_s, 3)}

    def is_switching(self) -> bool:
        """Whether a model comes."""
        return self.host.places.is_switching

    async def read_all(self) -> None:
        """Wait until every model's files have been read."""
        await self.turns.read_all()

    async def tell(self, *adapters: tuple[str, str]) -> None:
        """Have the model that is awake load adapters (id, folder)."""
        assert self.now is not None
        desired = tuple(EngineAdapter(name, self._stored(Path(folder))) for name, folder in adapters)
        self[self.now].reconciler.desire(DesiredAdapters(1, desired))
        await until(lambda: set(self.running.loader.host) == {name for name, _ in adapters})

    def _stored(self, folder: Path) -> str:
        """Put an adapter's files where this machine's gateway would have them; return their digest."""
        digest = inspect_adapter(folder).digest
        assert self.now is not None
        files = self[self.now].files
        assert files is not None
        shutil.copytree(folder, files._copies.own.folder_of(digest), dirs_exist_ok=True)
        return digest

    async def ask(
        self, question: str = QUESTIONS[0], *, salt: str = "tenant", model: str | None = None
    ) -> dict[str, Any]:
        """Ask over vLLM's app, as the gateway does."""
        transport = httpx.ASGITransport(app=self.running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=120) as client:
            body = {
                "model": model or self.now,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 24,
                "temperature": 0,
                "logprobs": True,
                "cache_salt": salt,
            }
            answer: dict[str, Any] = (await client.post("/v1/chat/completions", json=body)).json()
            return answer

    async def says(self, question: str = QUESTIONS[0], model: str | None = None) -> str:
        """The text of an answer, or the error."""
        answer = await self.ask(question, model=model)
        return str(answer["choices"][0]["message"]["content"]) if "choices" in answer else json.dumps(answer)

    async def answers(self) -> list[Any]:
        """Text and log-probabilities of the answers to all questions."""
        found = []
        for question in QUESTIONS:
            choice = (await self.ask(question, salt=str(time.monotonic_ns())))["choices"][0]
            logged = [token["logprob"] for token in choice["logprobs"]["content"]]
            found.append([choice["message"]["content"], logged])
        return found

    def core(self) -> psutil.Process:
        """The core of the engine that runs."""
        return psutil.Process(self.running.engine.engine_core.resources.engine_manager.processes[0].pid)

    def checks_failed(self) -> int:
        """How many checks have failed at this host."""
        return sum(one.metrics.switching.failures for one in self.host.supervisors.values())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, as long as a cold start takes on a loaded machine. Raises `TimeoutError`."""
    async with asyncio.timeout(COMES_WITHIN_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def memory_mib() -> list[int]:
    """Memory of this process and of each below it, in MiB; shared pages by their part."""
    gc.collect()
    own = psutil.Process()
    return [p.memory_full_info().pss // 2**20 for p in [own, *own.children(recursive=True)]]


async def turns(host: Turning) -> dict[str, Any]:
    """Each model alone, then many turns of the two that are of one shape."""
    await host.go("support")
    alone = {"support": await host.answers()}
    await host.read_all()
    other_shape = await host.go("qwen")
    cold = await host.go("sales")
    alone["sales"] = await host.answers()
    reloaded = await host.go("support")
    seen, memory = [await host.answers() == alone["support"]], []
    ways = []
    for turn in range(TURNS):
        model = ("sales", "support")[turn % 2]
        ways.append(await host.go(model))
        seen.append(await host.answers() == alone[model])
        memory.append(memory_mib())
    unknown = await host.says(model="sales" if host.now == "support" else "support")
    return {
        "other_shape": other_shape, "cold": cold, "reloaded": reloaded, "ways": ways, "same": seen,
        "memory_mib": memory, "says": {model: answers[0][0] for model, answers in alone.items()},
        "other_name": unknown, "checks_failed": host.checks_failed(),
    }  # fmt: skip


async def cache(host: Turning) -> dict[str, Any]:
    """A long prompt asked of A, B and A again: with the models' salts, then with one salt for both."""
    question = " ".join(["Where is my order?"] * 40) + " " + QUESTIONS[0]
    result: dict[str, Any] = {}
    await host.go("support")
    await host.read_all()

    async def around(kind: str) -> None:
        for model in ("support", "sales", "support"):
            await host.go(model)
            answer = await host.ask(question, salt=kind)
            cached = answer["usage"]["prompt_tokens_details"] or {}
            said = answer["choices"][0]["message"]["content"]
            result.setdefault(kind, []).append([model, said, cached.get("cached_tokens") or 0])

    await around("parted")
    (live,) = host.turns._live.values()
    assert live._salting is not None
    host.running.engine.engine_core.add_request_async = live._salting._send  # as if models were not parted
    await around("shared")
    return result


async def spoiled(host: Turning) -> dict[str, Any]:
    """Reloads that fail in the middle, a core that is killed then, an answer that is another."""
    result: dict[str, Any] = {}
    await host.go("support")
    await host.read_all()
    result["alone"] = await host.says()
    # The worker finds files that are cut short: it has begun to take its weights apart by then.
    library, core = host.turns._library, host.core()
    sales = host.turns._models["sales"]
    broken = Path(tempfile.mkdtemp())
    assert sales.folder is not None
    shutil.copytree(sales.folder, broken, dirs_exist_ok=True)
    os.truncate(broken / "model.safetensors", 100_000)
    identity = library.identity
    known = identity(sales)
    assert known is not None
    cut_short = replace(known, folder=broken)
    library.identity = lambda model: cut_short if model is sales else identity(model)  # type: ignore[method-assign]
    result["mid_reload"] = [await host.go("sales"), await host.says()]
    library.identity = identity  # type: ignore[method-assign]
    shutil.rmtree(broken)
    result["half_loaded_is_gone"] = not runs(core)
    result["after_mid_reload"] = [await host.go("support"), await host.says()]
    # The core is killed while the weights are to be exchanged.
    core = host.core()
    core.suspend()
    going = asyncio.create_task(host.go("sales"))
    await until(lambda: host.is_switching() and host["support"].running is None)
    core.kill()
    result["killed"] = [await going, await host.says()]
    # What the other one answered at first is said to have been something else.
    result["before_wrong"] = await host.go("support")
    for kept in host.turns._check._kept.values():
        kept.of_model = (1, 2, 3)
    result["wrong"] = [await host.go("sales"), await host.says(), host.checks_failed()]
    return result


async def adapters(host: Turning) -> dict[str, Any]:
    """An adapter on one of two models: gone with its model, checked when that one is back."""
    demo = Path(os.environ["TENANTRY_DEMO_FOLDER"])
    adapter = ("globex/support@1", str(demo / "adapters" / "globex-support"))
    await host.go("support")
    await host.read_all()
    await host.tell(adapter)
    of_adapter = await host.says(model=adapter[0])
    result: dict[str, Any] = {"first": of_adapter, "ways": [await host.go("sales")]}
    result["unknown_to_the_other"] = await host.says(model=adapter[0])
    result["host_of_the_other"] = list(host.running.loader.host)
    kept = [one.adapter.id for one in host.turns._check._kept.values() if one.adapter is not None]
    result["kept"] = kept
    result["ways"].append(await host.go("support"))
    await host.tell(adapter)
    result["again"] = await host.says(model=adapter[0])
    for one in host.turns._check._kept.values():
        if one.adapter is not None:
            one.of_adapter = (1, 2, 3)
    await host.go("sales")
    result["wrong"] = [await host.go("support"), host.checks_failed()]
    return result


async def forked(host: Turning) -> dict[str, Any]:
    """Engines from the fork server, from nothing, and after either of them was killed."""
    forks = host.host._forks
    assert forks is not None
    result: dict[str, Any] = {"first": await host.go("support"), "says": [await host.says()]}
    result["by_turns"] = [await host.go(model) for model in ("qwen", "support", "qwen", "support")]
    result["says"].append(await host.says())

    def shared_memory() -> set[str]:
        below = psutil.Process().children(recursive=True)
        return {one.path for p in below for one in p.memory_maps() if one.path.startswith("/dev/shm/")}

    async def killed(pid: int) -> list[Any]:
        result.setdefault("shared_memory", []).extend(shared_memory())
        deaths, began_s = host.host.places.health("support").deaths, time.monotonic()
        os.kill(pid, signal.SIGKILL)
        health = host.host.places.health
        await until(lambda: health("support").deaths > deaths and health("support").state == "ready")
        return [round(time.monotonic() - began_s, 3), await host.says()]

    server = forks._report()["pid"]
    result["core_killed"] = await killed(host.core().pid)
    result["server_killed"] = await killed(server)
    result["another_server"] = forks._report()["pid"] != server
    result["server_mib"] = psutil.Process(forks._report()["pid"]).memory_full_info().pss // 2**20
    forks._fault, forks._faulty_until_s = "it is said to be no good", math.inf
    result["cold"] = [await host.go("qwen"), await host.go("support")]
    return result


SCENARIOS: dict[str, Callable[[Turning], Coroutine[Any, Any, dict[str, Any]]]] = {
    "turns": turns, "cache": cache, "spoiled": spoiled, "adapters": adapters,
    "forked": forked,
}  # fmt: skip


async def main() -> None:
    """Run one scenario; end everything, whatever comes of it."""
    host = Turning(Path(sys.argv[2]))
    await host.host.start()
    await until(lambda: not any(one.is_awake for one in host.host.supervisors.values()))
    result: dict[str, Any] = {}
    below: list[psutil.Process] = []
    try:
        result = await SCENARIOS[sys.argv[1]](host)
    finally:
        below = psutil.Process().children(recursive=True)
        await host.host.stop()
    left = []
    for process in await asyncio.to_thread(left_of, below, within_s=10.0):
        with contextlib.suppress(psutil.Error):
            if "resource_tracker" not in " ".join(process.cmdline()):
                left.append(process.name())
    sys.stdout.write(f"\nRESULT {json.dumps({**result, 'left': left})}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)
