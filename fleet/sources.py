"""Resolves a model's source (a folder, a hub id or a URL) by its text and the existing files.

Downloads nothing. `~`, `${VAR}` and `${VAR:-default}` are replaced; a relative folder is relative to the
fleet file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SHOWN_CHARS = 200
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class SourceError(ValueError):
    """A text names no source of files."""

    def __init__(self, message: str, remedy: str = "a folder of this machine begins with `/`, `./` or `~`"):
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Source:
    """An absolute folder, a hub id such as `org/name`, or a URL."""

    text: str
    is_folder: bool


def resolve(source: str, *, folder: Path, env: Mapping[str, str]) -> Source:
    """Resolve a source of a fleet file in `folder`. Raises `SourceError`."""
    text = _expanded(source, env)
    if is_url(text):
        return Source(text, is_folder=False)
    path = _folder(text, folder)
    if text.startswith((".", "/", "~")) or text.count("/") > 1 or why_no_folder(path) is None:
        return Source(str(path), is_folder=True)
    if _HUB_ID.fullmatch(text):
        return Source(text, is_folder=False)
    raise SourceError(f"`{shortened(text)}` is neither a folder that exists nor a hub id (org/name)")


def resolve_folder(text: str, *, folder: Path, env: Mapping[str, str]) -> str:
    """Resolve a folder, existing or not. Raises `SourceError`."""
    text = _expanded(text, env)
    if is_url(text):
        raise SourceError("is a URL")
    return str(_folder(text, folder))


def _expanded(source: str, env: Mapping[str, str]) -> str:
    text = expand(source, env)
    if not text or "\0" in text:
        raise SourceError("is empty once its variables are replaced" if not text else "holds a NUL character")
    return text


def _folder(text: str, folder: Path) -> Path:
    try:
        home = Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError:
        user = shortened(text.partition("/")[0])
        raise SourceError(
            f"`{user}` leads nowhere: this machine has no such user, or no home for it"
        ) from None
    return Path(os.path.normpath(folder / home))


def why_no_folder(path: Path) -> str | None:
    """Return why a path is no readable folder; None where it is one."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no folder {shortened(str(path))}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return f"the folder {shortened(str(path))} cannot be looked into: {reason}"
    return None if stat.S_ISDIR(mode) else f"{shortened(str(path))} is no folder"


def shortened(text: str) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `${VAR}` and `${VAR:-default}`. Raises `SourceError` for a variable that is not set."""

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = env.get(name)
        if not found and default is not None:
            return default
        if found is None:
            raise SourceError(f"the environment variable {name} is not set")
        return found

    return _VARIABLE.sub(value, text)


def is_url(source: str) -> bool:
    """Whether a source is a URL."""
    return "://" in source


def is_hub_id(source: str) -> bool:
    """Whether a resolved source is a hub id; a resolved folder is absolute."""
    return not os.path.isabs(source) and not is_url(source)
