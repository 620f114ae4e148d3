"""Has whole models' files on this machine, by the digest of a version of the gateway's store.

The gateway says where a version lies in its store. Where that folder is not on this machine, its name is the
digest by which the files are fetched before the model comes; then engines read the copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from adapters.store import is_digest
from adapters.whole_model import WHOLE_MODEL
from engines.copies import Copies, Folders
from engines.protocol import MODEL_FILES_PATH
from fleet.types import BaseModel


class ModelFiles:
    """The files of the whole models of one host."""

    def __init__(self, folders: Folders, token: str) -> None:
        """`token` is what a gateway wants of its engines."""
        self._copies = Copies(folders, token, kind=WHOLE_MODEL, files_path=MODEL_FILES_PATH)
        self._told: dict[str, str] = {}  # a folder here -> where the gateway has it
        self._fetches: dict[str, asyncio.Task[Path]] = {}  # by digest
        self.at = self._copies.at

    def located(self, model: BaseModel) -> BaseModel:
        """Return a model with its files where they are on this machine, or will be."""
        source = Path(model.source)
        is_version = source.is_absolute() and is_digest(source.name) and source.parent.name == source.name[:2]
        if not is_version or source.is_dir():
            return model
        folder = self._copies.here(source.name) or self._copies.copies.folder_of(source.name)
        self._told[str(folder)] = model.source
        return replace(model, source=str(folder))

    def as_told(self, source: str) -> str:
        """Return a folder of this machine as the gateway knows it."""
        return self._told.get(source, source)

    async def bring(self, model: BaseModel, needed: Callable[[], Collection[str]]) -> bool:
        """Have the files of a located model here; return whether they had to be fetched.

        A copy in one of the folders that are `needed` is not deleted for it. Who leaves ends no fetch, and
        several wait for one. Raises `FilesAway`.
        """
        if model.source not in self._told or self._copies.here(digest := Path(model.source).name) is not None:
            return False
        fetch = self._fetches.get(digest)
        if fetch is None:
            work = self._copies.folder_of(digest, f"model {model.name}", lambda: _digests(needed()))
            fetch = self._fetches[digest] = asyncio.create_task(work)
            fetch.add_done_callback(lambda _: self._fetches.pop(digest, None))
        await asyncio.shield(fetch)
        return True

    async def drop_damaged(self, model: BaseModel) -> bool:
        """Delete a located model's copy if its files were changed; return whether they were."""
        return model.source in self._told and await self._copies.drop_damaged(Path(model.source).name)

    def keep(self, folders: Collection[str]) -> None:
        """Let no host of this machine delete copies in these folders until they are named no more."""
        self._copies.keep(_digests(folder for folder in folders if folder in self._told))

    async def stop(self) -> None:
        """Break off every fetch; what has come is kept."""
        self._copies.stop()
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)


def _digests(folders: Iterable[str]) -> set[str]:
    return {Path(folder).name for folder in folders}
