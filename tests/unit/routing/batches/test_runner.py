"""The runner of batches: what ends them, what is asked again, and that each line has one last word."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.protocol import Kind
from fleet.batch_settings import BatchSettings
from routing.batches import run as runs
from routing.batches.desk import Desk
from routing.batches.runner import Runner
from routing.batches.store import BatchStore, Page
from routing.batches.values import ENDED, WINDOW_S, Batch, BatchStatus, Line, LineAnswer, Mistake
from routing.batches.vault import Vault
from routing.errors import CapReached, Conflict, InvalidRequest, NotFound, StateUnavailable, Unavailable
from tests.fakes import eventually

NOW_S = 1.0e9


class Gateway:
    """Answers lines, as it is told to; and is the ledger."""

    def __init__(self) -> None:
        self.ended: Mistake | None = None
        self.has_room = True
        self.asked: list[int] = []
        self.answers: dict[int, list[LineAnswer]] = {}  # by line; then it is well
        self.held = asyncio.Event()
        self.held.set()
        self.rows: list[tuple[Any, ...]] = []
        self.away = False

    def why_ended(self, account: str) -> Mistake | None:
        return self.ended

    def may_begin(self, batch: Batch, model: str | None) -> bool:
        return self.has_room

    def wake(self, batch: Batch, model: str | None) -> None:
        pass

    async def ask(self, batch: Batch, line: Line) -> LineAnswer:
        self.asked.append(line.number)
        await self.held.wait()
        told = self.answers.get(line.number)
        return told.pop(0) if told else LineAnswer(200, b'{"ok":true}', (batch.id, float(line.number)))

    def note_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self.rows += rows

    async def flush(self) -> None:
        if self.away:
            raise StateUnavailable("away")


class House:
    """Files and batches of one folder, with a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = NOW_S
        self.gateway = Gateway()
        self.settings = BatchSettings()
        self.build()

    def build(self) -> None:
        """Build the parts anew, as a start does."""
        self.store = BatchStore(f"sqlite:///{self.folder}/state.db")
        self.vault = Vault(self.folder / "batches")
        self.runner = Runner(
            self.store,
            self.vault,
            self.gateway,
            self.gateway,
            max_line_bytes=lambda: 10_000,
            keep_s=lambda: self.settings.keep_s,
            now=lambda: self.now_s,
        )
        self.desk = Desk(self.store, self.vault, self.runner, lambda: self.settings, lambda: self.now_s)

    async def start(self) -> None:
        self.runner.start()
        await eventually(lambda: bool(self.runner.home), "the folder")

    async def upload(self, lines: int) -> str:
        """Upload a file of requests to a model each."""
        content = b"".join(request(number) for number in range(1, lines + 1))
        async with self.desk.upload("a") as writer:
            writer.write(content)
            return (await self.desk.keep("a", writer, "x.jsonl", None)).id

    async def begin(self, lines: int = 5) -> str:
        """Begin a batch; returns its id."""
        told = {"file_id": await self.upload(lines), "endpoint": Kind.CHAT.value, "metadata": None}
        return (await self.desk.create("a", "key", **told)).id  # type: ignore[arg-type]

    async def ended(self, batch_id: str) -> Batch:
        """Wait until a batch has ended."""
        async with asyncio.timeout(10):
            while True:
                batch = await self.desk.batch("a", batch_id)
                if batch.status in ENDED:
                    return batch
                await asyncio.sleep(0.01)

    async def lines(self, file_id: str | None) -> dict[str, Any]:
        """The lines of a file by custom id."""
        assert file_id is not None
        file = await self.desk.file("a", file_id)
        content = b"".join([piece async for piece in self.desk.content(file)])
        told = [json.loads(line) for line in content.splitlines()]
        assert len({each["custom_id"] for each in told}) == len(told)
        return {each["custom_id"]: each for each in told}


def request(number: int) -> bytes:
    body = {"model": f"model-{number % 3}", "messages": []}
    line = {"custom_id": f"c-{number}", "method": "POST", "url": Kind.CHAT.value, "body": body}
    return json.dumps(line).encode() + b"\n"


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(runs, "FIRST_PAUSE_S", 0.0)
    house = House(tmp_path)
    await house.start()
    yield house
    house.gateway.held.set()
    await house.runner.stop()


async def test_every_line_is_answered_once_and_its_row_noted_once(house: House) -> None:
    batch = await house.ended(await house.begin(300))
    assert (batch.status, batch.counts.completed, batch.counts.total) == (BatchStatus.COMPLETED, 300, 300)
    assert sorted(house.gateway.asked) == list(range(1, 301))
    assert sorted(row[1] for row in house.gateway.rows) == list(range(1, 301))
    assert len(await house.lines(batch.output_file)) == 300
    journals = house.folder / "batches" / "journals"
    await eventually(lambda: not list(journals.iterdir()), "the end of the journal")


async def test_what_may_pass_is_asked_again_and_an_engines_fault_three_times(house: House) -> None:
    fault = LineAnswer(502, b"{}", ("row of a fault",), 0.0, is_fault=True)
    house.gateway.answers = {1: [LineAnswer(429, b"{}", None, 0.0)] * 7, 2: [fault] * 9}
    batch = await house.ended(await house.begin(3))
    assert (batch.counts.completed, batch.counts.failed) == (2, 1)
    assert house.gateway.asked.count(1) == 8 and house.gateway.asked.count(2) == 3
    assert house.gateway.rows.count(("row of a fault",)) == 1, "of its last word alone"
    assert (await house.lines(batch.error_file))["c-2"]["response"]["status_code"] == 502


UNREADABLE = {"cut off": b'{"ok":', "empty": b"", "too deep": b"[" * 300 + b"]" * 300}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_answer_that_cannot_be_written_again_ends_its_line_without_a_body(
    house: House, body: bytes
) -> None:
    house.gateway.answers = {1: [LineAnswer(200, body, ("row",))]}
    batch = await house.ended(await house.begin(2))
    assert (batch.status, batch.counts.completed) == (BatchStatus.COMPLETED, 2)
    response = (await house.lines(batch.output_file))["c-1"]["response"]
    assert (response["status_code"], response["body"]) == (200, None)
    assert ("row",) in house.gateway.rows


async def test_an_expired_batch_says_so_of_each_line_that_is_left(house: House) -> None:
    house.gateway.answers = {n: [LineAnswer(503, b"{}", None, 1e6)] for n in (4, 5)}
    batch_id = await house.begin(5)
    await eventually(lambda: len(house.gateway.asked) == 5, "all lines")
    house.now_s += WINDOW_S
    batch = await house.ended(batch_id)
    assert batch.status is BatchStatus.EXPIRED
    assert (batch.counts.completed, batch.counts.failed) == (3, 2)
    errors = await house.lines(batch.error_file)
    assert {name: line["error"]["code"] for name, line in errors.items()} == {
        "c-4": "batch_expired",
        "c-5": "batch_expired",
    }


async def test_a_batch_whose_tenant_may_run_no_more_fails_and_keeps_what_was_answered(house: House) -> None:
    house.gateway.answers = {n: [LineAnswer(503, b"{}", None, 1e6)] for n in (2, 3)}
    batch_id = await house.begin(3)
    await eventually(lambda: len(house.gateway.asked) == 3, "all lines")
    house.gateway.ended = Mistake("account_suspended", "The account is suspended.")
    batch = await house.ended(batch_id)
    assert (batch.status, batch.mistakes[0].code) == (BatchStatus.FAILED, "account_suspended")
    assert set(await house.lines(batch.output_file)) == {"c-1"} and batch.error_file is None


async def test_lines_wait_for_room_and_cancelling_needs_none(house: House) -> None:
    house.gateway.has_room = False
    batch_id = await house.begin(5)
    await eventually(lambda: house.runner.unfinished()["in_progress"] == 1)
    batch = await house.desk.cancel("a", batch_id)
    assert batch.status is BatchStatus.CANCELLING
    batch = await house.ended(batch_id)
    assert batch.status is BatchStatus.CANCELLED and not house.gateway.asked and batch.output_file is None
    with pytest.raises(Conflict):
        await house.desk.cancel("a", batch_id)


@pytest.mark.parametrize(
    ("home", "code"), [("another", "batch_elsewhere"), (None, "starting")], ids=["elsewhere", "at a start"]
)
async def test_what_does_not_run_here_is_not_cancelled_here_and_says_so(
    house: House, home: str | None, code: str
) -> None:
    house.gateway.has_room = False
    batch_id = await house.begin(1)
    await eventually(lambda: house.runner.unfinished()["in_progress"] == 1)
    batch = await house.desk.batch("a", batch_id)
    if home is not None:
        house.store.put(replace(batch, id="batch_other", home=home))
    else:
        await house.runner.stop()
        house.build()
        house.store.open()
    with pytest.raises(Unavailable) as caught:
        await house.desk.cancel("a", "batch_other" if home is not None else batch_id)
    assert caught.value.code == code and caught.value.retry_after_s


async def test_stopped_in_the_middle_it_goes_on_where_it_was(house: House) -> None:
    house.gateway.held.clear()
    batch_id = await house.begin(20)
    await eventually(lambda: len(house.gateway.asked) == 20, "all lines")
    house.gateway.answers = {n: [LineAnswer(503, b"{}", None, 1e6)] for n in range(1, 11)}
    house.gateway.held.set()
    await eventually(lambda: len(house.gateway.rows) == 10, "half of the answers")
    await house.runner.stop()
    house.gateway.asked.clear()
    house.build()
    await house.start()
    batch = await house.ended(batch_id)
    assert sorted(house.gateway.asked) == list(range(1, 11)), "only those without an answer"
    assert batch.counts.completed == 20 and len(await house.lines(batch.output_file)) == 20
    assert len(house.gateway.rows) == 30, "rows on disk are noted again; the ledger knows them by their ids"
    assert len(set(house.gateway.rows)) == 20


async def test_it_ends_only_once_the_ledger_is_on_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing.batches.runner.RETRY_S", 0.01)
    house.gateway.away = True
    batch_id = await house.begin(2)
    await eventually(lambda: house.runner.unfinished()["finalizing"] == 1)
    await asyncio.sleep(0.05)
    assert (await house.desk.batch("a", batch_id)).status is BatchStatus.FINALIZING
    house.gateway.away = False
    assert (await house.ended(batch_id)).status is BatchStatus.COMPLETED


async def test_answers_that_the_disk_does_not_take_count_once_it_does(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.batches.runner.RETRY_S", 0.01)
    house.gateway.held.clear()
    batch_id = await house.begin(2)
    await eventually(lambda: len(house.gateway.asked) == 2)
    real, failures = os.fsync, [OSError(28, "No space left on device")] * 2

    def fsync(file: int) -> None:
        if failures:
            raise failures.pop()
        real(file)

    monkeypatch.setattr("routing.batches.journal.os.fsync", fsync)
    house.gateway.held.set()
    batch = await house.ended(batch_id)
    assert batch.counts.completed == 2 and not failures
    assert len(house.gateway.rows) == 2


async def test_files_are_deleted_after_their_time_but_not_while_a_batch_reads_them(house: House) -> None:
    house.gateway.has_room = False
    batch_id = await house.begin(2)
    other = await house.upload(1)
    await eventually(lambda: house.runner.unfinished()["in_progress"] == 1)
    house.runner._delete_old(house.now_s + house.settings.keep_s + 1)
    with pytest.raises(NotFound):
        await house.desk.file("a", other)
    batch = await house.desk.batch("a", batch_id)
    assert (await house.desk.file("a", batch.input_file)).id == batch.input_file
    with pytest.raises(Conflict):
        await house.desk.delete("a", batch.input_file)
    house.gateway.has_room = True
    batch = await house.ended(batch_id)
    house.runner._delete_old(house.now_s + house.settings.keep_s + 1)
    for file_id in (batch.input_file, batch.output_file):
        with pytest.raises(NotFound):
            await house.desk.file("a", file_id or "")
    assert not list((house.folder / "batches" / "files").iterdir())
    assert await house.desk.batches(None, Page(10)) == []


async def test_a_tenant_has_so_many_files_bytes_uploads_and_batches_and_no_more(house: House) -> None:
    file_id = await house.upload(1)
    house.settings = BatchSettings(max_files=1)
    with pytest.raises(InvalidRequest, match="1 files"):
        await house.upload(1)
    house.settings = BatchSettings(max_tenant_bytes=200)
    with pytest.raises(InvalidRequest, match="200 bytes"):
        await house.upload(1)
    house.settings = BatchSettings()
    async with house.desk.upload("a"), house.desk.upload("a"):
        with pytest.raises(CapReached, match="2 uploads"):
            async with house.desk.upload("a"):
                pass
        async with house.desk.upload("b"):
            pass
    house.settings = BatchSettings(max_unfinished=1)
    house.gateway.has_room = False
    told = {"file_id": file_id, "endpoint": Kind.CHAT.value, "metadata": None}
    await house.desk.create("a", "key", **told)  # type: ignore[arg-type]
    with pytest.raises(CapReached, match="1 batches"):
        await house.desk.create("a", "key", **told)  # type: ignore[arg-type]
    assert not house.desk._uploads and not list((house.folder / "batches" / "incoming").iterdir())


async def test_a_file_is_not_closed_under_what_still_writes_to_it(house: House) -> None:
    """Its number may be another file's by then."""
    goes_on, written = threading.Event(), b"x" * 2**21

    async def upload() -> None:
        async with house.desk.upload("a") as writer, asyncio.timeout(0.01):

            def write() -> None:
                goes_on.wait()
                writer.write(written)

            await house.desk.write(write)

    uploading = asyncio.create_task(upload())
    await asyncio.sleep(0.05)
    assert not uploading.done() and house.desk._uploads["a"] == 1
    goes_on.set()
    with pytest.raises(TimeoutError):
        await uploading
    assert not house.desk._uploads and not list((house.folder / "batches" / "incoming").iterdir())


async def test_no_more_batches_begin_together_than_one_after_the_other(house: House) -> None:
    file_id = await house.upload(1)
    house.settings, house.gateway.has_room = BatchSettings(max_unfinished=3), False
    told: Any = {"file_id": file_id, "endpoint": Kind.CHAT.value, "metadata": None}
    begun = [house.desk.create(account, "key", **told) for account in "a" * 9]
    results = await asyncio.gather(*begun, return_exceptions=True)
    assert [type(each) for each in results].count(Batch) == 3
    assert {each.code for each in results if isinstance(each, CapReached)} == {"max_batches"}


async def test_no_more_files_come_together_than_one_after_the_other(house: House) -> None:
    house.settings = BatchSettings(max_files=1)
    results = await asyncio.gather(house.upload(1), house.upload(1), return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["InvalidRequest", "str"]
    assert house.store.held("a").files == 1 and not house.desk._uploads


async def test_batches_of_another_folder_are_left_alone(house: House) -> None:
    house.gateway.has_room = False
    batch = await house.desk.batch("a", await house.begin(1))
    await eventually(lambda: house.runner.unfinished()["in_progress"] == 1)
    house.store.put(replace(house.runner.latest(batch), id="batch_other", home="another"))
    assert [found.id for found in house.store.unfinished(house.runner.home)] == [batch.id]
