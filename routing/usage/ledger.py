"""When is what a request used written down? Soon, in batches, on a thread; a request never waits for it.

Every `INTERVAL_S` what has ended since goes to the database in one transaction. While that is busy or away,
it goes to the journal on disk instead, and from there to the database once that answers. So a process that is
killed loses at most what was noted in the last interval and the two batches that are on their way.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from fleet.current import CurrentFleet
from fleet.types import Budget, Fleet, UsageSettings
from routing.errors import StateUnavailable
from routing.types import Record
from routing.usage.budget import Budgets, BudgetStatus, Use
from routing.usage.entries import AT_S, COST, DAY, DAY_S, ID, TENANT, Entries, Row, tokens_of
from routing.usage.journal import Journal
from routing.usage.query import UsageLine, UsageQuery
from routing.usage.store import CHUNK, UsageStore

INTERVAL_S = 0.5
BATCH = 5000  # rows of one transaction; SQLite takes 32 766 parameters, where ids are looked for
MAX_PENDING = 100_000  # rows in memory where neither database nor disk takes any; some 50 MB
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
BUDGETS_S = 15.0  # between two looks at what other gateways have written
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
        budgets: Budgets,
        *,
        interval_s: float = INTERVAL_S,
        max_journal_bytes: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is for the journal; it is made when it is needed. `now` gives Unix time.

        `budgets` are kept in step with what is counted and written.
        """
        start = secrets.token_hex(6)
        bound = {} if max_journal_bytes is None else {"max_bytes": max_journal_bytes}
        self._store = store
        self._entries = Entries(start)
        self._journal = Journal(folder, start, **bound)
        self._settings = settings
        self.budgets = budgets
        self._written_here: defaultdict[tuple[str, str], Use] = defaultdict(
            Use
        )  # (tenant, month), not told yet
        self._start = start
        self._budgets_at_s = 0.0  # monotonic
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
        self.is_away = False  # whether the database took nothing when it was last tried
        self.lost = 0  # records for which there was no room anywhere

    @classmethod
    def of(cls, fleet: CurrentFleet) -> Ledger:
        """Return the ledger of a fleet, in its state database and folder."""
        state = fleet.now.state
        folder, budgets = Path(state.folder) / "usage", Budgets(_budgets(fleet.now), _currency(fleet.now))
        return cls(UsageStore(state.database_url), folder, fleet.now.usage, budgets)

    def take_fleet(self, fleet: Fleet) -> None:
        """Let the budgets of another fleet count, and its settings; what a new budget has used is asked."""
        self._settings = fleet.usage
        self.budgets.take(_budgets(fleet), _currency(fleet))
        self._budgets_at_s = 0.0

    def count(self, record: Record) -> None:
        """Let its tenant's budget count what a request used, as soon as it has ended. Never fails."""
        if record.target.account in self.budgets:
            use = Use(record.prompt_tokens + record.completion_tokens, record.cost or 0)
            self.budgets.count(record.target.account, use, record.ended_at_s)

    def note(self, records: Iterable[Record]) -> None:
        """Keep what requests used that have ended and were counted. Never fails."""
        self._pending += map(self._entries.row, records)

    def budget_statuses(self) -> list[BudgetStatus]:
        """Say how much of its budget each tenant has used that has one."""
        statuses = (self.budgets.status(tenant, self._now()) for tenant in self.budgets.tenants)
        return [status for status in statuses if status is not None]

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
        for _ in range(2):  # rows that went to disk while work ran are written by the work after it
            if self._work is not None and not self._work.done():
                await asyncio.shield(self._work)  # it may have begun before the rows were noted
            if self._spilling:
                await asyncio.wait(list(self._spilling))
            error = await asyncio.shield(self._begin_work())
            if error is not None:
                raise error
            if not self._journal_waits:
                return

    async def sums(self, query: UsageQuery) -> list[UsageLine]:
        """Answer a query, this gateway's latest requests included. Raises `StateUnavailable`."""
        await self.flush()
        return await self._in_database(self._store.sums, query)

    # -- writing -------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            if time.monotonic() >= self._chores_at_s:
                self._journal_waits = True
            due = self._pending or self._journal_waits or time.monotonic() >= self._budgets_at_s
            busy = self._work is not None and not self._work.done()
            if not busy and time.monotonic() >= self._retry_at_s:
                if due:
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
            await self._tell_budgets()
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
        self.is_away = False
        return None

    async def _put_off(self, rows: Sequence[Row]) -> None:
        """Leave the database alone for a while; what it did not take goes to disk."""
        self.is_away = True
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
        self._write_batches(rows)

    def _write_batches(self, rows: Sequence[Row]) -> None:
        for batch in _batches(rows):
            self._store.write(batch)
            for row in batch if self.budgets.tenants else ():
                if self._start in str(row[ID]):
                    of = str(row[TENANT]), str(row[DAY])[:7]
                    use = Use(tokens_of(row), int(row[COST] or 0))
                    self._written_here[of] = self._written_here[of].plus(use)

    def _read_back(self) -> bool:
        """Write one file of the journal to the database, and remove it; returns whether there was one.

        One with records so old that the database has forgotten which of them it had is kept, and not counted.
        """
        with self._journal.oldest() as found:
            if found is None:
                return False
            path, rows = found
            if any(float(row[AT_S] or 0) < self._forgotten_before_s() for row in rows):
                kept = self._journal.set_aside(path)
                log.error("%s holds usage older than usage.keep_records_days; it is not counted", kept)
                return True
            self._write_batches(rows)
            self._journal.remove(path)
            log.info("the usage of %d requests was read back from the journal", len(rows))
            return True

    async def _tell_budgets(self) -> None:
        """Tell the budgets what is written: by this gateway at once, by others every `BUDGETS_S`."""
        tenants = self.budgets.tenants
        month, first, end = self.budgets.month(self._now())
        here = {tenant: self._written_here[tenant, month] for tenant in tenants}
        if time.monotonic() >= self._budgets_at_s:
            written = await self._in_database(self._store.used, tenants, first, end) if tenants else {}
            self.budgets.take_totals(month, written, here)
            self._budgets_at_s = time.monotonic() + BUDGETS_S
        elif self._written_here:
            self.budgets.note_written(month, here)
        self._written_here.clear()

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


def _budgets(fleet: Fleet) -> dict[str, Budget]:
    return {t.account: t.budget for t in fleet.tenants.values() if t.budget is not None}


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))


def _currency(fleet: Fleet) -> str | None:
    return None if fleet.prices is None else fleet.prices.currency
