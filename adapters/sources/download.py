"""Brings a remote's files into a folder, across broken connections and killed processes.

Each file grows as `.NAME.part`; `.NAME.json` beside it names its origin. The next fetch continues there if
the remote still has the same content, and otherwise begins again. A part is only trusted within one boot
of the machine: after a power failure a file may have its length but not its content.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from adapters.disk import writing
from adapters.errors import AdapterError, ChecksumMismatch, SourceUnavailable
from adapters.kind import Kind
from adapters.sources.files import check_room, note_of, part_of, sha256_of, size_text
from adapters.sources.remote import Changed, Refused, Remote, RemoteFile, Unanswered

FIRST_WAIT_S = 0.5  # before the second attempt; doubles with each
ATTEMPTS = 4
TIMEOUT_S = 3600.0  # of one fetch; the received bytes are kept
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class FetchStopped(SourceUnavailable):
    """The caller asked to stop; the received bytes are kept, and the next fetch continues there."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The progress callback, the stop signal and the bounds of a fetch."""

    max_bytes: int
    progress: Callable[[int, int | None], None]  # bytes here so far, and of all if known
    should_stop: Callable[[], bool]
    wait: Callable[[float], None] = time.sleep
    attempts: int = ATTEMPTS
    timeout_s: float = TIMEOUT_S
    noun: str = "adapter"

    def check_size(self, size_bytes: int, source: str) -> None:
        """Raise `AdapterError` for more than may be fetched."""
        if size_bytes > self.max_bytes:
            raise AdapterError(
                f"{source} is larger than {size_text(self.max_bytes)}; "
                f"point to the {self.noun} alone, or have the limit raised"
            )


@dataclass
class Download:
    """Some files of one remote on their way into a folder."""

    remote: Remote
    source: str  # without secrets, for messages
    into: Path
    watch: Watch
    _has_begun: bool = field(default=False, init=False)
    _deadline_s: float = field(default=0.0, init=False)
    _before_bytes: int = field(default=0, init=False)  # of earlier runs

    def run(self, names: Sequence[str], sha256: Mapping[str, str]) -> None:
        """Fetch files to their partial names, whole and checked; those in `sha256` against its checksums.

        Raises `SourceUnavailable`, keeping the received bytes, and `AdapterError`, `ChecksumMismatch` and
        `StoreFull`, keeping nothing.
        """
        self._deadline_s = time.monotonic() + self.watch.timeout_s
        try:
            files = self._attempts(names)
            for file in files:
                self._check_content(file, sha256.get(file.name, file.sha256))
            self._before_bytes += sum(part_of(self.into, name).stat().st_size for name in names)
        except SourceUnavailable:
            raise
        except AdapterError:
            self.discard(names)
            raise

    def discard(self, names: Sequence[str]) -> None:
        """Remove the received bytes."""
        for name in names:
            part_of(self.into, name).unlink(missing_ok=True)
            note_of(self.into, name).unlink(missing_ok=True)

    def _attempts(self, names: Sequence[str]) -> list[RemoteFile]:
        reason = ""
        for attempt in range(self.watch.attempts):
            if attempt:
                self.watch.wait(FIRST_WAIT_S * 2 ** (attempt - 1))
            self._check_stop()
            try:
                return self._attempt(names)
            except (Unanswered, Changed) as error:
                reason = str(error)
            except Refused as error:
                if not self._has_begun:
                    raise AdapterError(f"{self.source}: {error}") from None
                raise SourceUnavailable(f"{self.source} went away while it was fetched: {error}") from None
        raise SourceUnavailable(f"{self.source}: {reason}; tried {self.watch.attempts} times")

    def _attempt(self, names: Sequence[str]) -> list[RemoteFile]:
        """Fetch the missing bytes, once. Raises `RemoteFailure` and `AdapterError`."""
        files = [self.remote.describe(name) for name in names]
        total = sum(file.size_bytes or 0 for file in files)
        self.watch.check_size(self._before_bytes + total, self.source)
        done = {file.name: self._kept_bytes(file) for file in files}
        check_room(self.into, total - sum(done.values()))
        for file in files:
            self._bring(file, done, total if all(f.size_bytes is not None for f in files) else None)
        if [self.remote.describe(name) for name in names] != files:
            raise Changed("it changed while it was fetched")
        return files

    def _kept_bytes(self, file: RemoteFile) -> int:
        """Return the number of bytes of a file that are here; parts of another content are removed."""
        part, note = part_of(self.into, file.name), note_of(self.into, file.name)
        wanted = self._note(file)
        try:
            kept = part.stat().st_size if file.tag and note.read_text() == wanted else -1
        except (FileNotFoundError, UnicodeDecodeError):
            kept = -1
        if kept >= 0 and (file.size_bytes is None or kept <= file.size_bytes):
            return kept
        part.unlink(missing_ok=True)
        with writing():
            note.write_text(wanted)
            part.touch(mode=0o600)
        return 0

    def _note(self, file: RemoteFile) -> str:
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        return json.dumps({"source": self.source, "tag": file.tag, "size": file.size_bytes, "boot": boot})

    def _bring(self, file: RemoteFile, done: dict[str, int], total: int | None) -> None:
        """Read the rest of a file. Raises `RemoteFailure` and `AdapterError`."""
        self._report(done, total)
        if done[file.name] != file.size_bytes:
            with (
                closing(self.remote.read(file, done[file.name])) as pieces,
                writing(),
                part_of(self.into, file.name).open("ab") as out,
            ):
                for piece in pieces:
                    self._has_begun = True
                    done[file.name] += len(piece)
                    self._check_bounds(file, done)
                    out.write(piece)
                    out.flush()
                    self._report(done, total)
        if file.size_bytes not in (None, done[file.name]):
            raise Unanswered("it ended before all of it had come")

    def _check_bounds(self, file: RemoteFile, done: Mapping[str, int]) -> None:
        if file.size_bytes is not None and done[file.name] > file.size_bytes:
            raise Changed("more came than was announced")
        self.watch.check_size(self._before_bytes + sum(done.values()), self.source)

    def _report(self, done: Mapping[str, int], total: int | None) -> None:
        self._check_stop()
        all_bytes = None if total is None else self._before_bytes + total
        self.watch.progress(self._before_bytes + sum(done.values()), all_bytes)

    def _check_stop(self) -> None:
        if self.watch.should_stop():
            raise FetchStopped(f"{self.source}: stopped before all of it had come")
        if time.monotonic() > self._deadline_s:
            raise SourceUnavailable(
                f"{self.source} did not come within {self.watch.timeout_s:g} s; "
                "the next attempt goes on from there"
            )

    def _check_content(self, file: RemoteFile, promised: str | None) -> None:
        if promised is not None and sha256_of(part_of(self.into, file.name)) != promised.lower():
            raise ChecksumMismatch(
                f"{self.source}: the sha256 of {file.name.lstrip('.')} is not the one promised; "
                "correct the checksum, or the file there"
            )


def require_promised(kind: Kind, names: Sequence[str], sha256: str | None, source: str) -> None:
    """Raise `AdapterError` where a sha256 is promised, and no file is there that it can be of."""
    if sha256 is not None and kind.promised not in names:
        raise AdapterError(
            f"{source}: a sha256 is that of an archive, or of {kind.promised}, which is not there; leave it "
            "out"
        )
