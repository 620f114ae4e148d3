"""Checks that the demo folder is complete, and replaces it by a new one, whole or not at all.

A result is built in a sibling folder and renamed. A lock keeps two runs apart; it ends with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.answers import document
from demo.errors import DemoError
from demo.recipe import Recipe

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a demo folder; written last."""

    fingerprint: str
    seed: int
    bulk: int  # synthetic adapters
    files: dict[str, int]  # relative path -> bytes


def fingerprint(recipe: Recipe) -> str:
    """Return a digest of everything but the seed that decides a demo folder's contents."""
    told = json.dumps([asdict(recipe), document()], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def read_manifest(out: Path) -> Manifest | None:
    """Return the manifest of `out`, or None when there is none or it cannot be read."""
    try:
        raw: Any = json.loads((out / _MANIFEST).read_text())
        return Manifest(
            str(raw["fingerprint"]), int(raw["seed"]), int(raw["bulk"]), dict(raw["files"].items())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def complete(out: Path, recipe: Recipe, *, seed: int) -> Manifest | None:
    """Return the manifest when `out` holds all that `recipe` and `seed` give, else None."""
    manifest = read_manifest(out)
    if manifest is None or (manifest.fingerprint, manifest.seed) != (fingerprint(recipe), seed):
        return None
    sizes = {path: (out / path).stat().st_size for path in manifest.files if (out / path).is_file()}
    return manifest if sizes == manifest.files else None


def seal(folder: Path, recipe: Recipe, *, seed: int, bulk: int) -> Manifest:
    """Write the manifest of all files in `folder`, replacing an earlier one at once, and return it."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
    manifest = Manifest(fingerprint(recipe), seed, bulk, files)
    draft = folder / f".{_MANIFEST}.{os.getpid()}"
    draft.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    draft.replace(folder / _MANIFEST)
    return manifest


def check_replaceable(out: Path) -> None:
    """Raise DemoError when `out` holds something other than demo models."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and read_manifest(out) is None):
        raise DemoError(f"{out} holds something else than demo models; name another folder with --out")


@contextmanager
def locked(out: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `out`; `waiting` is called once when another process has it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Give an empty sibling of `out`, removed in the end with those of killed runs; needs the lock."""
    prefix = f".{out.name}.tmp-"
    for left in out.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, target: Path, *, attic: Path) -> None:
    """Rename `built` to `target`; the old folder moves into `attic`, which the caller removes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(attic / f"old-{target.name}")
    built.rename(target)
