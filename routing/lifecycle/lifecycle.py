"""Keeps catalog, store and engines in step while adapters come and go.

Requests never wait for it: they read the directory in memory, and engines are told of changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError, StoreFull
from adapters.states import PREPARING, VersionState
from adapters.store import VersionStore
from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterKey, Version
from routing.catalog.sources import Upload
from routing.errors import StateUnavailable, Unavailable
from routing.lifecycle import declared
from routing.lifecycle.aftermath import Aftermath
from routing.lifecycle.changes import Changes
from routing.lifecycle.conclusions import Conclusions
from routing.lifecycle.departures import remove_adapters
from routing.lifecycle.engines import Engines
from routing.lifecycle.placement import Wanted, kept_digests, surplus_versions
from routing.lifecycle.preparation import Preparation
from routing.lifecycle.registry import Registry, patiently
from routing.lifecycle.running import running_tenants
from routing.lifecycle.tenants import Tenants
from routing.lifecycle.trial import MAX_STRIKES, Trial
from routing.lifecycle.whole import WholeModels
from routing.replicas.client import ReplicaClient
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica
from routing.state import StateStore
from routing.types import Record

NEW_FOR_S = 600.0  # a younger version is blamed for engines that die while they load it
log = logging.getLogger("tenantry.lifecycle")


class Lifecycle:
    """Manages the adapters of one gateway, from start to stop."""

    def __init__(
        self,
        fleet: CurrentFleet,
        directory: Directory,
        dispatcher: Dispatcher,
        clients: Mapping[Replica, ReplicaClient],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clients` are those of the replicas, once they are known to be somewhere."""
        state, folder = fleet.now.state, Path(fleet.now.state.folder)
        self.dispatcher = dispatcher
        self.clients = clients
        self._fleet = fleet
        self._directory = directory
        self._clock = clock
        self.registry = Registry(StateStore(state.database_url), directory)
        self.store = VersionStore(folder / "adapters", budget_bytes=state.store_bytes)
        self.uploads = folder / "uploads"
        self._was_settled = False
        self.resume_fleet: Callable[[], Awaitable[None]] | None = None  # before anything else is read
        self._last_used_s: dict[str, float] = {}  # adapter id -> monotonic
        self._leaving: dict[str, str] = {}  # adapter id -> digest, of retired versions still in use
        self._tasks: set[asyncio.Task[None]] = set()
        self.changes = Changes()
        self.is_reconciled = False
        self._trial = Trial(self.registry, dispatcher, Aftermath(clients), clock)
        self.whole = WholeModels(fleet, self.registry, self.changes, clients)
        self.preparation = Preparation(fleet, self.registry, self.store, self.uploads, self)
        self._declared = declared.DeclaredAdapters(
            self.registry, self.preparation.start, self.retire_version, self.unpin_idle
        )
        wanted = Wanted(
            self.preparation.on_trial,
            dispatcher.is_in_use,
            self._last_used_s,
        )
        self.tenants = Tenants(
            fleet, self.registry, self.changes, self._depart, lambda: running_tenants(dispatcher)
        )
        self.engines = Engines(directory, dispatcher, wanted, crashed=self._crashed)
        self.conclusions = Conclusions(
            self.registry, directory, self.changes, self._spawn, self.engines.tell_all
        )
        fleet.follow(self.take_fleet)

    # -- start and stop ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open state and store, bring the catalog in line with fleet.yaml, and resume unfinished work."""
        self._fleet.is_known = False
        self._spawn(self._reconcile())

    async def stop(self) -> None:
        """Stop all work; unfinished work resumes at the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.changes.stop()
        await self.preparation.stop()
        await self.whole.stop()
        await self.registry.close()
        await self.preparation.settled()
        await asyncio.to_thread(self.store.close)

    def is_settled(self) -> bool:
        """Whether the state is guarded, and every adapter declared at the start is ready or was tried."""
        attempted = self.preparation.attempted
        self._was_settled = self._was_settled or (
            self.is_reconciled
            and all(
                version.state not in PREPARING or version.id in attempted
                for entry in self._directory.adapters()
                if entry.declared
                for version in entry.versions[-1:]
            )
        )
        return self._was_settled and self.registry.is_guarded

    async def _reconcile(self) -> None:
        try:
            await self._read_state()
        except AdapterError as error:
            log.error("the gateway does not become ready: %s", error)
            return
        except Exception:
            log.exception("the adapters' state cannot be used; the gateway does not become ready")
            return
        for version in self._versions():
            if version.state is VersionState.REGISTERED:
                self.preparation.start(version)
        self.is_reconciled = True
        self.engines.tell_all()
        self._spawn(self._follow())  # the fleet may have been replaced meanwhile

    def take_fleet(self, _: Fleet) -> None:
        """Follow another fleet: engines are told, adapters that it declares anew are prepared."""
        self.engines.tell_all()
        if self.is_reconciled:
            self._spawn(self._follow())

    async def _follow(self) -> None:
        try:
            await self._declared.follow(self._fleet.now.adapters)
        except Exception:
            log.exception("the adapters could not be brought in line with the fleet")
        self.engines.tell_all()

    async def _read_state(self) -> None:
        """Read the database, register fleet.yaml's adapters, and begin unfinished versions again."""
        await self.registry.open()
        await self.whole.shelf.load()
        await self.tenants.load()
        if self.resume_fleet is not None:
            await self.resume_fleet()
        self._fleet.is_known = True
        self.whole.begin()
        self._spawn(self.registry.guard())
        unfinished = [version for version in self._versions() if version.state in PREPARING]
        await asyncio.to_thread(self._open_store, unfinished)
        await self._declared.begin(self._fleet.now.adapters)
        for version in unfinished:
            await self._begin_again(self.registry.current(version))
        await self._restore_lost()

    def _versions(self) -> list[Version]:
        """List every version of every adapter."""
        return [version for entry in self._directory.adapters() for version in entry.versions]

    def _open_store(self, unfinished: Sequence[Version]) -> None:
        """Open the store and remove files that no version needs."""
        self.store.open()
        self.store.sweep({f"version-{version.id}" for version in unfinished})
        kept = kept_digests(self._directory.adapters())
        for stored in self.store.usage():
            if stored.digest not in kept:
                self.store.remove(stored.digest)
        self.uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
        needed = {v.source.file for v in unfinished if isinstance(v.source, Upload)}
        for path in self.uploads.iterdir():
            if path.name not in needed:
                path.unlink()

    async def _begin_again(self, version: Version) -> None:
        """Send a version whose preparation was interrupted back to its beginning."""
        if version.state in (VersionState.FETCHING, VersionState.VERIFYING):
            await patiently(lambda: self.registry.move(version, VersionState.REGISTERED))

    async def _restore_lost(self) -> None:
        """Prepare versions anew whose files are gone or cut short; an upload stays quarantined."""
        for version in self._versions():
            if version.state is VersionState.READY and not await asyncio.to_thread(
                self.store.seems_whole, version.digest or "", version.size_bytes
            ):
                await self._replace_lost(version)

    async def _replace_lost(self, version: Version) -> None:
        gone = "gone from the store, or damaged there"
        log.error("the files of version %d of %s are %s", version.number, version.adapter, gone)
        quarantined = await patiently(
            lambda: self.registry.move(
                version, VersionState.QUARANTINED, reason=f"its files are {gone}; send or add it again"
            )
        )
        if isinstance(quarantined.source, Upload):
            await self.refused(quarantined)
        else:
            await patiently(lambda: self.registry.move(quarantined, VersionState.REGISTERED))

    def _depart(self, tenant: str) -> None:
        self._spawn(remove_adapters(tenant, self.registry, self.changes, self.retire_version))

    def note_event(self, subject: str, text: str) -> None:
        """Record an event in the background; it is lost if the database does not answer."""
        self._spawn(self.registry.record(subject, text))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- engines -------------------------------------------------------------------------------------------

    def join(self, replica: str) -> asyncio.Event:
        """Take a replica in. The event that is returned asks for a probe at once when it is set."""
        return self.engines.join(replica)

    def leave(self, replica: str) -> None:
        """Drop everything that is kept of a replica that takes part no more."""
        self.engines.leave(replica)

    async def sync(self, client: ReplicaClient) -> bool:
        """Tell a replica its desired adapters, and read its residency. Returns whether it may be used."""
        if not self.is_reconciled:
            return False
        if self._leaving:  # nothing announces the end of the request that they wait for
            self.engines.mark_changed()
        if not await self.engines.sync(client):
            return False
        await self._remove_left()
        return True

    def forget(self, replica: str, *, is_empty: bool = False) -> None:
        """Forget the residency of a replica that answers no more, or `is_empty`: its engine has ended."""
        self.engines.forget(replica, is_empty=is_empty)

    async def try_on_engine(self, version: Version) -> None:
        self.engines.tell_all()
        await self._trial(version)

    def _crashed(self, adapter_id: str, reason: str) -> None:
        """Blame a version for an engine that died while it loaded the version."""
        for version in self._versions():
            if version.state is VersionState.READY and version.engine_id == adapter_id:
                self._spawn(self._blame(version, reason))

    async def _blame(self, version: Version, reason: str) -> None:
        struck = await patiently(lambda: self.registry.note(version, reason, strike=True))
        if struck.strikes >= MAX_STRIKES and time.time() - struck.created_s < NEW_FOR_S:
            await patiently(lambda: self.registry.move(struck, VersionState.QUARANTINED, reason=reason))
            await self.refused(self.registry.current(version))

    async def _remove_left(self) -> None:
        """Delete the files of retired versions that no engine holds and no request needs any more."""
        for adapter_id, digest in list(self._leaving.items()):
            if self.dispatcher.is_in_use(adapter_id) or self.engines.may_hold(adapter_id):
                continue
            self._leaving.pop(adapter_id, None)
            kept = kept_digests(self._directory.adapters())
            if digest not in kept and digest not in self._leaving.values():
                await asyncio.to_thread(self.store.remove, digest)
                log.info("%s is gone from every engine and from the store", adapter_id)

    # -- versions ------------------------------------------------------------------------------------------

    async def make_room(self, need_bytes: int) -> None:
        """Make room in the store. Raises `StoreFull` if there is none; then an old version is retired."""
        entries = self._directory.adapters()
        protected = kept_digests(entries, quarantined=False) | set(self._leaving.values())
        try:
            await asyncio.to_thread(self.store.make_room, need_bytes, protected)
        except StoreFull:
            surplus = [v for entry in entries for v in surplus_versions(entry, 0)]
            if surplus:
                await self._retire_surplus(min(surplus, key=self._used_s))
            raise

    async def _retire_surplus(self, version: Version) -> None:
        """Retire a version, unless it was given traffic meanwhile; one more try finds another, or this."""
        try:
            async with self.changes.of(version.adapter):
                entry = self._directory.adapter(version.adapter)
                if entry is not None and version.id in {v.id for v in surplus_versions(entry, 0)}:
                    await self.retire_version(version)
        except Unavailable as error:
            log.warning("version %d of %s is kept for now: %s", version.number, version.adapter, error)

    def _used_s(self, version: Version) -> float:
        return self._last_used_s.get(version.engine_id, 0.0)

    async def passed(self, version: Version) -> None:
        """Make a version ready. It takes over, or gets its part of a rollout, at once."""
        await patiently(lambda: self._pass(version))
        self.engines.tell_all()

    async def _pass(self, version: Version) -> None:
        """Try once to make a version ready, so that no other change waits for a silent database."""
        async with self.changes.of(version.adapter):
            entry = self.registry.entry(version)
            is_candidate = entry.rollout is not None and entry.rollout.candidate == version.number
            takes_over = entry.live is None or (not is_candidate and version.number > entry.live)
            live, previous, rollout = entry.live, entry.previous, entry.rollout
            if takes_over:
                live, previous = version.number, entry.live
                if rollout is not None and rollout.candidate <= version.number:
                    rollout = None  # one of a later version goes on, against this one
            entry = await self.registry.make_ready(version, live=live, previous=previous, rollout=rollout)
            for old in surplus_versions(entry, self._fleet.now.state.keep_versions):
                try:
                    await self.retire_version(old)
                except StateUnavailable as error:
                    log.warning("version %d of %s is kept for now: %s", old.number, old.adapter, error)

    async def refused(self, version: Version) -> None:
        """Take a quarantined version out of traffic, and end its rollout."""
        await patiently(lambda: self._refuse(version))
        self.engines.tell_all()

    async def _refuse(self, version: Version) -> None:
        async with self.changes.of(version.adapter):
            entry = self.registry.entry(version)
            live, previous = entry.live, entry.previous
            if version.number == live:
                live, previous = (previous if previous and entry.ready(previous) else None), None
            if version.number == entry.live or (entry.rollout and entry.rollout.candidate == version.number):
                await self.registry.route(entry.key, live=live, previous=previous, rollout=None)
            await self.unpin_idle(entry.key)

    async def unpin_idle(self, key: AdapterKey) -> None:
        """End the pin of an adapter without a version to pin."""
        entry = self._directory.adapter(key)
        if entry is not None and entry.pinned and not entry.can_use_a_pin:
            await self.registry.set_pinned(key, False)
            text = "no longer pinned: no version is left to pin"
            await self.registry.record(str(key), text, tenant=key.tenant)

    async def retire_version(self, version: Version) -> None:
        """Take a version out of traffic; its files are deleted once no request or engine needs them."""
        await self.preparation.stop(version)
        await self.registry.settle()
        version = self.registry.current(version)
        if version.state is VersionState.RETIRED:
            return
        await self.registry.move(version, VersionState.RETIRED)
        await self.preparation.discard(version)
        if version.digest is not None:
            self._leaving[version.engine_id] = version.digest
        self.engines.tell_all()

    def observe(self, record: Record) -> None:
        """Count a settled request; it may end a rollout."""
        target = record.target
        if target.adapter_id is None:
            return
        self._last_used_s[target.adapter_id] = self._clock()
        self.conclusions.observe(record)
