"""Which lines of a batch have their answer? The one record: line, answer and ledger row together, on disk.

A line counts as answered once it is here, and only then is its row given to the ledger. So a line that ran
when the gateway was killed is here with its row, or runs again and has left nothing: there is never a second
answer, and the ledger has as many rows as there are answers. Everything here blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from routing.batches.sealing import Sealer
from routing.batches.storage import sync_folder


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last word on one line."""

    number: int  # of the line
    ok: bool
    line: bytes  # of the output or of the error file, without its end
    row: tuple[Any, ...] | None  # for the ledger


class Journal:
    """The file of one batch. One writer at a time."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        """`path` is made when something is written; its name goes into the seal."""
        self._path = path
        self._sealer = sealer
        self._frames = 0
        self._size = 0

    def read(self) -> Iterator[Outcome]:
        """Read what is there, and cut off what a crash has left half-written; to be read to its end.

        A line that is there twice is given once. Raises `DamagedFile`, `OSError`.
        """
        self._frames = self._size = 0
        if not self._path.exists():
            return
        seen: set[int] = set()
        with self._path.open("r+b") as file:
            for frame in self._sealer.frames(file, self._path.name):
                self._frames += 1
                for told in filter(None, frame.split(b"\n")):
                    outcome = _outcome(told)
                    if outcome.number not in seen:
                        seen.add(outcome.number)
                        yield outcome
            self._size = file.tell()
            file.truncate()

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Put outcomes on disk, all or none of them. Raises `OSError`."""
        frame = self._sealer.seal(b"\n".join(map(_told, outcomes)), self._path.name, self._frames)
        is_new = not self._path.exists()
        file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.lseek(file, self._size, os.SEEK_SET)  # over what an earlier try has left
            rest = memoryview(frame)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            sync_folder(self._path.parent)
        self._frames, self._size = self._frames + 1, self._size + len(frame)


def _told(outcome: Outcome) -> bytes:
    line = orjson.Fragment(outcome.line)
    return orjson.dumps({"n": outcome.number, "ok": outcome.ok, "line": line, "row": outcome.row})


def _outcome(told: bytes) -> Outcome:
    read = orjson.loads(told)
    row = None if read["row"] is None else tuple(read["row"])
    return Outcome(read["n"], read["ok"], orjson.dumps(read["line"]), row)
