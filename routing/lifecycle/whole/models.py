"""Whole models that come and go while the gateway runs: what operators ask for, and what the fleet declares.

Each change is in the state database before it counts.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from adapters.states import VersionState
from fleet.current import CurrentFleet
from fleet.sources import is_url
from fleet.types import BaseModel
from routing.catalog.models import ModelEntry, ModelVersion
from routing.catalog.sources import Upload, parse_source
from routing.errors import Conflict, NotFound, still_starting
from routing.lifecycle.changes import Changes, change
from routing.lifecycle.ports import ModelPlace, NewVersion, VersionProgress
from routing.lifecycle.registration import open_source
from routing.lifecycle.registry import Registry, patiently
from routing.lifecycle.whole.shelf import ALL, ModelShelf
from routing.lifecycle.whole.steps import ModelSteps
from routing.lifecycle.whole.values import entry_for, require_unused
from routing.replicas.client import ReplicaClient
from routing.scheduling.state import Replica
from routing.turns.report import NOTHING_KNOWN, Absence

RETRY_AFTER_S = 2.0
LOOK_S = 0.5  # between two looks whether an engine still has what is to be deleted
_S = VersionState
log = logging.getLogger("tenantry.lifecycle")


class WholeModels:
    """The whole models that one gateway fetches."""

    def __init__(
        self,
        fleet: CurrentFleet,
        registry: Registry,
        changes: Changes,
        clients: Mapping[Replica, ReplicaClient],
    ) -> None:
        """`clients` are those of the replicas that take part, or that end what they run."""
        self.changes = changes
        self.shelf = ModelShelf(fleet, registry, changes, clients)
        self.steps = ModelSteps(self.shelf)
        self._declared_before: Mapping[str, BaseModel] = {}
        fleet.follow(lambda _: self._follow_declared())

    def begin(self) -> None:
        """Go on with what was under way; the fleet is known by now."""
        for text in self.shelf.unfit(None):
            log.warning("%s; it is kept, and not served", text)
        self.steps.begin()
        for entry in self.shelf.entries.values():
            if entry.retiring:
                self.steps.spawn(self._forget(entry.name))
        self._follow_declared()

    async def stop(self) -> None:
        """Stop all work; it goes on at the next start."""
        await self.steps.stop()
        await asyncio.to_thread(self.shelf.store.close)

    def entry(self, name: str) -> ModelEntry:
        """Return one model. Raises `NotFound`."""
        return self.shelf.entry(name)

    def entries(self) -> Sequence[ModelEntry]:
        """List the models that the gateway fetches, by name."""
        found = (entry for entry in self.shelf.entries.values() if not entry.retiring)
        return sorted(found, key=lambda entry: entry.name)

    # -- what is seen --------------------------------------------------------------------------------------

    def absence(self, model: str) -> Absence:
        """Say why a model's files are not here."""
        entry = self.shelf.entries.get(model)
        newest = None if entry is None else entry.newest
        if newest is None:
            return NOTHING_KNOWN
        if newest.state is _S.QUARANTINED:
            return Absence(f"version {newest.number} was refused: {newest.reason}", for_good=True)
        progress = self.progress(model, newest.number)
        share = ""
        if progress is not None and progress.total_bytes:
            share = f", {progress.done_bytes / progress.total_bytes:.0%}"
        reason = f": {newest.reason}" if newest.reason else ""
        return Absence(f"version {newest.number} is {newest.state}{share}{reason}", for_good=False)

    def progress(self, model: str, number: int) -> VersionProgress | None:
        """Return how far the fetch of a version is; None: none is running."""
        return self.steps.fetching.progress.get((model, number))

    # -- operators -----------------------------------------------------------------------------------------

    @change
    async def add(self, name: str, place: ModelPlace, new: NewVersion) -> ModelEntry:
        """Add a version, and the model if it is new. Raises `Conflict`, `Forbidden`, `InvalidRequest`."""
        self._require_known()
        source = None if new.source is None else await open_source(new.source, self.shelf.fleet.now, None)
        async with self.shelf.changes.of(ALL):
            entry = entry_for(self.shelf.entries.get(name), name, place, self.shelf.fleet)
            if source is None:
                source = await self._taken_over(new)
            version = ModelVersion(entry.next_number, source, sha256=new.sha256, created_s=time.time())
            try:
                entry = await self.shelf.put(entry.with_version(version), f"version {version.number} added")
            except BaseException:
                await self.steps.fetching.discard((name, version.number), version)
                raise
        self.steps.prepare(name, version.number)
        return entry

    async def _taken_over(self, new: NewVersion) -> Upload:
        """Keep the archive that was uploaded."""
        if new.upload is None:
            raise ValueError("a version has neither a source nor an upload")
        kept = self.shelf.uploads / uuid4().hex
        await asyncio.to_thread(new.upload.rename, kept)
        return Upload(kept.name)

    @change
    async def retry(self, name: str, number: int) -> ModelEntry:
        """Fetch, check and try a quarantined version again. Raises `NotFound` and `Conflict`."""
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entry(name)
            version = _version(entry, number)
            if version.state is not _S.QUARANTINED:
                raise Conflict(
                    f"Version {number} is {version.state}, not quarantined.", code="not_quarantined"
                )
            stored = version.digest is not None and self.shelf.store.has(version.digest)
            if isinstance(version.source, Upload) and not stored:
                raise Conflict(
                    "The uploaded archive is not kept any more; upload it again.", code="upload_gone"
                )
            text = f"version {number} is tried again"
            entry = await self.shelf.put(entry.with_version(version.moved(_S.REGISTERED)), text)
        self.steps.prepare(name, number)
        return entry

    @change
    async def promote(self, name: str, number: int) -> ModelEntry:
        """Have engines start with a version from now on. Raises `NotFound` and `Conflict`."""
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entry(name)
            version = _version(entry, number)
            if version.state is not _S.READY:
                raise Conflict(f"Version {number} is {version.state}, not ready.", code="version_not_ready")
            if number == entry.live:
                raise Conflict(f"Version {number} is live already.", code="version_live")
            return await self.shelf.route(entry, number, entry.live, f"version {number} promoted")

    @change
    async def rollback(self, name: str) -> ModelEntry:
        """Go back to the version before the live one. Raises `NotFound` and `Conflict`."""
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entry(name)
            previous = entry.version(entry.previous)
            if previous is None or previous.state is not _S.READY:
                raise Conflict("There is no version to go back to.", code="no_previous_version")
            text = f"rolled back to version {previous.number}"
            return await self.shelf.route(entry, previous.number, None, text)

    @change
    async def retire(self, name: str, number: int | None) -> None:
        """Retire a version that does not serve, or a model with all of them. Raises `NotFound`, `Conflict`.

        What runs on the model ends there; then its engines end, and its files are deleted.
        """
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entry(name)
            if number is not None:
                await self._retire_version(entry, _version(entry, number))
            elif entry.pool is None:
                raise Conflict(
                    "This model is declared in fleet.yaml; remove it there.", code="model_declared"
                )
            else:
                require_unused(name, self.shelf.fleet.now, self.shelf.registry.directory)
                await self._retire_all(entry)

    async def _retire_version(self, entry: ModelEntry, version: ModelVersion) -> None:
        if version.number == entry.live:
            raise Conflict(
                f"Version {version.number} is live; promote another one first, or retire the model.",
                code="version_live",
            )
        if version.state is _S.RETIRED:
            return
        self.steps.fetching.stop((entry.name, version.number))
        previous = None if entry.previous == version.number else entry.previous
        entry = replace(entry.with_version(version.moved(_S.RETIRED)), previous=previous)
        await self.shelf.put(entry, f"version {version.number} retired")
        await self._clear(entry, version)

    async def _retire_all(self, entry: ModelEntry) -> None:
        for version in entry.versions:
            self.steps.fetching.stop((entry.name, version.number))
            if version.state is not _S.RETIRED:
                entry = entry.with_version(version.moved(_S.RETIRED))
        entry = replace(entry, live=None, previous=None, retiring=True)
        await self.shelf.put(entry, "retired")
        await self.shelf.renew()
        self.steps.spawn(self._forget(entry.name))

    # -- what is declared ----------------------------------------------------------------------------------

    def _follow_declared(self) -> None:
        """Fetch models that are declared with a URL, and forget those that no longer are."""
        if not (self.shelf.is_known and self.shelf.fleet.is_known):
            return
        models = self.shelf.fleet.declared.base_models
        declared = {name: model for name, model in models.items() if is_url(model.source)}
        if declared != self._declared_before:
            self._declared_before = declared
            self.steps.spawn(self._declare(declared))

    async def _declare(self, declared: Mapping[str, BaseModel]) -> None:
        for model in declared.values():
            await patiently(functools.partial(self._declare_one, model))
        for entry in list(self.shelf.entries.values()):
            if entry.pool is None and entry.name not in declared and not entry.retiring:
                await patiently(functools.partial(self._undeclare, entry.name))

    async def _declare_one(self, model: BaseModel) -> None:
        async with self.shelf.changes.of(ALL):
            before = self.shelf.entries.get(model.name)
            entry = replace(before or ModelEntry(model.name, None), pool=None, values={}, retiring=False)
            newest, source = entry.newest, parse_source(model.source)
            if newest is None or (newest.source, newest.sha256) != (source, model.sha256):
                newest = ModelVersion(entry.next_number, source, sha256=model.sha256, created_s=time.time())
            elif newest.state is _S.QUARANTINED:  # the fault may have been corrected since
                newest = newest.moved(_S.REGISTERED)
            entry = entry.with_version(newest)
            if entry != before:
                await self.shelf.put(entry, "declared")
                await self.shelf.renew()
        for version in entry.unfinished:
            self.steps.prepare(model.name, version.number)

    async def _undeclare(self, name: str) -> None:
        async with self.shelf.changes.of(ALL):
            entry = self.shelf.entries.get(name)
            if entry is not None and entry.pool is None and not entry.retiring:
                await self._retire_all(entry)

    # -- when it is over -----------------------------------------------------------------------------------

    async def _forget(self, name: str) -> None:
        """Delete a model that was retired, once no engine has it."""
        digests = {version.digest for version in self.shelf.entries[name].versions}
        while digests & self.shelf.digests_held():  # noqa: ASYNC110 - engines have no event for it
            await asyncio.sleep(LOOK_S)

        async def forget() -> None:
            async with self.shelf.changes.of(ALL):
                entry = self.shelf.entries.get(name)
                if entry is not None and entry.retiring:
                    for version in entry.versions:
                        await self.steps.fetching.discard((name, version.number), version)
                    await self.shelf.remove(name)

        await patiently(forget)
        await self.shelf.remove_files()

    async def _clear(self, entry: ModelEntry, version: ModelVersion) -> None:
        await self.steps.fetching.discard((entry.name, version.number), version)
        self.steps.spawn(self.shelf.remove_files())

    def _require_known(self) -> None:
        if not (self.shelf.is_known and self.shelf.fleet.is_known):
            raise still_starting(RETRY_AFTER_S)


def _version(entry: ModelEntry, number: int) -> ModelVersion:
    version = entry.version(number)
    if version is None:
        raise NotFound(f"`{entry.name}` has no version {number}.", code="version_not_found")
    return version
