"""What becomes of a version of a whole model: fetched and checked, live, proven by an engine, or taken back.

A version becomes live once its files are in the store; whether an engine starts with it is seen when it
comes awake for the first time. If it does not, the version before it serves again at once, and the new one is
tried twice more, later.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from adapters.errors import AdapterError
from adapters.states import VersionState
from adapters.whole_model import ModelManifest
from routing.catalog.models import MAX_STRIKES, ModelEntry, ModelVersion
from routing.lifecycle.attempts import make_ready
from routing.lifecycle.registry import patiently
from routing.lifecycle.whole.fetching import ModelFetching
from routing.lifecycle.whole.shelf import ALL, ModelShelf, lost

TRY_AGAIN_S = 5.0  # until a version whose engine did not start is tried again; then twice as long
REASON_CHARS = 1000
_S = VersionState
log = logging.getLogger("tenantry.lifecycle")


class ModelSteps:
    """The steps of all versions of one gateway's models."""

    def __init__(self, shelf: ModelShelf) -> None:
        self.shelf = shelf
        self.fetching = ModelFetching(shelf)
        self._preparing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Go on with what was under way."""
        for entry in self.shelf.entries.values():
            if entry.untried is not None and not entry.retiring:
                self.spawn(self._try_again(entry.name, entry.untried))
            for version in entry.unfinished:
                self.prepare(entry.name, version.number)

    async def stop(self) -> None:
        """Stop all work; it goes on at the next start."""
        self.fetching.stop()
        tasks = [*self._preparing.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work in the background, until `stop`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- into the store ------------------------------------------------------------------------------------

    def prepare(self, name: str, number: int) -> None:
        """Begin to make a version ready."""
        place = name, number
        if place not in self._preparing:
            task = self._preparing[place] = asyncio.create_task(self._make_ready(name, number))
            task.add_done_callback(lambda _: self._preparing.pop(place, None))

    async def _make_ready(self, name: str, number: int) -> None:
        try:
            await make_ready(
                f"version {number} of model {name}",
                functools.partial(self._attempt, name, number),
                functools.partial(self._begin_again, name, number),
                functools.partial(self._quarantine, name, number),
            )
        except _Gone:
            pass
        except Exception:
            log.exception("version %d of model %s was given up", number, name)

    async def _attempt(self, name: str, number: int) -> None:
        version = await self._move(name, number, _S.FETCHING)
        manifest = await self.fetching.bring(
            (name, number),
            version,
            functools.partial(self._checking, name, number),
            functools.partial(self._make_room, name, number),
        )
        await patiently(functools.partial(self._pass, name, number, manifest))

    async def _begin_again(self, name: str, number: int, reason: str) -> None:
        await self._move(name, number, _S.REGISTERED, reason)

    async def _checking(self, name: str, number: int) -> None:
        await self._move(name, number, _S.VERIFYING)

    async def _move(self, name: str, number: int, to: VersionState, reason: str = "") -> ModelVersion:
        """Move a version that is being prepared. Raises `_Gone` where it was retired meanwhile."""

        async def move() -> ModelVersion:
            async with self.shelf.changes.of(ALL):
                entry, version = self._unfinished(name, number)
                moved = (
                    version.moved(to, reason) if version.state is not to else replace(version, reason=reason)
                )
                await self.shelf.put(
                    entry.with_version(moved), f"version {number} {to}: {reason}" if reason else ""
                )
                return moved

        return await patiently(move)

    async def _quarantine(self, name: str, number: int, error: AdapterError) -> None:
        version = await self._move(name, number, _S.QUARANTINED, str(error)[:REASON_CHARS])
        await self.fetching.discard((name, number), version)

    def _unfinished(self, name: str, number: int) -> tuple[ModelEntry, ModelVersion]:
        entry = self.shelf.entries.get(name)
        version = None if entry is None else entry.version(number)
        if entry is None or version is None or version not in entry.unfinished:
            raise _Gone
        return entry, version

    async def _make_room(self, name: str, number: int, manifest: ModelManifest) -> None:
        """Make room in the store. Raises `StoreFull` where what is needed leaves none."""
        await patiently(functools.partial(self._describe, name, number, manifest))
        if self.shelf.store.has(manifest.digest):
            return
        serving = {e.serving.digest for e in self.shelf.entries.values() if e.serving is not None}
        needed = self.shelf.digests_coming() | self.shelf.digests_held()
        protected = needed | {digest for digest in serving if digest is not None}
        gone = await asyncio.to_thread(self.shelf.store.make_room, manifest.size_bytes, protected)
        if gone:
            await patiently(functools.partial(self._dropped, frozenset(gone)))

    async def _describe(self, name: str, number: int, manifest: ModelManifest) -> None:
        """Keep what a version holds, so that its files are needed from now on."""
        async with self.shelf.changes.of(ALL):
            entry, version = self._unfinished(name, number)
            known = replace(version, digest=manifest.digest, size_bytes=manifest.size_bytes)
            await self.shelf.put(entry.with_version(known))

    async def _dropped(self, digests: frozenset[str]) -> None:
        """Note that versions were deleted to make room."""
        async with self.shelf.changes.of(ALL):
            for entry in list(self.shelf.entries.values()):
                gone = [v for v in entry.versions if v.state is _S.READY and v.digest in digests]
                for version in gone:
                    entry = entry.with_version(version.moved(_S.RETIRED, "deleted to make room for others"))
                if gone:
                    previous = entry.previous if entry.previous not in {v.number for v in gone} else None
                    await self.shelf.put(
                        replace(entry, previous=previous), "an old version made room for others"
                    )

    async def _pass(self, name: str, number: int, manifest: ModelManifest) -> None:
        """Let a version serve whose files are in the store."""
        async with self.shelf.changes.of(ALL):
            entry, version = self._unfinished(name, number)
            ready = replace(version.moved(_S.READY), digest=manifest.digest, size_bytes=manifest.size_bytes)
            entry = entry.with_version(ready)
            live = entry.serving
            if live is not None and live.number > number and live.state is _S.READY:
                await self.shelf.put(entry, f"version {number} ready")
            else:
                entry = _without_surplus(entry, {number, entry.live})
                await self.shelf.route(entry, number, entry.live, f"version {number} ready")
        await self.fetching.discard((name, number), version)
        self.spawn(self.shelf.remove_files())

    # -- what engines make of it ---------------------------------------------------------------------------

    def outcome(self, model: str, source: str, words: str) -> None:
        """Take note that an engine came awake with these files, or did not start, in which words."""
        entry = self.shelf.entries.get(model)
        for version in entry.versions if entry is not None else ():
            if version.digest is None or source != str(self.shelf.store.folder_of(version.digest)):
                continue
            if words:
                self.spawn(self._failed(model, version, words))
            elif not version.proven:
                self.spawn(self._prove(model, version.number))

    async def _prove(self, name: str, number: int) -> None:
        async def prove() -> None:
            async with self.shelf.changes.of(ALL):
                entry = self.shelf.entries.get(name)
                version = None if entry is None else entry.version(number)
                if entry is not None and version is not None and version.state is _S.READY:
                    proven = replace(version, proven=True, strikes=0, reason="")
                    await self.shelf.put(entry.with_version(proven), f"version {number} has come awake")

        await patiently(prove)
        await self.shelf.remove_files()

    async def _failed(self, name: str, version: ModelVersion, words: str) -> None:
        """Fetch anew what was changed in the store; else go back to the version before it."""
        if not await self.fetching.is_intact((name, version.number), version.digest or ""):
            await patiently(functools.partial(self._replace_lost, name, version.number))
        elif not version.proven:
            again = await patiently(functools.partial(self._go_back, name, version.number, words))
            if again is not None:
                await self._try_again(name, again)

    async def _replace_lost(self, name: str, number: int) -> None:
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entries.get(name)
            version = None if entry is None else entry.version(number)
            if entry is None or version is None or version.state is not _S.READY:
                return
            text = f"the files of version {number} were changed in the store"
            log.error("model %s: %s", name, text)
            await asyncio.to_thread(self.shelf.store.remove, version.digest or "")
            await self.shelf.put(entry.with_version(lost(version, text)), text)
            await self.shelf.renew()
        for each in self.shelf.entries[name].unfinished:
            self.prepare(name, each.number)

    async def _go_back(self, name: str, number: int, words: str) -> ModelVersion | None:
        """Return the version if it is to be tried again."""
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entries.get(name)
            version = None if entry is None else entry.version(number)
            if entry is None or version is None or version.state is not _S.READY or entry.live != number:
                return None
            struck = replace(version, strikes=version.strikes + 1, reason=words[:REASON_CHARS])
            before = entry.version(entry.previous)
            if before is None or before.state is not _S.READY:  # nothing else could serve
                await self.shelf.put(entry.with_version(struck))
                return None
            if struck.strikes >= MAX_STRIKES:
                struck = struck.moved(_S.QUARANTINED, struck.reason)
            text = f"version {number} does not load, {before.number} serves again: {struck.reason}"
            await self.shelf.route(entry.with_version(struck), before.number, None, text)
            return struck if struck.state is _S.READY else None

    async def _try_again(self, name: str, version: ModelVersion) -> None:
        await asyncio.sleep(TRY_AGAIN_S * 2 ** (version.strikes - 1))

        async def try_again() -> None:
            async with self.shelf.changes.of(ALL):
                entry = self.shelf.entries.get(name)
                if entry is not None and entry.untried == version and not entry.retiring:
                    text = f"version {version.number} is tried again"
                    await self.shelf.route(entry, version.number, entry.live, text)

        await patiently(try_again)


class _Gone(Exception):
    """A version was retired while it was prepared."""


def _without_surplus(entry: ModelEntry, kept: set[int | None]) -> ModelEntry:
    """Retire what is ready and serves no more: a whole model is large, and one step back is enough."""
    for version in entry.versions:
        if version.state is _S.READY and version.number not in kept:
            entry = entry.with_version(version.moved(_S.RETIRED))
    return entry
