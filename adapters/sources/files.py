"""Files grow under partial names in the folder that they are fetched into, and are renamed together."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from adapters.errors import StoreFull
from adapters.layout import SERVED_FILES

CHUNK_BYTES = 2**20


def part_of(into: Path, name: str) -> Path:
    """Return the path of a partial file."""
    return into / f".{name}.part"


def note_of(into: Path, name: str) -> Path:
    """Return the path of the note that names a partial file's origin."""
    return into / f".{name}.json"


def begin(into: Path, keep: Collection[Path] = ()) -> None:
    """Make the folder, and empty it except for `keep`."""
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in list(os.scandir(into)):
        path = Path(entry.path)
        if path in keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def finish(into: Path) -> None:
    """Give the served files their names, the weights last."""
    for name in SERVED_FILES:
        part_of(into, name).replace(into / name)


def check_room(into: Path, need_bytes: int) -> None:
    """Refuse a fetch before its first byte if the disk cannot hold it. Raises `StoreFull`."""
    free = shutil.disk_usage(into).free
    if need_bytes > free:
        raise StoreFull(
            f"{size_text(need_bytes)} are needed, and the disk of the adapter store has {size_text(free)}; "
            "free some space, or retire adapters"
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
