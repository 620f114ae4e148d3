"""Makes a registered version ready: fetches, checks and stores it, then tries it on a real engine.

Every step can begin again: after a restart, or when a source or the database does not answer, a version goes
back to `registered`. A fault of the adapter itself puts it into quarantine, with the reason.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from adapters import model_store, sources
from adapters.base_model import BaseModelShape, find_shape
from adapters.checkpoint import AdapterManifest
from adapters.errors import AdapterError
from adapters.states import VersionState
from adapters.store import VersionStore
from adapters.verify import verify
from fleet.current import CurrentFleet
from routing.catalog.entries import Version
from routing.lifecycle.attempts import make_ready
from routing.lifecycle.intake import Intake
from routing.lifecycle.ports import VersionProgress
from routing.lifecycle.registry import Registry, patiently
from routing.lifecycle.threads import in_thread
from routing.lifecycle.trial import NothingSeen

WORKERS = 2  # fetches and checks at once; each tenant has one turn at a time
log = logging.getLogger("tenantry.lifecycle")


class Surroundings(Protocol):
    """The parts of the gateway that preparation needs."""

    async def make_room(self, need_bytes: int) -> None:
        """Make room in the store. Raises `StoreFull`."""

    async def try_on_engine(self, version: Version) -> None:
        """Return once an engine has passed the version. Raises `AdapterError` where it must not serve."""

    async def passed(self, version: Version) -> None:
        """Make the version ready."""

    async def refused(self, version: Version) -> None:
        """Take the version, now quarantined, out of use."""


class Preparation:
    """Prepares every version that is not ready yet, each in a task of its own."""

    def __init__(
        self,
        fleet: CurrentFleet,
        registry: Registry,
        store: VersionStore,
        uploads: Path,
        surroundings: Surroundings,
    ) -> None:
        self._fleet = fleet
        self._registry = registry
        self._store = store
        self._intake = Intake(store, uploads, sources.FetchSettings(model_folder=model_store.resolve))
        self._surroundings = surroundings
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._once_more: set[int] = set()  # versions to begin again once their task has ended
        self._stops: dict[int, threading.Event] = {}
        self._turns: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._trials: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._workers = asyncio.Semaphore(WORKERS)
        self._shapes: dict[tuple[str, str | None], BaseModelShape] = {}  # by source and revision
        self._effective: set[int] = set()  # versions that certainly change answers, even if no trial shows it
        self.progress: dict[int, VersionProgress] = {}
        self.on_trial: set[int] = set()
        self.attempted: set[int] = set()  # versions with an ended attempt, successful or not

    def start(self, version: Version) -> None:
        """Begin, or begin again, to prepare a registered version."""
        if version.id in self._tasks:  # it may be in its last steps, of a refusal
            self._once_more.add(version.id)
            return
        task = self._tasks[version.id] = asyncio.create_task(self._prepare(version))
        task.add_done_callback(lambda _: self._ended(version))

    def _ended(self, version: Version) -> None:
        self._tasks.pop(version.id, None)
        if version.id in self._once_more:
            self._once_more.discard(version.id)
            current = self._registry.current(version)
            if current.state is VersionState.REGISTERED:
                self.start(current)

    async def stop(self, version: Version | None = None) -> None:
        """Stop working on a version, or on all."""
        chosen = list(self._tasks) if version is None else [version.id]
        self._once_more.difference_update(chosen)
        tasks = [self._tasks[number] for number in chosen if number in self._tasks]
        for number in chosen:
            if number in self._stops:
                self._stops[number].set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return once nothing is written into the store any more; everything was told to stop."""
        await self._intake.settled()

    async def _prepare(self, version: Version) -> None:
        try:
            await make_ready(
                f"version {version.number} of {version.adapter}",
                lambda: self._attempt(version),
                lambda reason: self._begin_again(version, reason),
                lambda error: self._quarantine(version, error),
            )
        except Exception:
            log.exception("version %s of %s was given up", version.number, version.adapter)
        finally:
            self.on_trial.discard(version.id)
            self._effective.discard(version.id)
            self.attempted.add(version.id)

    async def _attempt(self, version: Version) -> None:
        """Take all steps once. Raises `AdapterError`."""
        tenant = version.adapter.tenant
        async with self._turns[tenant], self._workers:
            version = await self._move(version, VersionState.FETCHING)
            if not await self._is_stored(version):
                version = await self._fetch_and_store(version)
            else:
                version = await self._move(version, VersionState.VERIFYING)
                await self._verify(version, self._store.folder_of(version.digest or ""))
            await self.discard(version)
        async with self._trials[tenant]:
            self.on_trial.add(version.id)
            try:
                await self._try(version)
            except AdapterError:
                self.on_trial.discard(version.id)  # before the refusal is visible, and engines are told
                raise
            await self._surroundings.passed(self._registry.current(version))

    async def _try(self, version: Version) -> None:
        """Try a version on an engine. Raises `AdapterError`.

        A few prompts do not show every effect: embeddings of rare tokens, a row of the output layer, a rarely
        used expert. If every tensor has its place and is not zero, an ineffective trial is only logged.
        """
        try:
            await self._surroundings.try_on_engine(version)
        except NothingSeen:
            if version.id not in self._effective:
                raise
            text = "no difference was seen in its trial; it serves: each tensor has its place and is not zero"
            log.warning("version %d of %s: %s", version.number, version.adapter, text)
            await self._registry.record(f"{version.adapter}@{version.number}", text)

    async def _is_stored(self, version: Version) -> bool:
        digest = version.digest
        return digest is not None and await asyncio.to_thread(
            lambda: self._store.has(digest) and self._store.check(digest)
        )

    async def _fetch_and_store(self, version: Version) -> Version:
        key = _key_of(version)
        async with self._intake.staged(key, version.source) as staged:
            await self._fetch(version, staged)
            version = await self._move(version, VersionState.VERIFYING)
            manifest = await self._verify(version, staged)
            version = await patiently(
                lambda: self._registry.describe(
                    version, digest=manifest.digest, rank=manifest.rank, size_bytes=manifest.size_bytes
                )
            )
            await self._surroundings.make_room(manifest.size_bytes)
            await in_thread(self._store.publish, key, manifest.digest)
        return version

    async def _fetch(self, version: Version, staged: Path) -> None:
        stop = self._stops[version.id] = threading.Event()

        def progress(done_bytes: int, total_bytes: int | None) -> None:
            self.progress[version.id] = VersionProgress(done_bytes, total_bytes)

        try:
            await self._intake.fetch(
                _key_of(version),
                version.source,
                staged,
                max_bytes=self._fleet.now.state.max_adapter_bytes,
                sha256=version.sha256,
                progress=progress,
                stop=stop,
            )
        finally:
            stop.set()
            self._stops.pop(version.id, None)
            self.progress.pop(version.id, None)

    async def _verify(self, version: Version, folder: Path) -> AdapterManifest:
        name = self._registry.entry(version).base_model
        base = self._fleet.now.base_models.get(name)
        if base is None:
            raise AdapterError(f"fleet.yaml no longer has its base model `{name}`")
        weights = base.source, base.revision
        shape = self._shapes.get(weights)
        if shape is None:
            shape = await asyncio.to_thread(find_shape, base.source, base.revision)
        if shape is not None:  # None while a base model from a hub is being downloaded
            shape = self._shapes[weights] = replace(shape, name=base.name)
        manifest = await in_thread(verify, folder, base=shape)
        if manifest.is_effective:
            self._effective.add(version.id)
        if manifest.rank > base.max_lora_rank:
            raise AdapterError(self._rank_refusal(version, manifest.rank, base.name))
        return manifest

    def _rank_refusal(self, version: Version, rank: int, base_model: str) -> str:
        """Return the refusal of a rank that is too large; it names a pool that takes it, if there is one."""
        base = self._fleet.now.base_models[base_model]
        limit = f"the adapter has rank {rank}, base model `{base_model}` takes at most {base.max_lora_rank}"
        tenant = version.adapter.tenant
        for pool in self._fleet.now.pools.values():
            for name in pool.base_models:
                other = self._fleet.now.base_models[name]
                fits = other.source == base.source and other.max_lora_rank >= rank and other.max_loras > 0
                if fits and (tenant is None or tenant in pool.tenants):
                    return f"{limit}; pool `{pool.name}` would take it: register it for base model `{name}`"
        return f"{limit}; train with a lower rank, or have max_lora_rank of the base model raised"

    async def discard(self, version: Version) -> None:
        """Delete what has come of a version on its way, and its archive; not what is in the store."""
        await self._intake.discard(_key_of(version), version.source)

    async def _move(self, version: Version, to: VersionState) -> Version:
        return await patiently(lambda: self._registry.move(self._registry.current(version), to))

    async def _begin_again(self, version: Version, reason: str) -> None:
        current = self._registry.current(version)
        await patiently(lambda: self._registry.move(current, VersionState.REGISTERED, reason=reason))
        self.attempted.add(version.id)

    async def _quarantine(self, version: Version, error: AdapterError) -> None:
        current, reason = self._registry.current(version), str(error)
        await patiently(lambda: self._registry.move(current, VersionState.QUARANTINED, reason=reason))
        await self.discard(current)  # not before the reason is kept: a start in between knows nothing else
        await self._surroundings.refused(self._registry.current(version))


def _key_of(version: Version) -> str:
    return f"version-{version.id}"
