"""One host with real engines, whose ways from one model to another are taken one at a time."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from adapters.checkpoint import inspect_adapter
from adapters.store import VersionStore
from benchmarks.switches.report import Memory, Switch
from benchmarks.tools import ToolError
from engines.assembly import folders_of, host_of
from engines.health import EngineState
from engines.memory import memory_of_host
from engines.protocol import ADAPTER_HEADER, MODEL_HEADER, TOKEN_HEADER, EngineOrder
from engines.residency import DesiredAdapters, EngineAdapter
from engines.shared_host import SharedHost
from engines.switching.holding import host_memory
from fleet.file import FleetFile

TOKEN = "token of the benchmark"
COMES_WITHIN_S = 240.0  # a cold start on a loaded machine
QUESTION = "What are your opening hours?"
_LOOK_INTERVAL_S = 0.002


class Host:
    """A host of some models, one awake at a time; nothing of it is left once it is stopped."""

    def __init__(self, folder: Path, models: Mapping[str, Path], *, on_cpu: bool, slots: int) -> None:
        file = folder / "fleet.yaml"
        declared = _fleet(models, on_cpu=on_cpu, slots=slots) | {"state": {"folder": str(folder / "state")}}
        file.write_text(json.dumps(declared))  # which is YAML, too
        fleet, _ = FleetFile(file, None).load()
        (pool,) = fleet.pools.values()
        made = host_of(fleet, pool, pool.hosts[0], token=TOKEN, withheld=())
        if not isinstance(made, SharedHost):
            raise ToolError("the fleet has no host that is shared")
        self.app = made
        self.on_cpu = on_cpu
        self.now: str | None = None
        self._told = 0  # sets of adapters
        self._store = VersionStore(folders_of(fleet).own)
        self._ways = {way.name: way for way in made.places.ways}
        self._memory = memory_of_host(on_cpu=on_cpu)

    async def __aenter__(self) -> Host:
        await self.app.start()
        supervisors = self.app.supervisors.values()
        await self._until(lambda: not any(one.is_awake for one in supervisors), "the host's start")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    async def go(self, model: str, *ways: str) -> Switch:
        """Bring a model in the place of the one that is awake, by one of some ways. Raises `ToolError`."""
        places = self.app.places
        places.ways = tuple(self._ways[way] for way in ways) if ways else tuple(self._ways.values())
        began_s = time.monotonic()
        places.follow(model, EngineOrder.START, self.now)
        await self._until(lambda: not places.is_switching, f"the switch to {model}")
        health = places.health(model)
        if health.state is not EngineState.READY or health.place is None:
            raise ToolError(f"{model} does not come by {', '.join(ways)}: {health.reason}")
        self.now = model
        ready_s = time.monotonic() - began_s
        await self.ask(max_tokens=1)
        return Switch(health.place.way, ready_s, time.monotonic() - began_s)

    async def read_all(self) -> None:
        """Wait until the models' files are known, without which none comes in place."""
        await self.app.turns.read_all()

    async def ask(self, question: str = QUESTION, *, model: str = "", max_tokens: int = 24) -> str:
        """Return the greedy answer of the model that is awake, or of an adapter on it."""
        body = {
            "model": model or self.now,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        headers = {**self.headers(), **({ADAPTER_HEADER: model} if model else {})}
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://host", timeout=120) as client:
            answer = await client.post("/v1/chat/completions", json=body, headers=headers)
        if answer.status_code != 200:
            raise ToolError(f"{body['model']} answers {answer.status_code}: {answer.text[:300]}")
        return str(answer.json()["choices"][0]["message"]["content"])

    def headers(self) -> dict[str, str]:
        """The headers with which the host is asked for the model that is awake."""
        return {TOKEN_HEADER: TOKEN, MODEL_HEADER: str(self.now)}

    async def tell(self, adapters: Mapping[str, Path]) -> None:
        """Have the model that is awake load adapters; return once they are there."""
        supervisor = self.app.supervisors[str(self.now)]
        desired = tuple(EngineAdapter(name, self._stored(folder)) for name, folder in adapters.items())
        self._told += 1
        supervisor.reconciler.desire(DesiredAdapters(self._told, desired))
        await self._until(lambda: set(adapters) <= set(_loaded(supervisor)), "the adapters")

    def _stored(self, folder: Path) -> str:
        """Put an adapter's files where a gateway would have them; return their digest."""
        digest = inspect_adapter(folder).digest
        shutil.copytree(folder, self._store.folder_of(digest), dirs_exist_ok=True)
        return digest

    def memory(self, when: str) -> Memory:
        """Measure now."""
        return Memory(when, self._memory.used_bytes(), host_memory().available_bytes)

    def failed_checks(self) -> int:
        """How many answers differed after a switch."""
        return sum(one.metrics.switching.failures for one in self.app.supervisors.values())

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(COMES_WITHIN_S):
                while not condition():  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_INTERVAL_S)
        except TimeoutError:
            raise ToolError(f"{what} took more than {COMES_WITHIN_S:g} s") from None


def _loaded(supervisor: Any) -> list[str]:
    running = supervisor.running
    return [] if running is None or running.loader is None else list(running.loader.host)


def _fleet(models: Mapping[str, Path], *, on_cpu: bool, slots: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "dtype": "auto",
        "max_model_len": 512,
        "kv_cache_gib": 0.25,
        **({"max_loras": slots, "max_lora_rank": 8} if slots else {}),
        **({"vllm_args": ["--enforce-eager"]} if on_cpu else {}),
    }
    return {
        "base_models": {name: {"source": str(folder), **settings} for name, folder in models.items()},
        "tenants": {"bench": {"api_keys": [{"sha256": "0" * 64}], "models": {name: name for name in models}}},
        "pools": {
            "mesh": {
                "strategy": "model-mesh",
                "base_models": list(models),
                "awake": 1,
                "sleep": not on_cpu,
                "tenants": ["bench"],
            }
        },
    }
