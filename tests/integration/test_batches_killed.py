"""A gateway is killed with SIGKILL in the middle of a batch: each line is answered once, and paid once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.night_batches import night_in

LINES = 240


async def test_killed_twice_each_line_is_answered_once_and_in_the_ledger_once(tmp_path: Path) -> None:
    async with asyncio.timeout(240), night_in(tmp_path, answer_s=0.05) as night:
        await night.submit(LINES)
        for answered in (LINES // 4, LINES // 2):
            batch = await night.until_answered(answered)
            assert batch["status"] == "in_progress", "it is killed in the middle"
            await night.kill()
            await night.start()
        batch = await night.until_ended()
        assert batch["status"] == "completed" and batch["error_file_id"] is None
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        found = await night.answered(batch)
        assert len(found) == LINES and set(found.values()) == {1}
        rows, days = night.ledger()
        assert rows == {f"{night.batch_id}-{number}": 1 for number in range(1, LINES + 1)}
        assert days == (LINES, 10 * LINES), "seven tokens of prompt and three of answer, each"
