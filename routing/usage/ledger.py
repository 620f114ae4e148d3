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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from fleet.current import CurrentFleet
from fleet.types import Budget, Fleet, UsageSettings
from routing.errors import StateUnavailable
from routing.types import Record
from routing.usage.budget import NOTHING, Budgets, BudgetStatus, Use
from routing.usage.entries import AT_S, COST, DAY, DAY_S, ID, KEY, TENANT, Entries, Row, tokens_of, whole
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
_Written = defaultdict[tuple[str, str], Use]  # of (tenant or key, month), here, and not told yet
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
        self.key_budgets = Budgets({})
        self._keys_with_budget: Callable[[], Mapping[str, Budget]] = dict
        self._keys_known: Mapping[str, Budget] | None = None  # those of which the use of the month is known
        self._was_known = False
        self._written_here: _Written = defaultdict(Use)  # by tenant
        self._written_by_key: _Written = defaultdict(Use)
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

    def follow_keys(self, budgets: Callable[[], Mapping[str, Budget]]) -> None:
        """Keep the budgets of keys, by their ids. `budgets` must return the same object until one changes."""
        self._keys_with_budget = budgets

    @property
    def is_known(self) -> bool:
        """Whether it is known what all that have a budget have used of it."""
        return self.budgets.is_known and self._keys_with_budget() is self._keys_known

    def was_known(self) -> bool:
        """Whether that has been so when this was asked; to be asked once all keys are there.

        A budget that is given to a key later does not make it untrue.
        """
        self._was_known = self._was_known or self.is_known
        return self._was_known

    def count(self, record: Record) -> None:
        """Let the budgets of its tenant and key count what a request used, as soon as it has ended.

        Never fails. A line of a batch counts once its answer is safe, by `note_rows`.
        """
        account, key = record.target.account, record.key
        if (account in self.budgets or key in self.key_budgets) and not record.of_batch:
            use = Use(record.prompt_tokens + record.completion_tokens, record.cost or 0)
            self._count(account, key, use, record.ended_at_s)

    def note(self, records: Iterable[Record]) -> None:
        """Keep what requests used that have ended and were counted. Never fails."""
        self._pending += [self._entries.row(record) for record in records if not record.of_batch]

    def row(self, record: Record) -> Row:
        """Return the row of a request that somebody else keeps until `note_rows`."""
        return self._entries.row(record)

    def note_rows(self, rows: Iterable[Row]) -> None:
        """Count and keep rows that are on disk already, by this start or an earlier one.

        Those that the ledger has change nothing; so old ones that it may have forgotten are left out.
        """
        oldest_s = self._forgotten_before_s()
        rows = [row for row in map(whole, rows) if row is not None and float(row[AT_S] or 0) >= oldest_s]
        for row in rows:
            if self._start in str(row[ID]):  # what earlier starts have written is read from the database
                use = Use(tokens_of(row), int(row[COST] or 0))
                self._count(str(row[TENANT]), str(row[KEY] or ""), use, float(row[AT_S] or 0))
        self._pending += rows

    def _count(self, account: str, key: str, use: Use, at_s: float) -> None:
        self.budgets.count(account, use, at_s)
        self.key_budgets.count(key, use, at_s)

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
        await asyncio.gather(*self._spilling)  # what a full disk does not take is pending again
        await self._do_work()
        if self._pending:
            self._lose(len(self._pending))
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
            due = self._pending or self._journal_waits or self._budgets_are_due
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
            self._lose(lost)

    def _lose(self, number: int) -> None:
        self.lost += number
        log.error("the usage of %d requests is lost: neither database nor disk takes it", number)

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
        # Only now: where a batch fails, all of them are tried again.
        for row in rows if self.budgets.tenants or self.key_budgets.tenants else ():
            if self._start in str(row[ID]):
                month, use = str(row[DAY])[:7], Use(tokens_of(row), int(row[COST] or 0))
                for written, owner in (
                    (self._written_here, str(row[TENANT])),
                    (self._written_by_key, str(row[KEY])),
                ):
                    written[owner, month] = written[owner, month].plus(use)

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

    @property
    def _budgets_are_due(self) -> bool:
        return time.monotonic() >= self._budgets_at_s or self._keys_with_budget() is not self._keys_known

    async def _tell_budgets(self) -> None:
        """Tell the budgets what is written: by this gateway at once, by others every `BUDGETS_S`.

        A key that has a budget since the last time learns at once what it has used of the month.
        """
        due, keys = time.monotonic() >= self._budgets_at_s, self._keys_with_budget()
        changed = keys is not self._keys_known
        if changed:
            self.key_budgets.take(keys)
        await self._tell(self.budgets, "tenant", self._written_here, totals=due)
        await self._tell(self.key_budgets, "key", self._written_by_key, totals=due or changed)
        self._keys_known = keys
        if due:
            self._budgets_at_s = time.monotonic() + BUDGETS_S

    async def _tell(self, budgets: Budgets, by: str, written: _Written, *, totals: bool) -> None:
        owners = budgets.tenants
        month, first, end = budgets.month(self._now())
        here = {owner: written.get((owner, month), NOTHING) for owner in owners} if totals or written else {}
        if totals:
            ask = functools.partial(self._store.used, by=by)
            used = await self._in_database(ask, owners, first, end) if owners else {}
            budgets.take_totals(month, {owner: used.get(owner, NOTHING) for owner in owners}, here)
        elif written:
            budgets.note_written(month, here)
        written.clear()

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
