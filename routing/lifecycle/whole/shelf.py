"""What is known of whole models: in memory, in the state database, in the fleet; and their files.

A model's row is written whole, so that a version and what serves can never part; then it counts. Whoever
changes a model holds the turn for changes of the fleet.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adapters.states import VersionState
from adapters.store import VersionStore
from adapters.whole_model import WHOLE_MODEL
from engines.health import EngineState
from fleet.current import CurrentFleet
from fleet.held_models import HeldModel, with_models
from fleet.types import Fleet
from routing.catalog.models import ModelEntry, ModelVersion
from routing.catalog.sources import Upload
from routing.errors import NotFound
from routing.lifecycle.changes import Changes
from routing.lifecycle.registry import Registry, patiently
from routing.replicas.client import ReplicaClient
from routing.scheduling.state import Replica

ALL = "fleet"  # changes of the fleet are made one after the other
_LOST = "lost://"  # where the files of a version are that vanished from the store
_S = VersionState
log = logging.getLogger("tenantry.lifecycle")


class ModelShelf:
    """The whole models of one gateway."""

    def __init__(
        self,
        fleet: CurrentFleet,
        registry: Registry,
        changes: Changes,
        clients: Mapping[Replica, ReplicaClient],
    ) -> None:
        """`clients` are those of the replicas that take part, or that end what they run."""
        state = fleet.now.state
        folder = Path(state.folder)
        self.fleet = fleet
        self.registry = registry
        self.changes = changes
        self.entries: dict[str, ModelEntry] = {}
        self.uploads = folder / "model-uploads"
        self.store = VersionStore(folder / "models", budget_bytes=state.model_store_bytes, kind=WHOLE_MODEL)
        self.is_known = False
        self._clients = clients
        self._extended: tuple[Fleet, Fleet] | None = None  # declared, and with the models in it
        fleet.extend = self._extend

    async def load(self) -> None:
        """Read what is known of models, and put them into the fleet; waits until the database answers.

        Raises `AdapterError` where another process has the store.
        """
        for entry in await patiently(self.registry.models):
            self.entries[entry.name] = entry
        await asyncio.to_thread(self._open)
        for entry in list(self.entries.values()):
            resumed = self._resumed(entry)
            if resumed != entry:
                await patiently(functools.partial(self.put, resumed))
        self._extended = None
        self.is_known = True

    def _open(self) -> None:
        """Open the store, and remove files that no version needs."""
        self.store.open()
        entries = self.entries.values()
        unfinished = {key_of(entry.name, v.number): v for entry in entries for v in entry.unfinished}
        self.store.sweep(unfinished.keys())
        self._remove_unneeded(frozenset())
        self.uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
        needed = {v.source.file for v in unfinished.values() if isinstance(v.source, Upload)}
        for path in self.uploads.iterdir():
            if path.name not in needed:
                path.unlink()

    def _resumed(self, entry: ModelEntry) -> ModelEntry:
        """Return a model with what was interrupted, or is lost, back at its beginning."""
        for version in entry.versions:
            if version.state in (_S.FETCHING, _S.VERIFYING):
                entry = entry.with_version(replace(version, state=_S.REGISTERED))
            elif version.state is _S.READY and not self._is_whole(version):
                log.error("the files of version %d of model %s are gone", version.number, entry.name)
                entry = entry.with_version(lost(version, "its files are gone from the store"))
        return entry

    def _is_whole(self, version: ModelVersion) -> bool:
        """Whether a version is in the store, as large as it was."""
        if version.digest is None or not self.store.has(version.digest):
            return False
        files = self.store.folder_of(version.digest).iterdir()
        return sum(path.stat().st_size for path in files) == version.size_bytes

    # -- what counts ---------------------------------------------------------------------------------------

    def _extend(self, declared: Fleet) -> Fleet:
        """Put the models into a declared fleet; the same object for the same one."""
        if self._extended is None or self._extended[0] is not declared:
            self._extended = declared, with_models(declared, self._held()).fleet
        return self._extended[1]

    def as_told(self, now: Fleet) -> Fleet:
        """Return the fleet that counts with such sources of its models as a fleet file may name."""
        told = with_models(self.fleet.declared, self._held(), as_told=True).fleet
        return replace(now, base_models=told.base_models)

    def unfit(self, other: Fleet | None) -> list[str]:
        """Say which models that were added at run time are not served, and why.

        With another declared fleet: which of them would not be by that alone.
        """
        now = with_models(self.fleet.declared, self._held()).unfit
        then = now if other is None else with_models(other, self._held()).unfit
        before = {} if other is None else now
        return [f"model {name}: {why}" for name, why in then.items() if before.get(name) != why]

    def _held(self) -> list[HeldModel]:
        return [self._held_of(entry) for entry in self.entries.values() if not entry.retiring]

    def _held_of(self, entry: ModelEntry) -> HeldModel:
        serving, folder = entry.serving, None
        if serving is not None and serving.state is _S.READY and serving.digest is not None:
            folder = str(self.store.folder_of(serving.digest))
        elif serving is not None and entry.pool is not None:
            folder = f"{_LOST}{entry.name}"  # it stays a base model, whose requests wait
        source = folder if serving is None or isinstance(serving.source, Upload) else str(serving.source)
        return HeldModel(entry.name, entry.pool, entry.values, folder, source or "")

    def entry(self, name: str) -> ModelEntry:
        """Return one model. Raises `NotFound`."""
        entry = self.entries.get(name)
        if entry is None or entry.retiring:
            raise NotFound(self._why_none(name), code="model_not_found")
        return entry

    def _why_none(self, name: str) -> str:
        if name in self.fleet.now.base_models:
            return (
                f"`{name}` is declared with files of its own, without versions; change it in the fleet file."
            )
        return f"The gateway fetches no model `{name}`; `tenantry models add` adds one."

    # -- how a change is made ------------------------------------------------------------------------------

    async def put(self, entry: ModelEntry, text: str = "") -> ModelEntry:
        """Write a model, with an event unless the text is empty; then it counts for whoever looks."""
        return await self.registry.put_model(replace(entry, revision=entry.revision + 1), text, self._take)

    async def route(self, entry: ModelEntry, live: int, previous: int | None, text: str) -> ModelEntry:
        """Say with which version engines start, and which one it follows, if that may serve again."""
        known = entry.version(previous)
        if known is None or known.state is not _S.READY or previous == live:
            previous = None
        entry = await self.put(replace(entry, live=live, previous=previous), text)
        await self.renew()
        return entry

    async def remove(self, name: str) -> None:
        """Forget a model."""
        await self.registry.remove_model(name, lambda _: self._drop(name))

    async def renew(self) -> None:
        """Let the fleet follow its models."""
        await asyncio.to_thread(self.fleet.amend, self.fleet.declared)  # seconds where thousands differ
        self.fleet.renew()

    def _take(self, entry: ModelEntry) -> ModelEntry:
        self.entries[entry.name] = entry
        self._extended = None
        return entry

    def _drop(self, name: str) -> None:
        del self.entries[name]
        self._extended = None

    # -- files ---------------------------------------------------------------------------------------------

    async def remove_files(self) -> None:
        """Delete versions that nobody needs, but for what engines were given that run now."""
        await asyncio.to_thread(self._remove_unneeded, frozenset(self.digests_held()))

    def _remove_unneeded(self, held: frozenset[str]) -> None:
        for stored in self.store.usage():  # what comes meanwhile is not among them
            needed = held.union(*(entry.digests() for entry in list(self.entries.values())))
            if stored.digest not in needed | self.digests_coming():
                self.store.remove(stored.digest)

    def digests_coming(self) -> set[str]:
        """Return the digests of versions that are on their way to be ready."""
        versions = (version for entry in list(self.entries.values()) for version in entry.unfinished)
        return {version.digest for version in versions if version.digest is not None}

    def digests_held(self) -> set[str]:
        """Return the digests of what engines were given that run now."""
        told = (replica.engine.told for replica in list(self._clients))
        shared = ((each.state, each.place) for each in told if each is not None and each.place is not None)
        has = (place for state, place in shared if state is not EngineState.STOPPED or place.asleep)
        return {Path(place.source).name for place in has}


def key_of(model: str, number: int) -> str:
    """Return what the store calls a version that is on its way."""
    return f"{model}@{number}"


def lost(version: ModelVersion, reason: str) -> ModelVersion:
    """Return a version whose files are lost: to be fetched anew, unless it was uploaded."""
    gone = version.moved(_S.QUARANTINED, reason)
    return gone if isinstance(version.source, Upload) else gone.moved(_S.REGISTERED, reason)
