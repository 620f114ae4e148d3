"""Runs batches: line by line, on room that nobody else needs, through restarts, each line once.

1. A batch is `validating` until its file was looked through; then it is `in_progress`.
2. A line is asked when there is room for its model. An answer that may pass, as a replica that is away, puts
   it back for a while; any other is its last word.
3. Last words go to the batch's journal, several at once; then they count, and the ledger gets their rows.
4. Once all have theirs, or the batch expires, is cancelled or loses its tenant, it begins nothing more; when
   the last line has ended, its files are written, the ledger is on disk, and the batch has ended.

At a start, every unfinished batch of this folder goes on: from its journal, from where it was in the above.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from routing.batches import lines
from routing.batches.endings import write_files
from routing.batches.journal import Outcome
from routing.batches.run import BatchRun
from routing.batches.sealing import DamagedFile
from routing.batches.store import BatchStore
from routing.batches.values import Batch, BatchStatus, Counts, Line, LineAnswer, Mistake
from routing.batches.vault import Vault
from routing.errors import StateUnavailable

MOST_LINES = 128  # that run at once, of all batches: what the gateway itself is asked for
BUSY_TICK_S, IDLE_TICK_S = 0.05, 1.0  # between two looks for room, while lines wait for it or none does
CHORES_S = 600.0  # between two looks for old files
RETRY_S = 2.0  # after a database or a disk that did not answer
T = TypeVar("T")
log = logging.getLogger("tenantry.batches")


class LineCaller(Protocol):
    """Asks the gateway, as its tenant would."""

    def why_ended(self, account: str) -> Mistake | None:
        """Say why a tenant's batches may run no more; None: they may."""

    def may_begin(self, batch: Batch, model: str | None) -> bool:
        """Whether a line for a model has room now; also where it would be refused at once."""

    def wake(self, batch: Batch, model: str | None) -> None:
        """Have a model come awake that lines wait for, where its pool has nothing else to do."""

    async def ask(self, batch: Batch, line: Line) -> LineAnswer:
        """Have a line answered."""


class LedgerRows(Protocol):
    """Takes rows of the usage ledger that are on disk already."""

    def note_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Keep rows; those that are there already change nothing."""

    async def flush(self) -> None:
        """Return once all that was noted is in the database. Raises `StateUnavailable`."""


class Runner:
    """Runs the batches of one gateway, from its start to its end."""

    def __init__(
        self,
        store: BatchStore,
        vault: Vault,
        caller: LineCaller,
        ledger: LedgerRows,
        *,
        max_line_bytes: Callable[[], int],
        keep_s: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`keep_s` is how long files that come out of a batch are kept; `now` gives Unix time."""
        self._store, self._vault, self._caller, self._ledger = store, vault, caller, ledger
        self._max_line_bytes, self._keep_s, self._now = max_line_bytes, keep_s, now
        self._runs: dict[str, BatchRun] = {}  # the oldest first
        self._wake = asyncio.Event()
        self._draining = False
        self._main: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asking: set[asyncio.Task[Any]] = set()
        self.lines: Counter[str] = Counter()  # that have ended, by `completed` or `failed`
        self._chores_at_s = 0.0
        self.home = ""  # once this process has taken the folder

    def start(self) -> None:
        """Begin; what an earlier start has left goes on."""
        self._main = asyncio.create_task(self._run())

    def drain(self) -> None:
        """Begin no more lines; what runs ends."""
        self._draining = True

    async def stop(self) -> None:
        """End, with everything on disk that was answered."""
        self._draining = True
        for task in self._asking:
            task.cancel()  # what runs had its time in the drain; it runs again at the next start
        await asyncio.gather(*self._asking, return_exceptions=True)
        for run in list(self._runs.values()):
            if run.writing is not None:
                await asyncio.gather(run.writing, return_exceptions=True)
        tasks = [*self._tasks, *([self._main] if self._main is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._store.close)
        await asyncio.to_thread(self._vault.release)

    def add(self, batch: Batch) -> None:
        """Run a batch that was stored."""
        run = self._runs[batch.id] = BatchRun(batch, self._vault.journal(batch.id))
        self._spawn(self._prepare(run))

    def latest(self, batch: Batch) -> Batch:
        """Return a batch as it is now, where it runs here."""
        run = self._runs.get(batch.id)
        return batch if run is None else run.batch

    def runs(self, batch: Batch) -> bool:
        """Whether a batch runs here."""
        return batch.id in self._runs

    def unfinished(self) -> Counter[str]:
        """Count batches that run here, by status."""
        return Counter(run.batch.status.value for run in self._runs.values())

    async def cancel(self, batch: Batch) -> Batch:
        """Begin nothing more of a batch that runs here. Raises `StateUnavailable`."""
        run = self._runs[batch.id]
        async with run.storing:
            if run.batch.status is BatchStatus.IN_PROGRESS:
                ending = replace(run.batch, ending=BatchStatus.CANCELLED)
                cancelling = ending.now(BatchStatus.CANCELLING, self._now())
                await asyncio.to_thread(self._store.put, cancelling)
                run.batch = replace(cancelling, counts=run.batch.counts)
        self._wake.set()
        return run.batch

    # -- the loop ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._patiently("their folder", self._take_folder)
        for batch in await self._patiently("the batches", lambda: self._store.unfinished(self.home)):
            if batch.id not in self._runs:
                self.add(batch)
        while True:
            self._wake.clear()
            try:
                waits = await self._step()
            except Exception:
                log.exception("batches met an error")
                waits = False
            try:
                async with asyncio.timeout(BUSY_TICK_S if waits else IDLE_TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _take_folder(self) -> None:
        self._store.open()
        self._vault.take()
        self._vault.sweep(self._store.known_files())
        self.home = self._vault.home()

    async def _step(self) -> bool:
        """Do what is due; returns whether lines wait for room."""
        now_s = self._now()
        if now_s >= self._chores_at_s:
            self._chores_at_s = now_s + CHORES_S
            self._spawn(self._patiently("old files", lambda: self._delete_old(now_s)))
        for run in list(self._runs.values()):
            self._end_if_over(run, now_s)
            self._read_and_write(run)
        for _ in range(MOST_LINES - len(self._asking)):
            if self._draining or not self._begin_line(now_s):
                break
            await asyncio.sleep(0)  # requests of others go first
        if not self._draining:
            self._wake_models()
        return any(run.has_lines and run.batch.ending is None for run in self._runs.values())

    def _read_and_write(self, run: BatchRun) -> None:
        """Have its answers written, and its next lines read, where neither is under way."""
        if run.unwritten and (run.writing is None or run.writing.done()):
            run.writing = self._spawn(self._write(run))
        if run.batch.ending is None and run.needs_lines():
            run.feeding = self._spawn(self._feed(run))

    def _begin_line(self, now_s: float) -> bool:
        """Begin one line, of the tenant and batch that have the fewest running; whether there was one."""
        running: Counter[str] = Counter()
        for run in self._runs.values():
            running[run.batch.account] += run.in_flight
        ready = [run for run in self._runs.values() if run.has_lines and run.batch.ending is None]
        for run in sorted(ready, key=lambda run: (running[run.batch.account], run.in_flight)):
            line = run.take(lambda model, batch=run.batch: self._caller.may_begin(batch, model), now_s)  # type: ignore[misc]
            if line is not None:
                task = self._spawn(self._ask(run, line))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                return True
        return False

    def _wake_models(self) -> None:
        """Ask for the models that lines wait for; what could begin has begun."""
        for run in self._runs.values():
            if run.batch.ending is None:
                for model in run.models():
                    self._caller.wake(run.batch, model)

    def _end_if_over(self, run: BatchRun, now_s: float) -> None:
        batch = run.batch
        if run.is_ending or not run.is_prepared:
            return
        if batch.ending is None and not run.is_answered:
            mistake = self._caller.why_ended(batch.account)
            if mistake is not None:
                run.batch = replace(batch, ending=BatchStatus.FAILED, mistakes=(mistake,))
            elif now_s >= batch.expires_s:
                run.batch = replace(batch, ending=BatchStatus.EXPIRED)
        if run.is_quiet and (run.is_answered or run.batch.ending is not None):
            run.is_ending = True
            self._spawn(self._end(run))

    # -- one line ------------------------------------------------------------------------------------------

    async def _ask(self, run: BatchRun, line: Line) -> None:
        try:
            answer = await self._caller.ask(run.batch, line)
        except Exception:
            log.exception("line %d of batch %s met an error in the gateway", line.number, run.batch.id)
            answer = LineAnswer(500, b'{"error":{"message":"The gateway met an error of its own."}}')
        if not run.is_last_word(line, answer):
            run.put_back(line, answer.retry_after_s or 0.0, self._now())
        else:
            told = lines.answered(run.batch, line, answer)
            run.note(Outcome(line.number, answer.is_ok, told, answer.row))
            if run.writing is None or run.writing.done():
                run.writing = self._spawn(self._write(run))
        self._wake.set()

    async def _write(self, run: BatchRun) -> None:
        """Put answers on disk, as many at once as have come; then they count."""
        while run.unwritten:
            outcomes, run.unwritten = run.unwritten, []
            try:
                await asyncio.to_thread(run.journal.append, outcomes)
            except OSError as error:
                log.error("the answers of batch %s cannot be written: %s", run.batch.id, error.strerror)
                run.unwritten[:0] = outcomes
                await asyncio.sleep(RETRY_S)
                continue
            run.count(outcomes)
            self._ledger.note_rows([outcome.row for outcome in outcomes if outcome.row is not None])
            self.lines.update("completed" if outcome.ok else "failed" for outcome in outcomes)
        self._wake.set()

    # -- begin and end of a batch --------------------------------------------------------------------------

    async def _prepare(self, run: BatchRun) -> None:
        """Look through its file, or through its journal; then its lines may run."""
        try:
            async with run.storing:
                if run.batch.status is BatchStatus.VALIDATING:
                    run.batch = await self._patiently("a batch's file", lambda: self._validated(run.batch))
            if run.batch.status is BatchStatus.FAILED:
                del self._runs[run.batch.id]
                return
            done, counts, rows = await self._patiently("a batch's journal", lambda: _replay(run))
        except DamagedFile as error:
            await self._fail(run, Mistake("batch_unreadable", f"The batch cannot be read: {error}."))
            return
        self._ledger.note_rows(rows)
        run.prepare(counts, self._left(run.batch, done))
        self._wake.set()

    def _validated(self, batch: Batch) -> Batch:
        try:
            chunks = self._content(batch)
            total, mistakes = lines.mistakes_of(chunks, batch.endpoint, max_bytes=self._max_line_bytes())
        except FileNotFoundError:
            total, mistakes = (
                0,
                [Mistake("input_file_gone", "The input file is gone.", None, "input_file_id")],
            )
        if mistakes:
            checked = replace(batch, mistakes=tuple(mistakes)).now(BatchStatus.FAILED, self._now())
        else:
            checked = replace(batch, counts=Counts(total)).now(BatchStatus.IN_PROGRESS, self._now())
        self._store.put(checked)
        return checked

    def _content(self, batch: Batch) -> Iterator[bytes]:
        file = self._store.file(batch.account, batch.input_file)
        if file is None:
            raise FileNotFoundError(batch.input_file)
        return self._vault.read(file.id, file.size_bytes)

    def _left(self, batch: Batch, done: set[int]) -> Iterator[Line]:
        read = lines.read(self._content(batch), batch.endpoint, max_bytes=self._max_line_bytes())
        return (line for line in read if line.number not in done)

    async def _feed(self, run: BatchRun) -> None:
        try:
            await run.feed()
        except (DamagedFile, OSError, lines.WrongLine) as error:
            log.error("the file of batch %s cannot be read: %s", run.batch.id, error)
            told = Mistake("input_file_unreadable", "The input file cannot be read any more.")
            run.batch = replace(run.batch, ending=BatchStatus.FAILED, mistakes=(told,))
        self._wake.set()

    async def _fail(self, run: BatchRun, mistake: Mistake) -> None:
        log.error("batch %s fails: %s", run.batch.id, mistake.message)
        run.batch = replace(run.batch, mistakes=(mistake,)).now(BatchStatus.FAILED, self._now())
        await self._patiently("the batches", lambda: self._store.put(run.batch))
        del self._runs[run.batch.id]

    async def _end(self, run: BatchRun) -> None:
        """Write its files; once the ledger has all its rows, it has ended."""
        async with run.storing:
            await self._write_and_end(run)

    async def _write_and_end(self, run: BatchRun) -> None:
        ending = run.batch.ending or BatchStatus.COMPLETED
        if run.batch.status is BatchStatus.IN_PROGRESS:
            run.batch = replace(run.batch, ending=ending).now(BatchStatus.FINALIZING, self._now())
            await self._patiently("the batches", lambda: self._store.put(run.batch))
        longest_s = self._keep_s()
        keep_until_s = self._now() + min(longest_s, run.batch.keep_s or longest_s)
        try:
            ended, files = await self._patiently(
                "a batch's files",
                lambda: write_files(run, self._vault, self._unanswered(run.batch), keep_until_s, self._now()),
            )
        except DamagedFile as error:
            await self._fail(run, Mistake("batch_unreadable", f"The batch cannot be read: {error}."))
            return
        await self._flush()
        ended = replace(ended, ending=None).now(ending, self._now())
        await self._patiently("the batches", lambda: self._store.put(ended, files))
        run.batch = ended
        await asyncio.to_thread(self._vault.drop_journal, ended.id)
        del self._runs[ended.id]
        log.info("batch %s of %s is %s", ended.id, ended.account, ended.status)

    def _unanswered(self, batch: Batch) -> Callable[[set[int]], Iterator[Line]]:
        return lambda done: self._left(batch, done)

    async def _flush(self) -> None:
        """Return once the ledger has all rows in the database."""
        while True:
            with contextlib.suppress(StateUnavailable):
                return await self._ledger.flush()
            await asyncio.sleep(RETRY_S)

    def _delete_old(self, now_s: float) -> None:
        """Delete files whose time is over, and forget batches that ended long ago."""
        for file in self._store.expired_files(now_s):
            self._vault.remove(file.id)
            self._store.remove_file(file.account, file.id)
        self._store.prune(now_s - self._keep_s())

    # -- help ----------------------------------------------------------------------------------------------

    async def _patiently(self, what: str, call: Callable[[], T]) -> T:
        """Call in a thread until the database and the disk answer. Raises `DamagedFile`."""
        while True:
            try:
                return await asyncio.to_thread(call)
            except (StateUnavailable, OSError) as error:
                log.warning("%s cannot be read or written now: %s", what, error)
            await asyncio.sleep(RETRY_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _replay(run: BatchRun) -> tuple[set[int], Counts, Sequence[tuple[Any, ...]]]:
    """Read what a batch's lines were answered before this start."""
    done, counts, rows = set(), Counts(run.batch.counts.total), []
    for outcome in run.journal.read():
        done.add(outcome.number)
        counts = counts.plus(ok=outcome.ok)
        if outcome.row is not None:
            rows.append(outcome.row)
    return done, counts, rows
