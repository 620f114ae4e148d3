"""Replaces the fleet while the gateway serves: checked whole, kept on disk, then in force; or not at all.

What engines are started with needs their restart. It is done pool by pool where that is asked for, after the
fleet counts; an engine that was not reached runs on with what it has, and says so.

The document that counts is the one that was applied last, as long as the fleet file on disk is still the one
over which it was applied. A file that was changed since is the newer word, and counts from the next start on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from fleet.changes import values_of
from fleet.current import CurrentFleet
from fleet.diff import Change, Needs, differences
from fleet.entries import differences as tenant_differences
from fleet.file import FleetFile, digest_of
from fleet.isolation import why_shared
from fleet.loader import LoadedFleet
from fleet.money import why_not_renamed
from fleet.present import present_file
from fleet.problems import FleetError, Problem
from fleet.types import Fleet, account_of
from routing.catalog.entries import FleetRevision
from routing.errors import Conflict, InvalidRequest, RequestError, Unavailable, still_starting
from routing.lifecycle.changes import change
from routing.lifecycle.fitting import misfits
from routing.lifecycle.ports import FleetChange, FleetState
from routing.lifecycle.registry import Registry, patiently
from routing.lifecycle.restarts import RollingRestarts
from routing.lifecycle.running import running_tenants
from routing.lifecycle.tenants import Tenants
from routing.scheduling.dispatcher import Dispatcher
from routing.state import Note

FROM_FILE = "fleet file"  # who applied what is on disk
_EVENT_CHARS = 1900
_MOST_NOTED = 500  # tenants with an event of their own; more at once would push all others out
_NOT_APPLIED = "the fleet file was not applied. %s"
log = logging.getLogger("tenantry.fleet")


class FleetRefused(Conflict):
    """The document is a fleet, and cannot replace this one while it serves; has every reason."""

    default_code = "fleet_refused"

    def __init__(self, reasons: Sequence[str], changes: Sequence[Change]) -> None:
        self.reasons, self.changes = list(reasons), list(changes)
        super().__init__("Nothing was changed: " + "; ".join(reasons))

    def body(self) -> bytes:
        """Add the reasons, one by one, and all that would change."""
        changes = [asdict(each) for each in self.changes]
        return _with(super().body(), {"reasons": self.reasons, "changes": changes})


class FleetInvalid(InvalidRequest):
    """The document is no fleet; has every problem."""

    default_code = "fleet_invalid"

    def __init__(self, problems: Sequence[Problem], *, may_be_more: bool) -> None:
        self.problems, self.may_be_more = list(problems), may_be_more
        super().__init__("Nothing was changed: " + "; ".join(map(str, problems)))

    def body(self) -> bytes:
        """Add the problems, one by one."""
        problems = [asdict(each) for each in self.problems]
        return _with(super().body(), {"problems": problems, "may_be_more": self.may_be_more})


class FleetChanges:
    """The one place from which a gateway's fleet is replaced."""

    def __init__(
        self,
        fleet: CurrentFleet,
        registry: Registry,
        dispatcher: Dispatcher,
        tenants: Tenants,
        restarts: RollingRestarts,
    ) -> None:
        """Nothing can be applied before `begin_with`."""
        self._restarts = restarts
        self._fleet = fleet
        self._file: FleetFile | None = None
        self._registry = registry
        self._dispatcher = dispatcher
        self._tenants = tenants
        self.changes = tenants.changes
        # Why the replicas cannot be those of the second fleet; the gateway's replicas know.
        self.why_not: Callable[[Fleet, Fleet], list[str]] = lambda _before, _after: []
        self.of_models: Callable[[Fleet], list[str]] = lambda declared: []  # what it means for whole models
        self.as_told: Callable[[Fleet], Fleet] = lambda now: now  # with sources that a file may name
        self.state = FleetState(0, time.time(), FROM_FILE, "")

    def begin_with(self, file: FleetFile) -> None:
        """Take the file that the fleet comes from; what was applied over it is read at the start."""
        self._file = file

    async def resume(self) -> None:
        """Let the document count that was applied last, unless the file on disk was changed since."""
        if self._file is None:
            return
        newest, raw = await patiently(self._registry.newest_fleet), await self._on_disk()
        document = raw.decode(errors="replace")
        if newest is None:
            self.state = FleetState(0, time.time(), FROM_FILE, document)
        elif newest.file_sha256 != digest_of(raw):
            log.warning(
                "%s was changed since revision %d was applied: the file counts",
                self._file.path,
                newest.number,
            )
            self.state = FleetState(newest.number, time.time(), FROM_FILE, document)
        else:
            self.state = FleetState(newest.number, newest.at_s, newest.actor, newest.document)
            await self._resume(newest, document)

    async def _resume(self, newest: FleetRevision, on_disk: str) -> None:
        try:
            fleet = (await self._load(newest.document.encode())).fleet
            changes = differences(self._fleet.declared, fleet)
            # Settings of engines were applied with their restart; engines say how far that has come.
            if reasons := _needs_restart(changes, engines=True) + self.why_not(self._fleet.now, fleet):
                raise FleetRefused(reasons, changes)
        except (FleetInvalid, FleetRefused) as error:
            text = "revision %d can no longer be used, so that the fleet file counts. %s"
            log.error(text, newest.number, error.message)
            self.state = FleetState(newest.number, time.time(), FROM_FILE, on_disk)
            return
        self._fleet.replace(fleet, newest.number)
        log.info("revision %d of the fleet, by %s, counts", newest.number, newest.actor)

    @change
    async def apply(
        self,
        document: bytes,
        *,
        actor: str,
        expected: int | None = None,
        dry_run: bool = False,
        restart: bool = False,
    ) -> FleetChange:
        """Replace the fleet by a document's, or say what that would do.

        `expected` is the revision of which the caller knows. With `restart`, engines that run with other
        settings than the fleet has then restart, one after the other, once it counts. Raises
        `FleetInvalid`, `FleetRefused`, `Conflict` for another revision, `StateUnavailable`; then nothing has
        changed.
        """
        loaded = await self._load(document)
        async with self.changes.of("fleet"):
            self._require_known(expected)
            await asyncio.to_thread(self._fleet.amend, loaded.fleet)  # takes seconds where thousands differ
            changes = differences(self._fleet.declared, loaded.fleet)
            pools = self._restarts.concerned(loaded.fleet) if restart else []
            unfit = misfits(self._registry.directory.adapters(), self._fleet.now, loaded.fleet)
            reasons = _needs_restart(changes, engines=restart)
            reasons += [why for adapter, why in unfit.items() if adapter.tenant is None]
            reasons += self.why_not(self._fleet.now, loaded.fleet) + self._why_not_now(loaded.fleet, pools)
            reasons += why_not_renamed(self._fleet.declared.prices, loaded.fleet.prices)
            told = self._tenants.consequences(loaded.fleet) + self.of_models(loaded.fleet)
            told += [why for adapter, why in unfit.items() if adapter.tenant is not None]
            text = document.decode("utf-8-sig")
            same = not changes and text == self.state.document
            done = FleetChange(self.state, changes, reasons, loaded.warnings, False, pools, told)
            if dry_run or (same and not pools):
                return done
            if reasons:
                raise FleetRefused(reasons, changes)
            if not same:
                await self._put(loaded.fleet, text, actor, changes, pools)
                for consequence in told:
                    log.warning("made at run time: %s", consequence)
            self._restarts.renew(pools)
            return replace(done, state=self.state, applied=not same)

    async def export(self) -> str:
        """Write the present fleet as a fleet file; where it can be, as the document that counts."""
        document, fleet = self.state.document, self._fleet
        return await asyncio.to_thread(
            present_file,
            document,
            fleet.declared,
            self.as_told(fleet.now),
            lambda raw: self._checked(raw)[0],
        )

    async def apply_file(self) -> None:
        """Apply what the fleet file holds now; for signals and watchers, so it tells the log alone."""
        try:
            await self._apply_file()
        except Unavailable as error:
            log.error(_NOT_APPLIED, error.message)

    async def _apply_file(self) -> None:
        """Apply the fleet file, or log why not. Raises `Unavailable` where it may be applied later."""
        try:
            raw = b"" if self._file is None else await asyncio.to_thread(self._file.read)
            done = await self.apply(raw, actor=FROM_FILE)
        except Unavailable:
            raise
        except RequestError as error:
            log.error(_NOT_APPLIED, error.message)
        except OSError as error:
            log.error(_NOT_APPLIED, f"It cannot be read: {error.strerror}; check its path and permissions.")
        else:
            if not done.applied:
                log.info("the fleet file says what counts already")

    async def watch(self, every_s: float = 1.0) -> None:
        """Apply the fleet file whenever its content changes, until cancelled.

        A change that comes while the database is away is applied once it answers.
        """
        seen = digest_of(await self._on_disk())
        while True:
            await asyncio.sleep(every_s)
            now = digest_of(await self._on_disk())
            if now != seen:
                seen = now
                await patiently(self._apply_file)

    async def _put(
        self, fleet: Fleet, document: str, actor: str, changes: Sequence[Change], pools: Sequence[str]
    ) -> None:
        """Keep a document on disk, then let it count, which is one step."""
        on_disk = digest_of(await self._on_disk())
        revision = FleetRevision(self.state.revision + 1, time.time(), actor, document, on_disk)
        notes = await asyncio.to_thread(self._notes, fleet, revision, changes)
        await self._registry.add_fleet(revision, notes)
        reasons = self._why_not_now(fleet, pools)  # others may have begun meanwhile
        if reasons:
            await self._registry.remove_fleet(revision.number, f"revision {revision.number} was taken back")
            raise FleetRefused(reasons, changes)
        self._fleet.replace(fleet, revision.number)
        self.state = FleetState(revision.number, revision.at_s, actor, document)
        log.info("%s, by %s", _told(revision.number, changes), actor)

    def _notes(self, fleet: Fleet, revision: FleetRevision, changes: Sequence[Change]) -> list[Note]:
        """Return the event of a revision, and one for each tenant that it changes."""
        number, actor = revision.number, revision.actor
        texts: dict[str, list[str]] = {}
        for each in changes:
            if each.section == "tenants":
                texts.setdefault(each.name, []).append(each.text)
        notes = [Note(actor, "fleet", _told(number, changes))]
        for name, words in texts.items() if len(texts) <= _MOST_NOTED else ():
            change = self._tenants.change_of(name)
            if change.apart or change.removed:
                continue  # what is declared is not of the one that has the name now
            values = tenant_differences(values_of(self._fleet.declared, name), values_of(fleet, name))
            text = f"revision {number}: {'; '.join(words)}"
            notes.append(Note(actor, f"tenant {name}", text, account_of(name, change.generation), values))
        return notes

    async def _load(self, document: bytes) -> _Loaded:
        """Check a document as if it stood in the fleet file. Raises `FleetInvalid`."""
        try:
            fleet, loaded = await asyncio.to_thread(self._checked, document)
        except FleetError as error:
            raise FleetInvalid(error.problems, may_be_more=error.may_be_more) from None
        return _Loaded(fleet, loaded.warnings)

    def _checked(self, document: bytes) -> tuple[Fleet, LoadedFleet]:
        if self._file is None:
            raise Conflict("This gateway was started without a fleet file.", code="no_fleet_file")
        return self._file.load(document)

    async def _on_disk(self) -> bytes:
        """Read the fleet file; empty where it cannot be read."""
        try:
            return b"" if self._file is None else await asyncio.to_thread(self._file.read)
        except OSError:
            return b""

    def _why_not_now(self, fleet: Fleet, pools: Sequence[str]) -> list[str]:
        """Say why a fleet cannot count at this moment; `pools` are to be restarted."""
        amended = self._fleet.amend(fleet)
        shared = why_shared(self._fleet.now, amended, running_tenants(self._dispatcher))
        return shared + self._restarts.why_not(pools)

    def _require_known(self, expected: int | None) -> None:
        """Refuse while the state was not read, and to a caller that knows of another revision."""
        if not self._fleet.is_known:
            raise still_starting(2.0)
        if expected is not None and expected != self.state.revision:
            at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.state.at_s))
            raise Conflict(
                f"The fleet is at revision {self.state.revision}, by {self.state.actor} at {at}, and not at "
                f"{expected}; nothing was changed. Look at the difference again.",
                code="fleet_changed",
            )


@dataclass(frozen=True, slots=True)
class _Loaded:
    fleet: Fleet
    warnings: Sequence[Problem]


def _with(body: bytes, more: dict[str, Any]) -> bytes:
    return orjson.dumps(orjson.loads(body) | more)


def _needs_restart(changes: Sequence[Change], *, engines: bool) -> list[str]:
    """Say which changes need a restart that is not done; `engines`: theirs is, one after the other."""
    reasons = {Needs.RESTART: "this needs a restart of the service"}
    if not engines:
        reasons[Needs.ENGINES] = (
            "this needs a restart of its engines, one after the other: apply with --restart (?restart=true)"
        )
    return [f"{each}: {reasons[each.needs]}" for each in changes if each.needs in reasons]


def _told(number: int, changes: Sequence[Change]) -> str:
    """Say what a revision changes, as much of it as an event holds."""
    text = "; ".join(map(str, changes)) or "the document alone was changed"
    if len(text) > _EVENT_CHARS:
        text = f"{text[:_EVENT_CHARS]}... ({len(changes)} changes)"
    return f"revision {number}: {text}"
