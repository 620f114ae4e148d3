"""Changes the database first, then the running gateway's memory.

A call that raises has changed nothing in either. One thread calls the database, so that its waits
never block the event loop, and calls keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from adapters.states import VersionState
from fleet.tenant_change import TenantChange
from routing.catalog.directory import Directory
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    Alias,
    ApiKey,
    Event,
    FleetRevision,
    Rollout,
    Version,
)
from routing.catalog.models import ModelEntry
from routing.catalog.plans import PlanDocument, PlanKind
from routing.catalog.sources import Source
from routing.errors import StateUnavailable, Unavailable
from routing.lifecycle.changes import ACTOR, RETRY_AFTER_S, TURN_S
from routing.state import Note, PlansStore, StateStore, TenantWritten, TurnsStore

T = TypeVar("T")
R = TypeVar("R")
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
GUARD_INTERVAL_S = 5.0
log = logging.getLogger("tenantry.lifecycle")


class Registry:
    """Adapters and keys: kept on disk, looked up in memory. Its calls raise `StateStore`'s errors."""

    def __init__(self, store: StateStore, directory: Directory) -> None:
        self._store = store
        self.directory = directory
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self.is_guarded = True  # whether the locks held when last checked

    @property
    def turns(self) -> TurnsStore:
        """What the turns of whole models keep in the same database."""
        return TurnsStore(self._store)

    async def plans(self) -> Mapping[PlanKind, PlanDocument]:
        """Read the plan that was published last, and the last look at it."""
        return await self._run(PlansStore(self._store).kept)

    async def keep_plan(self, document: PlanDocument) -> None:
        """Replace the plan, or the last look at it."""
        await self._run(PlansStore(self._store).keep, document)

    async def open(self) -> None:
        """Open the database and read it into memory; waits until it answers."""
        entries, keys = await patiently(self._open)
        for entry in entries:
            self.directory.put(entry)
        for key in keys:
            self.directory.put_key(key)

    async def guard(self) -> None:
        """Keep other programs off the database, from now on."""
        while True:
            with contextlib.suppress(StateUnavailable):  # logged; a missing database needs no guard
                self.is_guarded = await self._run(self._store.is_guarded)
            await asyncio.sleep(GUARD_INTERVAL_S)

    async def close(self) -> None:
        """Close the database."""
        await asyncio.wrap_future(self._thread.submit(self._store.close))
        self._thread.shutdown(wait=False)

    async def _open(self) -> tuple[list[AdapterEntry], list[ApiKey]]:
        await self._run(self._store.open)
        return await self._run(self._store.load)

    async def _run(self, call: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call on the database's thread. Raises `StateUnavailable`, with nothing done, if it stays busy."""
        work = self._thread.submit(functools.partial(call, *args, **options))
        result = asyncio.wrap_future(work)
        await asyncio.wait({result}, timeout=TURN_S)
        if not result.done() and work.cancel():
            raise StateUnavailable(
                f"The state database has been busy for {TURN_S:g} s; nothing was changed. Try again.",
                retry_after_s=RETRY_AFTER_S,
            )
        return await result

    async def _change(self, apply: Callable[[T], R], call: Callable[..., T], *args: Any, **options: Any) -> R:
        """Change the database, then memory; a caller that is cancelled leaves both changed, or neither."""

        async def work() -> R:
            return apply(await self._run(call, *args, **options))

        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # its caller may be gone
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Return once every change that was begun is in memory too, those of cancelled callers included."""
        await self._run(lambda: None)
        await asyncio.sleep(0)

    # -- adapters ------------------------------------------------------------------------------------------

    def entry(self, version: Version) -> AdapterEntry:
        """Return the adapter of a version."""
        entry = self.directory.adapter(version.adapter)
        if entry is None:
            raise LookupError(f"{version.adapter} is gone")
        return entry

    def current(self, version: Version) -> Version:
        """Return a version's current value."""
        return self.entry(version).version(version.number) or version

    async def add_adapter(self, key: AdapterKey, base_model: str, *, declared: bool) -> AdapterEntry:
        """Add an adapter without versions."""
        return await self._change(self._put, self._store.add_adapter, key, base_model, declared=declared)

    async def set_base_model(self, key: AdapterKey, base_model: str) -> AdapterEntry:
        """Change the base model of an adapter whose versions are all retired."""
        return await self._change(self._put, self._store.set_base_model, key, base_model)

    async def add_version(self, key: AdapterKey, *, source: Source, sha256: str | None) -> Version:
        """Add a registered version; its number is the next one."""
        return await self._change(
            self._put_version, self._store.add_version, key, source=source, sha256=sha256
        )

    async def move(self, version: Version, to: VersionState, *, reason: str = "") -> Version:
        """Move a version to another state. Raises `IllegalTransition` too."""
        moved = await self._change(self._put_version, self._store.move, version, to, reason=reason)
        text = f"{to}: {reason}" if reason else str(to)
        await self.record(f"{version.adapter}@{version.number}", text, tenant=version.adapter.tenant)
        return moved

    async def make_ready(
        self, version: Version, *, live: int | None, previous: int | None, rollout: Rollout | None
    ) -> AdapterEntry:
        """Move a version to `ready` and say which versions answer; both become visible at once."""
        entry = await self._change(
            self._put, self._store.make_ready, version, live=live, previous=previous, rollout=rollout
        )
        await self.record(f"{version.adapter}@{version.number}", "ready", tenant=version.adapter.tenant)
        return entry

    async def describe(self, version: Version, *, digest: str, rank: int, size_bytes: int) -> Version:
        """Record the properties of a version's files."""
        return await self._change(
            self._put_version,
            self._store.describe,
            version,
            digest=digest,
            rank=rank,
            size_bytes=size_bytes,
        )

    async def note(self, version: Version, reason: str, *, strike: bool = False) -> Version:
        """Record the reason why an attempt failed, and whether an engine died of it."""
        return await self._change(self._put_version, self._store.note, version, reason, strike=strike)

    async def route(
        self, key: AdapterKey, *, live: int | None, previous: int | None, rollout: Rollout | None
    ) -> AdapterEntry:
        """Say which versions answer."""
        return await self._change(
            self._put, self._store.route, key, live=live, previous=previous, rollout=rollout
        )

    async def set_pinned(self, key: AdapterKey, pinned: bool) -> AdapterEntry:
        """Pin or unpin an adapter."""
        return await self._change(self._put, self._store.set_pinned, key, pinned)

    def _put(self, entry: AdapterEntry) -> AdapterEntry:
        self.directory.put(entry)
        return entry

    def _put_key(self, key: ApiKey) -> ApiKey:
        self.directory.put_key(key)
        return key

    def _put_version(self, version: Version) -> Version:
        self.directory.put_version(version)
        return version

    async def remove_adapter(self, key: AdapterKey) -> None:
        """Delete an adapter whose versions are all retired."""
        await self._change(lambda _: self.directory.remove(key), self._store.remove, key)

    # -- tenants -------------------------------------------------------------------------------------------

    async def tenants(self) -> tuple[list[TenantChange], list[Alias]]:
        """Read what was changed of tenants at run time, and their aliases."""
        return await self._run(self._store.tenants)

    async def tenant_was_used(self, name: str) -> bool:
        """Whether there is anything of a tenant of this name."""
        return await self._run(self._store.tenant_was_used, name)

    async def change_tenant(
        self, change: TenantChange, key: ApiKey | None, note: Note, take: Callable[[TenantChange], None]
    ) -> None:
        """Change a tenant, with its first key if there is one; `take` has the running gateway follow.

        A removal revokes its keys, and its aliases go; who takes its name later has neither. Raises
        `Conflict` where another change came first.
        """

        def apply(written: TenantWritten) -> None:
            ended = frozenset(written.ended_keys)
            for each in [each for each in self.directory.keys() if each.id in ended]:  # noqa: SIM118
                if change.removed:
                    self.directory.put_key(replace(each, revoked_s=change.changed_s))
                else:
                    self.directory.drop_key(each)
            if key is not None:
                self.directory.put_key(key)
            if written.aliases_ended:
                self.directory.remove_aliases(change.tenant)
            take(change)

        await self._change(apply, self._store.change_tenant, change, key, note)
        log.info("%s: %s", note.subject, note.text)

    async def set_alias(self, alias: Alias, note: Note) -> None:
        """Set a tenant's alias; it counts at once."""
        await self._change(lambda _: self.directory.put_alias(alias), self._store.set_alias, alias, note)
        log.info("%s: %s", note.subject, note.text)

    async def remove_alias(self, alias: Alias, note: Note) -> None:
        """Remove a tenant's alias at once."""
        await self._change(
            lambda _: self.directory.remove_alias(alias), self._store.set_alias, alias, note, removed=True
        )
        log.info("%s: %s", note.subject, note.text)

    # -- whole models --------------------------------------------------------------------------------------

    async def models(self) -> list[ModelEntry]:
        """Read the whole models that the gateway fetches."""
        return await self._run(self._store.models)

    async def put_model(
        self, entry: ModelEntry, text: str, take: Callable[[ModelEntry], ModelEntry]
    ) -> ModelEntry:
        """Write a model, with an event unless the text is empty; `take` has the running gateway follow."""
        note = Note(ACTOR.get(), f"model {entry.name}", text) if text else None
        written = await self._change(take, self._store.put_model, entry, note)
        if text:
            log.info("model %s: %s", entry.name, text)
        return written

    async def remove_model(self, name: str, take: Callable[[None], None]) -> None:
        """Delete a model."""
        await self._change(take, self._store.remove_model, name)

    # -- keys and events -----------------------------------------------------------------------------------

    async def add_key(self, key: ApiKey) -> None:
        """Add a key; it is valid at once."""
        await self._change(lambda _: self.directory.put_key(key), self._store.add_key, key)

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key at once. Raises `NotFound`."""
        return await self._change(self._put_key, self._store.revoke_key, key_id, time.time())

    async def set_key_limits(self, key_id: str, limits: Mapping[str, int | None]) -> ApiKey:
        """Replace limits of a key; they hold from the next request on. Raises `NotFound` and `Conflict`."""
        return await self._change(self._put_key, self._store.set_key_limits, key_id, limits)

    async def events(
        self,
        limit: int,
        before: int | None,
        *,
        tenant: str | None = None,
        since_s: float | None = None,
        former: bool = False,
    ) -> list[Event]:
        """List events, the newest first; `before` is the id of the last one seen.

        Of a tenant they are those of the present one; `former`: of all that had its name.
        """
        account = tenant if former else self._account(tenant)
        return await self._run(
            self._store.events, limit, before, tenant=account, since_s=since_s, former=former
        )

    def _account(self, tenant: str | None) -> str | None:
        found = None if tenant is None else self.directory.tenant(tenant)
        return tenant if found is None else found.account

    async def newest_fleet(self) -> FleetRevision | None:
        """Return the document that was applied as the fleet last."""
        return await self._run(self._store.newest_fleet)

    async def add_fleet(self, revision: FleetRevision, notes: Sequence[Note]) -> None:
        """Keep a document, with the events that say what it changes."""
        await self._run(self._store.add_fleet, revision, notes)

    async def remove_fleet(self, number: int, text: str) -> None:
        """Take a document back."""
        await self._run(self._store.remove_fleet, number, text)

    async def record(self, subject: str, text: str, *, tenant: str | None = None) -> None:
        """Log an event, and store it if possible; no caller depends on its success."""
        log.info("%s: %s", subject, text)
        try:
            await self._run(self._store.record, ACTOR.get(), subject, text, self._account(tenant))
        except StateUnavailable as error:
            log.warning("not kept in the state database: %s", error)


async def patiently(change: Callable[[], Awaitable[T]]) -> T:
    """Repeat a change until it succeeds. A caller must hold nothing that others wait for."""
    delay_s = FIRST_RETRY_S
    while True:
        try:
            return await change()
        except Unavailable as error:
            log.warning("a change could not be made; again in %.1f s: %s", delay_s, error)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LAST_RETRY_S)
