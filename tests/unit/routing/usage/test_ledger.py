"""Is what was noted written down, soon, once, and whatever the database does meanwhile?"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.types import Budget, UsageSettings
from routing.errors import StateUnavailable
from routing.usage import Ledger, UsageStore, ledger
from routing.usage.budget import Budgets
from routing.usage.entries import FIRST_COLUMNS, KEY, Row
from routing.usage.journal import Journal
from routing.usage.query import read_query
from tests.fakes import eventually
from tests.unit.routing.usage.made import NOON_S, days_ago, record, rows


class MovingStore(UsageStore):
    """A store on SQLite that may be away, be slow, or lose the answer to its commit."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder}/usage.db")
        self.away = False
        self.slow_s = 0.0
        self.loses_answers = 0
        self.batches: list[int] = []

    def open(self) -> None:
        if self.away:
            raise StateUnavailable("away")
        super().open()

    def write(self, rows: Sequence[Row]) -> int:
        if self.away:
            raise StateUnavailable("away")
        time.sleep(self.slow_s)
        written = super().write(rows)
        self.batches.append(len(rows))
        if self.loses_answers:
            self.loses_answers -= 1
            raise StateUnavailable("whether it was written is not known")
        return written


class House:
    """A ledger in a folder, at a quick pace."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.store = MovingStore(folder)
        self.folder = folder / "usage"
        budgets = Budgets(options.pop("budgets", {}))
        settings = {"interval_s": 0.01, "now": lambda: NOON_S, **options}
        self.ledger = Ledger(self.store, self.folder, UsageSettings(), budgets, **settings)
        self.ledger.start()

    async def requests(self) -> int:
        """How many are in the database by now."""
        query = read_query({}, now_s=NOON_S, tenant=None)
        (line,) = await asyncio.to_thread(self.store.sums, query)
        return int(line["requests"])

    async def asked(self) -> int:
        """How many the ledger tells of when it is asked."""
        (line,) = await self.ledger.sums(read_query({}, now_s=NOON_S, tenant=None))
        return int(line["requests"])

    def note(self, times: int = 1) -> None:
        for _ in range(times):
            one = record()
            self.ledger.count(one)
            self.ledger.note([one])

    @property
    def waiting_on_disk(self) -> bool:
        return any(self.folder.glob("*.jsonl"))


async def test_what_is_noted_is_written_without_being_asked_for_in_one_batch(tmp_path: Path) -> None:
    house = House(tmp_path)
    await eventually(lambda: house.store._engine is not None)
    house.note(300)
    await eventually(lambda: sum(house.store.batches) == 300)
    assert len(house.store.batches) == 1
    await house.ledger.stop()


async def test_an_answer_holds_what_was_noted_a_moment_ago(tmp_path: Path) -> None:
    house = House(tmp_path, interval_s=60.0)
    house.note(3)
    assert await house.asked() == 3
    house.note(2)
    assert await house.asked() == 5
    await house.ledger.stop()


@pytest.mark.parametrize("writes_first", [False, True], ids=["idle", "at work"])
async def test_an_answer_holds_what_is_on_its_way_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes_first: bool
) -> None:
    house, disk_is_ready, append = House(tmp_path, interval_s=60.0), threading.Event(), Journal.append

    def slowly(journal: Journal, noted: Sequence[Row]) -> bool:
        assert disk_is_ready.wait(10)
        return append(journal, noted)

    monkeypatch.setattr(Journal, "append", slowly)
    assert await house.asked() == 0
    if writes_first:
        house.note(2)
        house.store.slow_s = 0.05
        house.ledger._begin_work()
        await asyncio.sleep(0)
    house.note(1)
    house.ledger._begin_spill()
    asking = asyncio.create_task(house.asked())
    await eventually(lambda: house.ledger._work is not None and house.ledger._work.done())
    disk_is_ready.set()
    assert await asking == (3 if writes_first else 1)
    await house.ledger.stop()


async def test_what_goes_to_disk_while_nothing_was_found_there_is_read_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, interval_s=60.0)
    read_back, late = house.ledger._read_back, [rows(record())]

    def read_and_spill() -> bool:
        found = read_back()
        if late:
            house.ledger._journal.append(late.pop())
            house.ledger._journal_waits = True
        return found

    monkeypatch.setattr(house.ledger, "_read_back", read_and_spill)
    assert await house.asked() == 1
    await house.ledger.stop()


async def test_a_clean_stop_writes_all(tmp_path: Path) -> None:
    house = House(tmp_path, interval_s=60.0)
    house.note(3)
    await house.ledger.stop()
    again = House(tmp_path)
    assert await again.asked() == 3
    await again.ledger.stop()


async def test_while_the_database_is_away_records_wait_on_disk_and_come_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FIRST_RETRY_S", 0.02)
    house = House(tmp_path)
    house.store.away = True
    house.note(4)
    await eventually(lambda: house.waiting_on_disk)
    house.note(4)
    with pytest.raises(StateUnavailable):
        await house.asked()
    assert house.ledger.is_away
    house.store.away = False
    await eventually(lambda: not house.waiting_on_disk)
    assert await house.asked() == 8
    assert (house.ledger.lost, house.ledger.is_away) == (0, False)
    await house.ledger.stop()


async def test_a_stop_while_the_database_is_away_leaves_all_to_the_next_start(tmp_path: Path) -> None:
    house = House(tmp_path, interval_s=60.0)
    house.store.away = True
    house.note(5)
    await house.ledger.stop()
    again = House(tmp_path)
    assert await again.asked() == 5
    await again.ledger.stop()


async def test_a_commit_whose_answer_was_lost_does_not_count_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FIRST_RETRY_S", 0.02)
    house = House(tmp_path)
    house.store.loses_answers = 2
    house.note(6)
    await eventually(lambda: house.store.loses_answers == 0)
    await eventually(lambda: not house.waiting_on_disk)
    assert await house.asked() == 6
    await house.ledger.stop()


async def test_what_comes_while_the_database_is_slow_goes_to_disk_and_waits_for_nothing(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    await house.ledger.flush()
    house.store.slow_s = 0.3
    house.note(1)
    await asyncio.sleep(0.05)  # it is being written
    house.note(2)
    await eventually(lambda: house.waiting_on_disk)
    house.store.slow_s = 0.0
    assert await house.asked() == 3
    await house.ledger.stop()


async def test_a_caller_that_gives_up_loses_no_record(tmp_path: Path) -> None:
    house = House(tmp_path, interval_s=60.0)
    await house.ledger.flush()
    house.store.slow_s = 0.1
    house.note(2)
    asking = asyncio.ensure_future(house.ledger.flush())
    await asyncio.sleep(0.02)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await house.asked() == 2
    await house.ledger.stop()


async def test_where_neither_takes_it_memory_is_bounded_and_the_loss_is_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger, "MAX_PENDING", 10)
    house = House(tmp_path, max_journal_bytes=10, interval_s=60.0)
    house.store.away = True
    with caplog.at_level(logging.ERROR, "tenantry.usage"):
        for times, lost in ((8, 0), (3, 1), (4, 5)):
            house.note(times)
            with pytest.raises(StateUnavailable):
                await house.ledger.flush()
            assert house.ledger.lost == lost
    assert "is lost" in caplog.text
    house.store.away = False
    assert await house.asked() == 10
    await house.ledger.stop()


async def test_what_a_full_disk_did_not_take_goes_to_the_database_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(journal: Journal, rows: Sequence[Row]) -> bool:
        loop.call_soon_threadsafe(began.set)
        time.sleep(0.1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", fail)
    house = House(tmp_path)
    await house.ledger.flush()
    house.store.slow_s = 0.05
    house.note()
    await asyncio.sleep(0.02)  # it is being written
    house.note(2)
    await began.wait()
    house.store.slow_s = 0.0
    await house.ledger.stop()
    house.store.open()
    assert (await house.requests(), house.ledger.lost) == (3, 0)
    house.store.close()


async def test_what_finds_no_room_at_the_end_is_told_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, max_journal_bytes=10, interval_s=60.0)
    house.store.away = True
    house.note(3)
    with caplog.at_level(logging.ERROR, "tenantry.usage"):
        await house.ledger.stop()
    assert house.ledger.lost == 3
    assert "the usage of 3 requests is lost" in caplog.text


@pytest.mark.parametrize("through_journal", [False, True])
async def test_rows_of_which_a_part_was_written_count_once_for_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through_journal: bool
) -> None:
    monkeypatch.setattr(ledger, "BATCH", 2)
    house = House(tmp_path, interval_s=60.0, budgets={"a": Budget(1000)})
    await house.ledger.flush()
    house.store.away = through_journal
    house.note(5)  # 15 tokens each
    if through_journal:
        with pytest.raises(StateUnavailable):
            await house.ledger.flush()
        house.store.away = False
    write, calls = house.store.write, itertools.count()

    def fail_once(rows: Sequence[Row]) -> int:
        if next(calls) == 1:
            raise StateUnavailable("away")
        return write(rows)

    monkeypatch.setattr(house.store, "write", fail_once)
    with pytest.raises(StateUnavailable):
        await house.ledger.flush()
    house.note()
    await house.ledger.flush()
    status = house.ledger.budgets.status("a", NOON_S)
    assert status is not None and status.used == 6 * 15
    await house.ledger.stop()


async def test_old_records_of_a_journal_are_kept_and_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The database may have had them, and no longer knows."""
    journal = Journal(tmp_path / "usage", "a")
    journal.append(rows(record(), at_s=days_ago(31)))
    journal.close()
    house = House(tmp_path)
    with caplog.at_level(logging.ERROR, "tenantry.usage"):
        await eventually(lambda: any(house.folder.glob("*.late")))
    house.note()
    assert await house.asked() == 1
    assert "not counted" in caplog.text
    await house.ledger.stop()


async def test_what_is_too_old_is_deleted(tmp_path: Path) -> None:
    store = UsageStore(f"sqlite:///{tmp_path}/usage.db")
    store.open()
    store.write(rows(record(), at_s=days_ago(31), start="a" * 12))
    store.close()
    house = House(tmp_path)
    await house.ledger.flush()
    assert await asyncio.to_thread(house.store.prune, days_ago(30), "2000-01-01") == 0, "it is gone already"
    await house.ledger.stop()


async def test_a_fault_of_ours_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, interval_s=60.0)
    await house.ledger.flush()
    with monkeypatch.context() as patched:
        patched.setattr(house.store, "write", lambda rows: 1 / 0)
        house.note(2)
        with pytest.raises(StateUnavailable, match="cannot be read now"):
            await house.ledger.flush()
    assert "ZeroDivisionError" in caplog.text
    assert await house.asked() == 2
    await house.ledger.stop()


async def test_a_keys_budget_counts_what_its_key_used_before_and_since(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.note(3)  # 15 tokens each, with key k1; it has no budget yet
    await house.ledger.flush()
    limited = {"k1": Budget(100)}
    house.ledger.follow_keys(lambda: limited)
    assert not house.ledger.is_known
    await eventually(lambda: house.ledger.is_known)
    house.note()
    status = house.ledger.key_budgets.status("k1", NOON_S)
    assert status is not None and status.used == 60
    await house.ledger.flush()
    assert status == house.ledger.key_budgets.status("k1", NOON_S)
    await house.ledger.stop()

    again = House(tmp_path)
    again.ledger.follow_keys(lambda: limited)
    await eventually(lambda: again.ledger.is_known)
    assert again.ledger.key_budgets.status("k1", NOON_S) == status, "after a restart"
    limited = {}
    await eventually(lambda: again.ledger.is_known)
    assert again.ledger.key_budgets.status("k1", NOON_S) is None
    await again.ledger.stop()


async def test_usage_is_summed_by_key(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.note(2)
    house.ledger.note([record(key="k2"), record(key="")])
    lines = await house.ledger.sums(read_query({"group_by": "key"}, now_s=NOON_S, tenant=None))
    assert [(line["key"], line["requests"]) for line in lines] == [(None, 1), ("k1", 2), ("k2", 1)]
    await house.ledger.stop()


async def test_a_journal_of_the_release_before_is_read_back_without_keys(tmp_path: Path) -> None:
    (row,) = rows(record())
    folder = tmp_path / "usage"
    folder.mkdir()
    (folder / "old-000000.jsonl").write_bytes(
        orjson.dumps(row[:KEY]) + b"\n" + orjson.dumps(row[: FIRST_COLUMNS - 1]) + b"\n"
    )
    house = House(tmp_path)
    await eventually(lambda: not house.waiting_on_disk)
    told = await house.ledger.sums(read_query({"group_by": "key"}, now_s=NOON_S, tenant=None))
    assert [(line["key"], line["requests"]) for line in told] == [(None, 1)]
    await house.ledger.stop()
