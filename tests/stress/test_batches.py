"""Two thousand lines for three models under interactive load, killed twice: what others notice, what is left.

The gateway is a process of its own, engines are fake and take 0.1 s for an answer. Run it on an idle machine:
`python -m pytest -s tests/stress/test_batches.py`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import numpy as np

from tests.integration.night_batches import Night, line, night_in

LINES = 2000
RATE = 20.0  # interactive requests per second
MEASURED_S = 12.0
ANSWER_S = 0.1
NOTICED = 1.1  # of the p99 without a batch


async def ask(client: httpx.AsyncClient, number: int, taken_s: list[float]) -> None:
    """Send one interactive request, and note how long it took."""
    begun_s = time.perf_counter()
    answer = await client.post("/v1/chat/completions", json=line(number)["body"])
    assert answer.status_code == 200, answer.text
    taken_s.append(time.perf_counter() - begun_s)


async def latencies(night: Night, duration_s: float) -> list[float]:
    """Send requests at a steady rate, whatever becomes of them; return how long each took."""
    taken_s: list[float] = []
    async with night.client("a") as client, asyncio.TaskGroup() as asking:
        begun_s = time.perf_counter()
        for number in range(round(duration_s * RATE)):
            await asyncio.sleep(max(0.0, begun_s + number / RATE - time.perf_counter()))
            asking.create_task(ask(client, number, taken_s))
    return taken_s


def p99(taken_s: list[float]) -> float:
    return float(np.percentile(taken_s, 99))


async def test_a_batch_is_hardly_noticed_and_each_line_is_answered_and_paid_once(tmp_path: Path) -> None:
    async with asyncio.timeout(600), night_in(tmp_path, answer_s=ANSWER_S) as night:
        await latencies(night, 2.0)
        alone_s = await latencies(night, MEASURED_S)
        begun_s = time.perf_counter()
        await night.submit(LINES)
        await night.until_answered(1)
        beside_s = await latencies(night, MEASURED_S)
        batch = await night.batch()
        assert batch["status"] == "in_progress"
        rate = batch["request_counts"]["completed"] / (time.perf_counter() - begun_s)
        print(  # noqa: T201 - what is measured
            f"\ninteractive p50/p99: {1e3 * np.median(alone_s):.1f}/{1e3 * p99(alone_s):.1f} ms alone, "
            f"{1e3 * np.median(beside_s):.1f}/{1e3 * p99(beside_s):.1f} ms beside {rate:.0f} lines/s"
        )
        for _ in range(2):
            answered = batch["request_counts"]["completed"]
            batch = await night.until_answered(answered + 150)
            assert batch["status"] == "in_progress", "it is killed in the middle"
            await night.kill()
            await night.start()
            batch = await night.batch()
        batch = await night.until_ended()
        assert (batch["status"], batch["error_file_id"]) == ("completed", None)
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        found = await night.answered(batch)
        assert len(found) == LINES and set(found.values()) == {1}
        rows, _ = night.ledger()
        assert rows == {f"{night.batch_id}-{number}": 1 for number in range(1, LINES + 1)}
        again_s = await latencies(night, MEASURED_S)
        print(f"interactive p99 alone, again: {1e3 * p99(again_s):.1f} ms")  # noqa: T201 - likewise
        assert p99(beside_s) <= NOTICED * max(p99(alone_s), p99(again_s))
