"""Brings the files of a source that engines read into a folder, by the source's scheme."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from adapters.checkpoint import ADAPTER
from adapters.errors import AdapterError, SourceUnavailable
from adapters.kind import Kind
from adapters.sources.address import Address, parse
from adapters.sources.archive import take_out
from adapters.sources.download import ATTEMPTS, TIMEOUT_S, Download, Watch, require_promised
from adapters.sources.files import begin, finish, is_part, note_of, part_of
from adapters.sources.local import copy_folder
from adapters.sources.remote import Listing, Remote, RemoteFailure, Unanswered

_ARCHIVE = "archive"  # an archive's name while it is fetched


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """What is fetched, the retries of a fetch, and the model store's folders."""

    attempts: int = ATTEMPTS  # until a source that does not answer is given up
    timeout_s: float = TIMEOUT_S
    wait: Callable[[float], None] = time.sleep  # between attempts, seconds
    kind: Kind = ADAPTER  # of the files that are fetched
    model_folder: Callable[[str], Path] | None = None  # "name:version" of a BentoML model -> its folder


def fetch(
    source: str,
    into: Path,
    *,
    max_bytes: int,
    progress: Callable[[int, int | None], None],
    should_stop: Callable[[], bool],
    sha256: str | None = None,
    settings: FetchSettings | None = None,
) -> None:
    """Bring the files of a source that engines read into a folder, which then holds nothing else.

    An earlier, partial fetch of the same source is continued if the source has not changed.
    `progress` gets bytes here and bytes in all (None: unknown); `should_stop` is called between pieces.
    `sha256` is that of the archive for an archive, else that of the weights, where they are one file.

    Raises `SourceUnavailable` where a retry may help (received bytes are kept), `FetchStopped` when told to
    stop, `ChecksumMismatch`, `StoreFull`, and `AdapterError` where no retry helps.
    """
    address = parse(source)
    settings = settings or FetchSettings()
    kind = settings.kind
    watch = Watch(
        max_bytes, progress, should_stop, settings.wait, settings.attempts, settings.timeout_s, kind.noun
    )
    if address.scheme == "file":
        copy_folder(Path(address.text), into, kind=kind, source=address.shown, sha256=sha256, watch=watch)
    elif address.scheme == "bento":
        folder = _model_folder(address, settings)
        copy_folder(folder, into, kind=kind, source=address.shown, sha256=sha256, watch=watch)
    elif address.is_archive:
        _fetch_archive(address, into, kind, sha256, watch)
    else:
        _fetch_files(address, into, kind, sha256, watch)


def _model_folder(address: Address, settings: FetchSettings) -> Path:
    if settings.model_folder is None:
        raise AdapterError(f"{address.shown}: there is no BentoML model store here; give another source")
    return settings.model_folder(f"{address.path}:{address.revision}")


def _fetch_files(address: Address, into: Path, kind: Kind, sha256: str | None, watch: Watch) -> None:
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in list(into.iterdir()):  # left by a process that was killed while it renamed them
        if kind.serves(path.name):
            path.replace(part_of(into, path.name))
    begin(into, keep=lambda path: is_part(path, kind.serves))
    names: list[str] = []
    with closing(_listing(address, kind)) as remote:
        download = Download(remote, address.shown, into, watch)
        for step in kind.steps(lambda: _listed(remote, address), lambda name: part_of(into, name)):
            names += step
            promised = {} if sha256 is None or kind.promised not in step else {kind.promised: sha256}
            download.run(step, promised)
    require_promised(kind, names, sha256, address.shown)
    finish(into, names)
    begin(into, keep=lambda path: path.name in names)


def _listed(remote: Listing, address: Address) -> Collection[str]:
    """Name a source's files. Raises `SourceUnavailable` and `AdapterError`."""
    try:
        return remote.names()
    except Unanswered as error:
        raise SourceUnavailable(f"{address.shown}: {error}") from None
    except RemoteFailure as error:
        raise AdapterError(f"{address.shown}: {error}") from None


def _fetch_archive(address: Address, into: Path, kind: Kind, sha256: str | None, watch: Watch) -> None:
    archive = part_of(into, _ARCHIVE)
    begin(into, keep=lambda path: path in (archive, note_of(into, _ARCHIVE)))
    with closing(_archive_remote(address, kind)) as remote:
        download = Download(remote, address.shown, into, watch)
        download.run([_ARCHIVE], {} if sha256 is None else {_ARCHIVE: sha256})
    try:
        take_out(archive, into, max_bytes=watch.max_bytes, kind=kind, should_stop=watch.should_stop)
    except SourceUnavailable:
        raise
    except AdapterError:
        download.discard([_ARCHIVE])
        raise
    download.discard([_ARCHIVE])


def _archive_remote(address: Address, kind: Kind) -> Remote:
    if address.scheme in ("http", "https"):
        from adapters.sources.web import WebArchive

        return WebArchive(address)
    return _listing(address, kind)


def _listing(address: Address, kind: Kind) -> Listing:
    if address.scheme == "hf":
        from adapters.sources.hub import HubRepo

        return HubRepo(address, kind)
    from adapters.sources.objects import ObjectStore

    return ObjectStore(address, kind)
