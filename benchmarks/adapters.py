"""What do adapters cost an engine? `python -m benchmarks.adapters` drives one real engine without a gateway.

Random traffic over many more adapters than the engine has slots or places, every answer compared with what
the same adapter answered alone; then a running stream while adapters are loaded, for how long decoding stands
still, with and without their files in the page cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from rich.console import Console
from safetensors.numpy import load_file, save_file

from adapters.layout import CONFIG_FILE, SERVED_FILES, WEIGHTS_FILE
from adapters.store import VersionStore
from benchmarks.fleet import demo_adapter
from benchmarks.machine import origin
from benchmarks.processes import end_on_sigterm, free_port, start, stop
from demo import bulk
from demo.answers import QUESTIONS
from engines import protocol
from engines.residency import DesiredAdapters, EngineAdapter, Residency, TrialReport

STORE = "adapters"  # the folder with the adapters' files
START_TIMEOUT_S = 600.0
STALL_ADAPTERS = 20
SHAKE = 0.1  # relative change of the weights, so that every two adapters can be told apart
# Nobody was trained on it, so that every adapter goes on in its own way, and unsure of it.
QUESTION = "Zebra lamp seven over the moon and"
TOKENS = 8
TOLERANCE = 1e-5  # of a log-probability, between the same adapter alone and in a batch of others; float32
Answer = tuple[str, tuple[float, ...]]  # text, log-probability of each token


def make_adapters(store: Path, count: int) -> list[EngineAdapter]:
    """Write copies of the demo's adapters into a store, no two alike; name them as a gateway would."""
    made = []
    for index in range(count):
        source = demo_adapter(index)
        adapter = named(f"bench/{bulk.name(index)}@{index:016x}")
        target = folder_in(store, adapter)
        chance = np.random.default_rng(index)
        weights = {
            name: tensor * (1 + SHAKE * chance.standard_normal(tensor.shape, dtype=np.float32))
            for name, tensor in sorted(load_file(source / WEIGHTS_FILE).items())
        }
        target.mkdir(parents=True)
        save_file(weights, target / WEIGHTS_FILE, metadata={"format": "pt"})
        shutil.copyfile(source / CONFIG_FILE, target / CONFIG_FILE)
        made.append(adapter)
    return made


def named(adapter_id: str) -> EngineAdapter:
    """An adapter of that id, whose digest is made up: an engine does not check what is in a store."""
    return EngineAdapter(adapter_id, hashlib.sha256(adapter_id.encode()).hexdigest())


def folder_in(store: Path, adapter: EngineAdapter) -> Path:
    """The folder of an adapter's files in a store."""
    return VersionStore(store).folder_of(adapter.digest)


class EngineClient:
    """Speaks to one engine as the gateway does."""

    def __init__(self, url: str, token: str) -> None:
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(
            base_url=url, headers={protocol.TOKEN_HEADER: token}, timeout=120, limits=limits
        )
        self._revision = 0

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def is_ready(self) -> bool:
        """Whether the engine says it is."""
        try:
            return (await self._http.get(protocol.READY_PATH, timeout=2)).status_code == 200
        except httpx.TransportError:
            return False

    async def tell(self, adapters: Sequence[EngineAdapter]) -> Residency:
        """Say what it may serve."""
        self._revision += 1
        desired = DesiredAdapters(self._revision, tuple(adapters))
        answer = await self._http.put(protocol.ADAPTERS_PATH, json=desired.to_json())
        return Residency.from_json(answer.raise_for_status().json())

    async def residency(self) -> Residency:
        """Ask what it holds."""
        answer = await self._http.get(protocol.ADAPTERS_PATH, timeout=5)
        return Residency.from_json(answer.raise_for_status().json())

    async def trial(self, adapter_id: str) -> TrialReport:
        """Have an adapter tried."""
        answer = await self._http.post(protocol.TRIAL_PATH, json={"id": adapter_id})
        return TrialReport.from_json(answer.raise_for_status().json())

    async def metrics(self) -> str:
        """Its metrics page."""
        return (await self._http.get(protocol.METRICS_PATH)).text

    async def post(self, adapter_id: str | None, **fields: Any) -> httpx.Response:
        """Send a chat; `None` asks the base model."""
        body, headers = chat(adapter_id, **fields)
        return await self._http.post("/v1/chat/completions", json=body, headers=headers)

    async def ask(self, adapter_id: str | None, question: str = QUESTION, tokens: int = TOKENS) -> Answer:
        """Ask one question greedily. Raises httpx's errors."""
        messages = [{"role": "user", "content": question}]
        response = await self.post(adapter_id, messages=messages, max_tokens=tokens, logprobs=True)
        choice = response.raise_for_status().json()["choices"][0]
        return choice["message"]["content"], tuple(t["logprob"] for t in choice["logprobs"]["content"])

    @asynccontextmanager
    async def stream(self, adapter_id: str | None, tokens: int) -> AsyncIterator[AsyncIterator[float]]:
        """A stream of so many tokens; gives the time of each, seconds."""
        body, headers = chat(adapter_id, max_tokens=tokens, stream=True, ignore_eos=True)
        async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            answer.raise_for_status()
            yield _times(answer)


async def _times(answer: httpx.Response) -> AsyncIterator[float]:
    async for line in answer.aiter_lines():
        if line.startswith("data: {"):
            assert "error" not in json.loads(line[6:]), line
            yield time.monotonic()


def chat(adapter_id: str | None, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Body and headers of a chat, as the gateway sends it."""
    body = {
        "model": adapter_id or "tiny-llama",
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        "temperature": 0,
        "max_tokens": 64,
        "priority": 1,
        "cache_salt": secrets.token_hex(8),
    }
    return body | fields, {protocol.ADAPTER_HEADER: adapter_id} if adapter_id else {}


def differs(answer: Answer, reference: Answer) -> bool:
    """Whether an answer is not what the adapter says alone: other words, or other numbers behind them."""
    if answer[0] != reference[0] or len(answer[1]) != len(reference[1]):
        return True
    return max(abs(a - b) for a, b in zip(answer[1], reference[1], strict=True)) > TOLERANCE


def least_difference(references: Sequence[Answer]) -> float:
    """How close the two most similar of these are, where they say the same words."""
    gaps = [
        max(abs(a - b) for a, b in zip(one[1], other[1], strict=True))
        for i, one in enumerate(references)
        for other in references[:i]
        if one[0] == other[0] and len(one[1]) == len(other[1])
    ]
    return min(gaps, default=float("inf"))


@dataclass
class Traffic:
    """What random traffic brought."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    cold_s: list[float] = field(default_factory=list)  # whole answers whose adapter was not in host memory
    warm_s: list[float] = field(default_factory=list)


async def references(client: EngineClient, adapters: Sequence[EngineAdapter]) -> dict[str, Answer]:
    """What each adapter answers alone. Raises `AssertionError` where two could not be told apart."""
    known = {adapter.id: await client.ask(adapter.id) for adapter in adapters}
    assert least_difference(list(known.values())) > 4 * TOLERANCE, "two adapters answer alike"
    return known


async def drive(
    client: EngineClient, known: dict[str, Answer], *, seconds: float, at_once: int, seed: int = 0
) -> Traffic:
    """Ask random adapters for so long, `at_once` requests at a time, and compare every answer."""
    result, chance, end_s = Traffic(), random.Random(seed), time.monotonic() + seconds
    ids = sorted(known)

    async def ask_on() -> None:
        while time.monotonic() < end_s:
            name = chance.choice(ids)
            cold = name not in (await client.residency()).host
            started_s = time.monotonic()
            try:
                answer = await client.ask(name)
            except (httpx.HTTPError, KeyError) as error:
                result.errors.append(f"{name}: {error!r}")
                continue
            (result.cold_s if cold else result.warm_s).append(time.monotonic() - started_s)
            result.answered += 1
            if differs(answer, known[name]):
                result.wrong.append(f"{name}: {answer[0]!r}")

    await asyncio.gather(*(ask_on() for _ in range(at_once)))
    return result


async def stall(
    client: EngineClient, store: Path, running: EngineAdapter, others: Sequence[EngineAdapter], *, load: bool
) -> list[float]:
    """Gaps between the tokens of a running stream, seconds, while the others are loaded one after another."""
    await client.ask(running.id)
    gaps: list[float] = []
    async with client.stream(running.id, 400) as times:
        last_s = await anext(times)
        loading = asyncio.create_task(_load_all(client, store, others if load else ()))
        async for now_s in times:
            if not load or not loading.done():
                gaps.append(now_s - last_s)
            last_s = now_s
        await loading
    return gaps


async def _load_all(client: EngineClient, store: Path, others: Sequence[EngineAdapter]) -> None:
    for adapter in others:
        for file in SERVED_FILES:
            drop_from_page_cache(folder_in(store, adapter) / file)
        await client.ask(adapter.id, tokens=1)


def drop_from_page_cache(path: Path) -> None:
    """Make the next read of a file come from disk. A hint; Linux follows it for pages that are clean."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def quantiles(values: Sequence[float]) -> str:
    """Show p50, p99 and the largest, in milliseconds, and how many there are."""
    if not values:
        return "none"
    ordered = sorted(values)

    def at(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return f"p50 {at(0.5):.1f} ms  p99 {at(0.99):.1f} ms  max {1000 * ordered[-1]:.1f} ms  ({len(ordered)})"


@asynccontextmanager
async def engine(folder: Path, *flags: str) -> AsyncIterator[EngineClient]:
    """Run one engine (benchmarks/engine_host.py) until the block ends."""
    port, token = free_port(), secrets.token_hex(16)
    store = ["--store", str(folder / STORE)]
    command = [sys.executable, "-m", "benchmarks.engine_host", "--port", str(port), *store, *flags]
    child = start(command, folder / f"engine-{port}.log", env={"TENANTRY_BENCH_TOKEN": token})
    client = EngineClient(f"http://127.0.0.1:{port}", token)
    try:
        end_s = time.monotonic() + START_TIMEOUT_S
        while not await client.is_ready():
            if time.monotonic() > end_s:
                raise TimeoutError(f"the engine is not ready; see {folder}")
            await asyncio.sleep(0.5)
        yield client
    finally:
        await client.close()
        stop(child, grace_s=40.0)


async def _measure(console: Console, folder: Path, *, count: int, seconds: float, at_once: int) -> bool:
    store = folder / STORE
    adapters = make_adapters(store, count)
    async with engine(folder) as client:
        await client.tell(adapters)
        known = await references(client, adapters)
        console.print(
            f"{count} adapters, 4 slots, 16 places; closest two differ by "
            f"{least_difference(list(known.values())):.4f}, tolerance {TOLERANCE}"
        )
        result = await drive(client, known, seconds=seconds, at_once=at_once)
        console.print(f"answered   {result.answered} in {seconds:g} s, {at_once} at once")
        console.print(f"wrong      {len(result.wrong)}  {result.wrong[:3]}")
        console.print(f"errors     {len(result.errors)}  {result.errors[:3]}")
        console.print(f"cold       {quantiles(result.cold_s)}")
        console.print(f"warm       {quantiles(result.warm_s)}")
        for line in (await client.metrics()).splitlines():
            if line.startswith("tenantry_adapter") and "_created" not in line:
                console.print(line)
        running, others = adapters[0], adapters[-STALL_ADAPTERS:]
        for other in adapters[1:18]:  # fill every place with others
            await client.ask(other.id)
        for label, load in (("undisturbed     ", False), ("loading, warmed ", True)):
            gaps = await stall(client, store, running, others, load=load)
            console.print(f"{label}   {quantiles(gaps)}")
    async with engine(folder, "--cold-reads") as client:
        await client.tell(adapters[:1])
        await client.ask(running.id)
        await client.tell(adapters)
        await asyncio.sleep(2)  # what is preloaded fills the places
        gaps = await stall(client, store, running, others, load=True)
        console.print(f"loading, unwarmed  {quantiles(gaps)}")
    return not result.wrong and not result.errors


def main(
    seconds: Annotated[float, typer.Option(help="Of random traffic.")] = 180.0,
    adapters: Annotated[int, typer.Option(min=STALL_ADAPTERS + 17, help="Adapters in all.")] = 64,
    at_once: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
) -> None:
    """Drive one engine with far more adapters than it has room for."""
    end_on_sigterm()
    console = Console(highlight=False, soft_wrap=True)
    for line in origin().lines():
        console.print(line)
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as name:
        good = asyncio.run(_measure(console, Path(name), count=adapters, seconds=seconds, at_once=at_once))
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
