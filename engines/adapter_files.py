"""Has adapters' files on this machine, as `copies` has them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from adapters.errors import AdapterError
from adapters.layout import SERVED_FILES
from engines.copies import Copies, Files, Folders
from engines.residency import EngineAdapter, FilesAway


class AdapterFiles:
    """The files of the adapters of one host's engines."""

    def __init__(self, folders: Folders, token: str) -> None:
        """`token` is what a gateway wants of its engines."""
        self._copies = Copies(folders, token)
        self.at = self._copies.at

    async def folder_of(self, adapter: EngineAdapter, registered: Collection[str]) -> Path:
        """Return the folder with an adapter's files, which are fetched where they are not here.

        A copy of a `registered` digest is not deleted for it. Raises `FilesAway`.
        """
        if adapter.size_bytes:
            with contextlib.suppress(AdapterError, OSError):  # it went just now, or cannot be deleted
                await self._copies.drop_if_cut_short(adapter.digest, adapter.size_bytes)
        files = Files(SERVED_FILES, adapter.size_bytes)
        return await self._copies.folder_of(adapter.digest, adapter.id, lambda: registered, files)


async def nowhere(adapter: EngineAdapter, registered: Collection[str]) -> Path:
    """Have no files. Raises `FilesAway`."""
    raise FilesAway(f"this engine has no place for the files of {adapter.id}")
