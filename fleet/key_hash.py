"""Hashes API keys: the hash is all that is kept. Pure."""

from __future__ import annotations

import hashlib

FINGERPRINT_CHARS = 16  # of a key's sha256, by which lists and usage know a declared key: 64 bits


def hash_key(key: str) -> str:
    """Hash an API key for storage. Keys are random and long, so one round of SHA-256 is enough."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
