"""How does a file lie on a disk that others may read? In frames, each sealed where there is a key.

A frame is its length, the CRC-32 of what follows, and its content: a byte that says whether it is sealed,
then the bytes, plain or as AES-256-GCM's nonce and ciphertext. The seal binds a frame to its file and its
place there, so that nothing can be moved, and the CRC finds a frame that a crash has cut off.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:  # 6 MiB, which a gateway without a key does not need
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FRAME_BYTES = 2**20  # of the content of a file; a journal's frames are as long as what is written at once
MAX_FRAME_BYTES = 2**30
KEY_BYTES = 32
_HEAD = struct.Struct(">II")
_PLAIN, _SEALED = b"p", b"s"
_NONCE_BYTES = 12


class DamagedFile(Exception):
    """A file cannot be read: it is damaged, of another place, or sealed with a key that is not here."""


class Sealer:
    """Seals with one key, or with none."""

    def __init__(self, key: bytes | None = None) -> None:
        """`key` has `KEY_BYTES`; None leaves everything plain."""
        self._cipher = None if key is None else _cipher_of(key)

    def seal(self, data: bytes, name: str, number: int) -> bytes:
        """Make the frame of this number, from 0, of a file of this name."""
        if self._cipher is None:
            content = _PLAIN + data
        else:
            nonce = os.urandom(_NONCE_BYTES)
            content = _SEALED + nonce + self._cipher.encrypt(nonce, data, _place(name, number))
        return _HEAD.pack(len(content), zlib.crc32(content)) + content

    def frames(self, file: BinaryIO, name: str) -> Iterator[bytes]:
        """Read the contents of all whole frames; ends before one that is cut off. Raises `DamagedFile`.

        The file then stands behind the last whole frame.
        """
        number, whole = 0, file.tell()
        while True:
            head = file.read(_HEAD.size)
            length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            content = file.read(length) if 0 < length <= MAX_FRAME_BYTES else b""
            if not content or len(content) != length or zlib.crc32(content) != checksum:
                file.seek(whole)
                return
            whole = file.tell()
            yield self._open(content, name, number)
            number += 1

    def _open(self, content: bytes, name: str, number: int) -> bytes:
        kind, data = content[:1], content[1:]
        if kind == _PLAIN:
            return data
        if self._cipher is None:
            raise DamagedFile("it is encrypted, and gateway.batches.key is not set")
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _place(name, number))
        except InvalidTag:
            raise DamagedFile("it is encrypted with another key, or damaged") from None


def _cipher_of(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _place(name: str, number: int) -> bytes:
    return f"{name}/{number}".encode()
