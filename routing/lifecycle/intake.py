"""Takes a version's files into a store, from wherever they come: those of adapters and of whole models."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import sources
from adapters.errors import AdapterError, SourceUnavailable
from adapters.store import VersionStore
from routing.catalog.sources import Folder, Source, Upload


@dataclass(frozen=True, slots=True)
class Intake:
    """The way into one store."""

    store: VersionStore
    uploads: Path  # the folder of archives that were sent
    settings: sources.FetchSettings
    _at_work: dict[str, asyncio.Future[None]] = field(default_factory=dict)  # by key; with files open

    @contextlib.asynccontextmanager
    async def staged(self, key: str, source: Source) -> AsyncIterator[Path]:
        """Keep the folder into which the files of a key come; whoever has filled it publishes it.

        After an error nothing of it is left, unless the source may answer later: then the next attempt goes
        on with what has come. Reasons name no folder of this machine.
        """
        staged = await asyncio.to_thread(self.store.stage, key)
        try:
            yield staged
        except SourceUnavailable:
            raise
        except AdapterError as error:
            await asyncio.to_thread(self.store.discard, key)
            raise type(error)(self._without_paths(str(error), staged, source)) from error
        except OSError:
            await asyncio.to_thread(self.store.discard, key)
            raise

    async def fetch(
        self,
        key: str,
        source: Source,
        staged: Path,
        *,
        max_bytes: int,
        sha256: str | None,
        progress: Callable[[int, int | None], None],
        stop: threading.Event,
    ) -> None:
        """Bring a source's files into a key's folder, until told to stop. Raises `AdapterError`.

        Who is cancelled does not wait for a source that is silent just then.
        """
        if isinstance(source, Upload):
            archive, kind = self.uploads / source.file, self.settings.kind
            if not archive.is_file():
                raise AdapterError("the uploaded archive is not kept any more; upload it again")
            work = functools.partial(sources.unpack, archive, staged, kind=kind)
            await self._run(key, work, max_bytes=max_bytes, sha256=sha256, should_stop=stop.is_set)
            return
        await self._run(
            key,
            sources.fetch,
            str(source),
            staged,
            max_bytes=max_bytes,
            sha256=sha256,
            progress=progress,
            should_stop=stop.is_set,
            settings=self.settings,
        )

    async def discard(self, key: str, source: Source) -> None:
        """Delete what has come of a key, and its archive. A failure is repeated at the next start."""
        work = self._at_work.get(key)
        if work is None:
            await asyncio.to_thread(self._discard, key)
        else:
            loop = asyncio.get_running_loop()
            work.add_done_callback(lambda _: loop.run_in_executor(None, self._discard, key))
        await self.discard_upload(source)

    async def settled(self) -> None:
        """Return once no fetch that was broken off has files open any more."""
        if self._at_work:
            await asyncio.wait(set(self._at_work.values()))

    async def discard_upload(self, source: Source) -> None:
        """Delete the archive that a version was sent as. A failure is repeated at the next start."""
        if isinstance(source, Upload):
            with contextlib.suppress(OSError):
                await asyncio.to_thread((self.uploads / source.file).unlink, missing_ok=True)

    async def _run(self, key: str, call: Callable[..., None], /, *args: Any, **options: Any) -> None:
        work = self._at_work[key] = asyncio.ensure_future(asyncio.to_thread(call, *args, **options))
        work.add_done_callback(lambda _: self._at_work.pop(key, None))
        await asyncio.shield(work)

    def _discard(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self.store.discard(key)

    def _without_paths(self, text: str, staged: Path, source: Source) -> str:
        """Cut the machine's folders out of a reason, which tenants may read."""
        for folder in (str(staged), *([source.path] if isinstance(source, Folder) else [])):
            text = text.replace(f"{folder}/", "").replace(folder, f"the {self.settings.kind.noun}")
        return text
