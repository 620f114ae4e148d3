"""Brings the two served files of a source into a folder, by the source's kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterError
from adapters.layout import SERVED_FILES, WEIGHTS_FILE
from adapters.sources.address import Address, parse
from adapters.sources.archive import take_out
from adapters.sources.download import ATTEMPTS, TIMEOUT_S, Download, Watch
from adapters.sources.files import begin, finish, note_of, part_of
from adapters.sources.local import copy_folder
from adapters.sources.remote import Remote

_ARCHIVE = "archive"  # an archive's name while it is fetched


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """Retries of a fetch, and the model store's folders."""

    attempts: int = ATTEMPTS  # until a source that does not answer is given up
    timeout_s: float = TIMEOUT_S
    wait: Callable[[float], None] = time.sleep  # between attempts, seconds
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
    """Bring the two served files of a source into a folder, which then holds nothing else.

    An earlier, partial fetch of the same source is continued if the source has not changed.
    `progress` gets bytes here and bytes in all (None: unknown); `should_stop` is called between pieces.
    `sha256` is that of the archive for an archive, else that of adapter_model.safetensors.

    Raises `SourceUnavailable` where a retry may help (received bytes are kept), `FetchStopped` when told to
    stop, `ChecksumMismatch`, `StoreFull`, and `AdapterError` where no retry helps.
    """
    address = parse(source)
    settings = settings or FetchSettings()
    watch = Watch(max_bytes, progress, should_stop, settings.wait, settings.attempts, settings.timeout_s)
    if address.scheme == "file":
        copy_folder(Path(address.text), into, source=address.shown, sha256=sha256, watch=watch)
    elif address.scheme == "bento":
        folder = _model_folder(address, settings)
        copy_folder(folder, into, source=address.shown, sha256=sha256, watch=watch)
    elif address.is_archive:
        _fetch_archive(address, into, sha256, watch)
    else:
        _fetch_files(address, into, sha256, watch)


def _model_folder(address: Address, settings: FetchSettings) -> Path:
    if settings.model_folder is None:
        raise AdapterError(f"{address.shown}: there is no BentoML model store here; give another source")
    return settings.model_folder(f"{address.path}:{address.revision}")


def _fetch_files(address: Address, into: Path, sha256: str | None, watch: Watch) -> None:
    for name in SERVED_FILES:  # left by a process that was killed while it renamed them
        if (into / name).exists():
            (into / name).replace(part_of(into, name))
    begin(into, keep=[where(into, name) for name in SERVED_FILES for where in (part_of, note_of)])
    with closing(_remote(address)) as remote:
        download = Download(remote, address.shown, into, watch)
        download.run(SERVED_FILES, {} if sha256 is None else {WEIGHTS_FILE: sha256})
    finish(into)
    begin(into, keep=[into / name for name in SERVED_FILES])


def _fetch_archive(address: Address, into: Path, sha256: str | None, watch: Watch) -> None:
    archive = part_of(into, _ARCHIVE)
    begin(into, keep=[archive, note_of(into, _ARCHIVE)])
    with closing(_remote(address)) as remote:
        download = Download(remote, address.shown, into, watch)
        download.run([_ARCHIVE], {} if sha256 is None else {_ARCHIVE: sha256})
    try:
        take_out(archive, into, max_bytes=watch.max_bytes)
    except AdapterError:
        download.discard([_ARCHIVE])
        raise
    download.discard([_ARCHIVE])


def _remote(address: Address) -> Remote:
    if address.scheme in ("http", "https"):
        from adapters.sources.web import WebArchive

        return WebArchive(address)
    if address.scheme == "hf":
        from adapters.sources.hub import HubRepo

        return HubRepo(address)
    from adapters.sources.objects import ObjectStore

    return ObjectStore(address)
