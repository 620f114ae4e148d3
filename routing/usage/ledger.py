"""When is what a request used written down? Soon, in batches, on a thread; a request never waits for it.

Every `INTERVAL_S` what has ended since goes to the database in one transaction. While that is busy or away,
it goes to the journal on disk instead, and from there to the database once that answers. So a process that is
killed loses at most what ended in the last interval and the two batches that are on their way.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from routing.errors import StateUnavailable
from routing.record import Record
from routing.types import Fleet, UsageSettings
from routing.usage.entries import AT_S, DAY_S, Entries, Row
from routing.usage.journal import Journal
from routing.usage.query import UsageLine, UsageQuery
from routing.usage.store import CHUNK, UsageStore

INTERVAL_S = 0.5
BATCH = 5000  # rows of one transaction; SQLite takes 32 766 parameters, where ids are looked for
MAX_PENDING = 100_000  # rows in memory where neither database nor disk takes any; some 50 MB
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
CHORES_S = 600.0  # between two looks for what is too old, or was left behind by others
T = TypeVar("T")
log = logging.getLogger("tenantry.usage")


class Ledger:
    """What the requests of one gateway used, from its start to its end."""

    def __init__(
        self,
        store: UsageStore,
        folder: Path,
        settings: UsageSettings,
        *,
        interval_s: float = INTERVAL_S,
        max_journal_bytes: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is for the journal; it is made when it is needed. `now` gives Unix time."""
        start = secrets.token_hex(6)
        bound = {} if max_journal_bytes is None else {"max_bytes": max_journal_bytes}
        self._store = store
        self._entries = Entries(start)
        self._journal = Journal(folder, start, **bound)
        self._settings = settings
        self._interval_s = interval_s
        self._now = now
        self._pending: list[Row] = []
        self._database = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage")
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage-journal")
        self._ticking: asyncio.Task[None] | None = None
        self._work: asyncio.Task[StateUnavailable | None] | None = None
        self._spilling: set[asyncio.Task[None]] = set()
        self._journal_waits = True  # an earlier start may have left something
        self._retry_at_s = 0.0  # monotonic
        self._retry_s = FIRST_RETRY_S
        self._chores_at_s = 0.0  # monotonic
        self.lost = 0  # records for which there was no room anywhere

    @classmethod
    def of(cls, fleet: Fleet) -> Ledger:
        """Return the ledger of a fleet, in its state database and folder."""
        folder = Path(fleet.state.folder) / "usage"
        return cls(UsageStore(fleet.state.database_url), folder, fleet.usage)

    def note(self, record: Record) -> None:
        """Keep what a request that has just ended used. Costs microseconds, and never fails."""
        self._pending.append(self._entries.row(record, self._now()))

    def start(self) -> None:
        """Begin to write; what an earlier start has left in the journal comes first."""
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Write all that was noted, to the database or else to disk, and close."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        if self._work is not None:
            await self._work
        await self._do_work()
        await asyncio.gather(*self._spilling)
        await self._in_database(self._store.close)
        self._journal.close()
        self._database.shutdown(wait=False)
        self._disk.shutdown(wait=False)

    async def flush(self) -> None:
        """Return once all that was noted before is in the database. Raises `StateUnavailable`."""
        if self._work is not None and not self._work.done():
            await asyncio.shield(self._work)  # it may have begun before what is meant was noted
        error = await asyncio.shield(self._begin_work())
        if error is not None:
            raise error

    async def sums(self, query: UsageQuery) -> list[UsageLine]:
        """Answer a query, this gateway's latest requests included. Raises `StateUnavailable`."""
        await self.flush()
        return await self._in_database(self._store.sums, query)

    # -- writing -------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            if time.monotonic() >= self._chores_at_s:
                self._journal_waits = True
            busy = self._work is not None and not self._work.done()
            if not busy and time.monotonic() >= self._retry_at_s:
                if self._pending or self._journal_waits:
                    self._begin_work()
            else:
                self._begin_spill()
            await asyncio.sleep(self._interval_s)

    def _begin_work(self) -> asyncio.Task[StateUnavailable | None]:
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._do_work())
        return self._work

    async def _do_work(self) -> StateUnavailable | None:
        """Write what is pending, then what is in the journal; returns what has stopped it."""
        rows, self._pending = self._pending, []
        try:
            await self._in_database(self._write, rows)
            rows = []
            while self._journal_waits:
                self._journal_waits = await self._in_database(self._read_back)
            if time.monotonic() >= self._chores_at_s:
                await self._prune()
                self._chores_at_s = time.monotonic() + CHORES_S
        except StateUnavailable as error:
            await self._put_off(rows)
            return error
        except Exception:  # the disk, or a fault of ours: no record may be lost by it, and no later one
            log.exception("the usage ledger met an error")
            await self._put_off(rows)
            return StateUnavailable("The usage ledger cannot be read now.", retry_after_s=self._retry_s)
        self._retry_s = FIRST_RETRY_S
        return None

    async def _put_off(self, rows: Sequence[Row]) -> None:
        """Leave the database alone for a while; what it did not take goes to disk."""
        self._retry_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(LAST_RETRY_S, 2 * self._retry_s)
        await self._spill(rows)

    def _begin_spill(self) -> None:
        if self._pending:
            rows, self._pending = self._pending, []
            task = asyncio.create_task(self._spill(rows))
            self._spilling.add(task)
            task.add_done_callback(self._spilling.discard)

    async def _spill(self, rows: Sequence[Row]) -> None:
        """Put rows on disk; where there is no room they stay in memory, up to a bound."""
        if not rows:
            return
        try:
            put = await asyncio.get_running_loop().run_in_executor(self._disk, self._journal.append, rows)
        except OSError as error:
            log.error("the usage journal cannot be written: %s", error.strerror)
            put = False
        if put:
            self._journal_waits = True
            return
        room = max(0, MAX_PENDING - len(self._pending))
        lost = len(rows) - room
        self._pending[:0] = rows[:room]
        if lost > 0:
            self.lost += lost
            log.error("the usage of %d requests is lost: neither database nor disk takes it", lost)

    # -- on the database's thread --------------------------------------------------------------------------

    async def _in_database(self, call: Callable[..., T], *args: Any) -> T:
        work = functools.partial(call, *args)
        return await asyncio.get_running_loop().run_in_executor(self._database, work)

    def _write(self, rows: Sequence[Row]) -> None:
        self._store.open()
        for batch in _batches(rows):
            self._store.write(batch)

    def _read_back(self) -> bool:
        """Write one file of the journal to the database, and remove it; returns whether there was one.

        One with records so old that the database has forgotten which of them it had is kept, and not counted.
        """
        with self._journal.oldest() as found:
            if found is None:
                return False
            path, rows = found
            if any(float(row[AT_S]) < self._forgotten_before_s() for row in rows):
                kept = self._journal.set_aside(path)
                log.error("%s holds usage older than usage.keep_records_days; it is not counted", kept)
                return True
            for batch in _batches(rows):
                self._store.write(batch)
            self._journal.remove(path)
            log.info("the usage of %d requests was read back from the journal", len(rows))
            return True

    async def _prune(self) -> None:
        days_before = datetime.fromtimestamp(self._now(), UTC).date() - timedelta(
            self._settings.keep_sums_days
        )
        while True:
            gone = await self._in_database(
                self._store.prune, self._forgotten_before_s(), days_before.isoformat()
            )
            if gone < CHUNK:
                return

    def _forgotten_before_s(self) -> float:
        return self._now() - self._settings.keep_records_days * DAY_S


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))
