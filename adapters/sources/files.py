"""Files grow under partial names in the folder that they are fetched into, and are renamed together."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from adapters.errors import StoreFull

CHUNK_BYTES = 2**20


def part_of(into: Path, name: str) -> Path:
    """Return the path of a partial file."""
    return into / f".{name}.part"


def note_of(into: Path, name: str) -> Path:
    """Return the path of the note that names a partial file's origin."""
    return into / f".{name}.json"


def is_part(path: Path, serves: Callable[[str], bool]) -> bool:
    """Whether this is a partial file, or its note, of a file that is served."""
    name = path.name.removesuffix(".part") if path.suffix == ".part" else path.name.removesuffix(".json")
    return path.name.startswith(".") and name != path.name and serves(name[1:])


def begin(into: Path, keep: Callable[[Path], bool] = lambda path: False) -> None:
    """Make the folder, and empty it except for what is to be kept."""
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in list(os.scandir(into)):
        path = Path(entry.path)
        if keep(path):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def finish(into: Path, names: Iterable[str]) -> None:
    """Give the files their names, in this order."""
    for name in names:
        part_of(into, name).replace(into / name)


def check_room(into: Path, need_bytes: int) -> None:
    """Refuse a fetch before its first byte if the disk cannot hold it. Raises `StoreFull`."""
    free = shutil.disk_usage(into).free
    if need_bytes > free:
        raise StoreFull(
            f"{size_text(need_bytes)} are needed, and the disk of the store has {size_text(free)}; "
            "free some space, or retire adapters or models"
        )


def sha256_of(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(size_bytes: int) -> str:
    """Show a size in the largest unit that leaves it at 1 or above."""
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"
