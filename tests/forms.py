"""Forms with a recording: as clients send them, and as an engine reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PART = re.compile(
    rb'Content-Disposition: form-data; name="([^"\r\n]*)"(; filename="([^"\r\n]*)")?\r\n\r\n(.*)', re.DOTALL
)
TYPE = "multipart/form-data; boundary=cut"
RECORDING = b"RIFF\x00\r\n--cu"  # whatever it is: the gateway does not look into it


def part(name: str, value: bytes, more: str = "") -> bytes:
    """One part of a form of `TYPE`."""
    head = f'--cut\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(
    fields: Mapping[str, str | Sequence[str]] | None = None,
    recording: bytes | None = RECORDING,
    filename: str = "../../etc/passwd",
) -> bytes:
    """Write a whole form of `TYPE`; a field with several values comes several times."""
    told = [
        (name, text)
        for name, value in (fields or {}).items()
        for text in ([value] if isinstance(value, str) else value)
    ]
    body = b"".join(part(name, text.encode()) for name, text in told)
    if recording is not None:
        body += part("file", recording, f'; filename="{filename}"')
    return body + b"--cut--\r\n"


def read_form(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Read what an engine gets: texts by name, lists of those that may repeat, `file` as (name, content)."""
    kind, _, boundary = headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    pieces = body.split(b"--" + boundary.encode())
    assert pieces[0] == b"" and pieces[-1] == b"--\r\n"
    found: dict[str, Any] = {}
    for piece in pieces[1:-1]:
        assert piece.startswith(b"\r\n") and piece.endswith(b"\r\n")
        parts = _PART.fullmatch(piece[2:-2])
        assert parts is not None, piece[:200]
        name, value = parts[1].decode(), parts[4]
        if parts[2]:
            found[name] = (parts[3].decode(), value)
        elif name.endswith("[]"):
            found.setdefault(name, []).append(value.decode())
        else:
            assert name not in found, name
            found[name] = value.decode()
    return found
