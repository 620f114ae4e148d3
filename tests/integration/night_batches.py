"""Batches in front of a gateway that is killed: its process, its engines, and what is left of it on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.writer import write_fleet
from tests.fakes import FakeEngine, serving
from tests.integration.test_killed import Life
from tests.integration.test_lifecycle import fleet_in

MODELS = ("support", "sales", "plain")
WAIT_S, END_S = 60.0, 300.0  # a loaded machine of two cores
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class Night(Life):
    """A gateway's process that runs one batch."""

    batch_id: str = ""

    async def start(self) -> None:
        """Start it, and wait until its models answer."""
        await super().start()
        async with asyncio.timeout(WAIT_S), self.client() as client:
            while (await client.get("/health")).status_code != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

    async def submit(self, lines: int) -> None:
        """Upload a file of requests to three models, and begin its batch."""
        content = b"".join(json.dumps(line(number)).encode() + b"\n" for number in range(lines))
        async with self.client("a") as client:
            file = await client.post(
                "/v1/files", data={"purpose": "batch"}, files={"file": ("requests.jsonl", content)}
            )
            assert file.status_code == 200, file.text
            told = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions"}
            batch = await client.post("/v1/batches", json={**told, "completion_window": "24h"})
            assert batch.status_code == 200, batch.text
            self.batch_id = batch.json()["id"]

    async def batch(self) -> dict[str, Any]:
        """Ask for the batch."""
        async with self.client("a") as client:
            answer = await client.get(f"/v1/batches/{self.batch_id}")
            assert answer.status_code == 200, answer.text
            told: dict[str, Any] = answer.json()
            return told

    async def until_answered(self, lines: int) -> dict[str, Any]:
        """Wait until so many lines have their answer, or the batch has ended."""
        async with asyncio.timeout(END_S):
            while True:
                batch = await self.batch()
                if batch["request_counts"]["completed"] >= lines or batch["status"] in ENDED:
                    return batch
                await asyncio.sleep(0.02)

    async def until_ended(self) -> dict[str, Any]:
        """Wait until the batch has ended."""
        return await self.until_answered(10**9)

    async def answered(self, batch: dict[str, Any]) -> Counter[str]:
        """Count the answers in the output file, by custom id; each must be of the model that was asked."""
        async with self.client("a") as client:
            content = await client.get(f"/v1/files/{batch['output_file_id']}/content")
        found: Counter[str] = Counter()
        for told in map(json.loads, content.text.splitlines()):
            found[told["custom_id"]] += 1
            number = int(told["custom_id"].removeprefix("r-"))
            assert told["response"]["body"]["model"] == MODELS[number % len(MODELS)]
        return found

    def ledger(self) -> tuple[Counter[str], tuple[int, int]]:
        """Count the ledger's rows of the batch by request id; and the requests and tokens of its days."""
        with contextlib.closing(sqlite3.connect(self.folder / "state" / "state.db")) as database:
            ids = database.execute(
                "SELECT request_id FROM usage_records WHERE request_id LIKE ?", (f"{self.batch_id}-%",)
            )
            rows = Counter(request_id for (request_id,) in ids)
            days = database.execute(
                "SELECT sum(requests), sum(prompt_tokens + completion_tokens) FROM usage_days"
            )
            requests, tokens = days.fetchone()
            return rows, (requests, tokens)


def line(number: int) -> dict[str, Any]:
    """One request."""
    model = MODELS[number % len(MODELS)]
    body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}
    return {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


class SlowEngine(FakeEngine):
    """One that takes a while to answer."""

    def __init__(self, name: str, answer_s: float) -> None:
        super().__init__(name)
        self.answer_s = answer_s
        self.behave = self.answer_slowly

    async def answer_slowly(self, body: dict[str, Any], send: Any) -> None:
        """Answer after a while."""
        await asyncio.sleep(self.answer_s)
        await self.answer(body, send)


@contextlib.asynccontextmanager
async def night_in(folder: Path, *, answer_s: float, max_num_seqs: int = 32) -> AsyncIterator[Night]:
    """Start a gateway and its engines."""
    fleet = fleet_in(folder)
    base = fleet.base_models["base"]
    fleet.base_models["base"] = type(base)(
        "base", base.source, max_loras=4, max_num_seqs=max_num_seqs, max_cpu_loras=8
    )
    (folder / "fleet.yaml").write_text(write_fleet(fleet, key_variables={}))
    names = [name for pool in fleet.pools.values() for name, _ in pool.replica_models]
    night = Night(folder)
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            engine = SlowEngine(name, answer_s)
            engine.declared = fleet.base_models["base"]
            await stack.enter_async_context(serving(engine, folder / f"{name}.sock"))
        try:
            await night.start()
            yield night
        finally:
            if night.process is not None and night.process.returncode is None:
                await night.kill()
