"""The source of a version's files as a value, parsed once where its text comes in. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_UPLOAD, _FILE = "upload:", "file://"


@dataclass(frozen=True, slots=True)
class Upload:
    """An archive that the tenant sent."""

    file: str  # its name in the gateway's folder of uploads

    def __str__(self) -> str:
        return f"{_UPLOAD}{self.file}"


@dataclass(frozen=True, slots=True)
class Remote:
    """A URL; it may hold a signature."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the gateway's machine."""

    path: str

    def __str__(self) -> str:
        return self.path


Source = Upload | Remote | Folder


def parse_source(text: str) -> Source:
    """Read the text of a source, as the state database keeps it; `str` of the value gives it back."""
    if text.startswith(_UPLOAD):
        return Upload(text.removeprefix(_UPLOAD))
    if text.startswith(_FILE):
        return Folder(text.removeprefix(_FILE))
    return Folder(text) if text.startswith("/") or "://" not in text else Remote(text)
