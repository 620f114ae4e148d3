"""Writes `multipart/form-data` for vLLM: fields, and one recording. Pure.

The boundary is always the same, so that a body can be compared with another one; nothing that has it inside
is written, so that no client can end its field and begin another one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

BOUNDARY = b"tenantry-2f9c41d7a6e84b0f93b5c8e07d16a354"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
FILE = "file"  # the field with the recording, at vLLM and at OpenAI
SILENCE_RATE = 16_000  # samples a second, what nearly all models of speech read


def written(fields: Iterable[tuple[str, str]], recording: bytes) -> bytes:
    """Write a form. The recording has no name of a client's; names of fields are the caller's own.

    Raises `ValueError` where a value has the boundary inside.
    """
    parts = []
    for name, value in (*((name, text.encode()) for name, text in fields), (FILE, recording)):
        if BOUNDARY in value:
            raise ValueError("a value has the boundary of forms inside")
        filename = b'; filename="recording"' if name == FILE else b""
        head = b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n'
        parts += [head % (BOUNDARY, name.encode(), filename), value, b"\r\n"]
    return b"".join((*parts, b"--", BOUNDARY, b"--\r\n"))


def silence(duration_s: float) -> bytes:
    """Return a silent recording: a WAV file of one channel and 16 bits."""
    data = bytes(2 * round(duration_s * SILENCE_RATE))
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SILENCE_RATE, 2 * SILENCE_RATE, 2, 16)
    riff = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(riff)) + riff
