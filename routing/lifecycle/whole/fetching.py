"""Brings a version of a whole model into the store: fetched, checked file by file, under its digest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from adapters import model_store, sources
from adapters.errors import AdapterError, SourceUnavailable
from adapters.whole_model import WHOLE_MODEL, ModelManifest
from routing.catalog.models import ModelVersion
from routing.lifecycle.intake import Intake
from routing.lifecycle.ports import VersionProgress
from routing.lifecycle.whole.shelf import ModelShelf, key_of

WORKERS = 2  # fetches and checks at once
FETCH_TIMEOUT_S = 24 * 3600.0  # of one attempt; what has come is kept
Place = tuple[str, int]  # model, number of its version


class ModelFetching:
    """The versions that are on their way into the store."""

    def __init__(self, shelf: ModelShelf) -> None:
        self._fleet = shelf.fleet
        self._store = shelf.store
        settings = sources.FetchSettings(
            kind=WHOLE_MODEL, model_folder=model_store.resolve, timeout_s=FETCH_TIMEOUT_S
        )
        self._intake = Intake(shelf.store, shelf.uploads, settings)
        self._workers = asyncio.Semaphore(WORKERS)
        self._stops: dict[Place, threading.Event] = {}
        self.progress: dict[Place, VersionProgress] = {}

    def stop(self, place: Place | None = None) -> None:
        """Break off one fetch, or all, within a moment; what has come is kept."""
        for each, event in self._stops.items():
            if place in (None, each):
                event.set()

    async def bring(
        self,
        place: Place,
        version: ModelVersion,
        checking: Callable[[], Awaitable[None]],
        make_room: Callable[[ModelManifest], Awaitable[None]],
    ) -> ModelManifest:
        """Bring a version into the store; `checking` is told once its files are here.

        Raises `AdapterError`; `SourceUnavailable` and `StoreFull` where another attempt may succeed.
        """
        async with self._workers:
            stop = self._stops[place] = threading.Event()
            try:
                return await self._bring(place, version, stop, checking, make_room)
            finally:
                stop.set()
                self._stops.pop(place, None)
                self.progress.pop(place, None)

    async def _bring(
        self,
        place: Place,
        version: ModelVersion,
        stop: threading.Event,
        checking: Callable[[], Awaitable[None]],
        make_room: Callable[[ModelManifest], Awaitable[None]],
    ) -> ModelManifest:
        if version.digest is not None and await asyncio.to_thread(self._store.has, version.digest):
            await checking()
            stored = await asyncio.to_thread(self._stored, version.digest, stop)
            if stored is not None:
                return stored
            await asyncio.to_thread(self._store.remove, version.digest)
        key = key_of(*place)
        async with self._intake.staged(key, version.source) as staged:
            await self._fetch(place, version, staged, stop)
            await checking()
            manifest = await asyncio.to_thread(WHOLE_MODEL.inspect, staged, stop.is_set)
            await make_room(manifest)
            await asyncio.to_thread(self._store.publish, key, manifest.digest)
            return manifest

    async def is_intact(self, place: Place, digest: str) -> bool:
        """Whether a version in the store is what it was; reads all of it. Raises `SourceUnavailable`."""
        stop = self._stops[place] = threading.Event()
        try:
            return await asyncio.to_thread(self._stored, digest, stop) is not None
        finally:
            stop.set()
            self._stops.pop(place, None)

    def _stored(self, digest: str, stop: threading.Event) -> ModelManifest | None:
        """Return what is in the store under a digest; None where it is not there, or was changed."""
        try:
            found = WHOLE_MODEL.inspect(self._store.folder_of(digest), stop.is_set)
        except SourceUnavailable:
            raise
        except AdapterError:
            return None
        return found if found.digest == digest else None

    async def _fetch(self, place: Place, version: ModelVersion, staged: Path, stop: threading.Event) -> None:
        def progress(done_bytes: int, total_bytes: int | None) -> None:
            self.progress[place] = VersionProgress(done_bytes, total_bytes)

        await self._intake.fetch(
            key_of(*place),
            version.source,
            staged,
            max_bytes=self._fleet.now.state.max_model_bytes,
            sha256=version.sha256,
            progress=progress,
            stop=stop,
        )

    async def discard(self, place: Place, version: ModelVersion) -> None:
        """Delete what has come of a version, and the archive that it was uploaded with."""
        await asyncio.to_thread(self._store.discard, key_of(*place))
        await self._intake.discard_upload(version.source)
