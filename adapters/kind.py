"""What a source is asked for and a store keeps: a folder of files, of one kind or another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol


def never() -> bool:
    """Whether to stop: no."""
    return False


class Inspected(Protocol):
    """What was found in a folder."""

    @property
    def digest(self) -> str:
        """Sha256 over (name, sha256) of its files, as engines get them."""

    @property
    def size_bytes(self) -> int:
        """Of its files together."""


class Kind(Protocol):
    """One kind of folder: which files belong to it, and when it is as it should be.

    Every call that looks at files raises `AdapterError` for what is not; no message contains the folder's
    path.
    """

    @property
    def noun(self) -> str:
        """What one of it is called in messages."""

    @property
    def promised(self) -> str:
        """The file whose sha256 may be promised for a source that is no archive."""

    @property
    def layout(self) -> str:
        """What must lie where, for messages."""

    def serves(self, name: str) -> bool:
        """Whether a file of this name is read by engines; others are never taken."""

    def why_not(self, names: Iterable[str]) -> str | None:
        """Return why a folder is none of this kind, by its files' names as `a/b`; None: it is one."""

    def steps(
        self, listed: Callable[[], Collection[str]], here: Callable[[str], Path]
    ) -> Iterator[Sequence[str]]:
        """Name the files to fetch, step by step: what comes later may depend on what has come.

        `listed` says the names of a source's files; `here` where a file of an earlier step lies now.
        """

    def files_in(self, folder: Path) -> Sequence[str]:
        """Name the files of a folder that engines read; nothing but names and links is checked."""

    def inspect(self, folder: Path, should_stop: Callable[[], bool] = never) -> Inspected:
        """Check a folder and describe it; reads all of it. Raises `SourceUnavailable` when it is to stop."""

    def put_plainly(self, folder: Path) -> None:
        """Give a folder of ours the form that engines understand. Raises `OSError`, too."""
