"""Makes API keys at run time."""

from __future__ import annotations

import secrets
import time

from fleet.api_keys import new_key
from fleet.key_hash import hash_key
from fleet.types import KeyLimits
from routing.catalog.entries import ApiKey, KeyRole

PREFIX_CHARS = 12  # shown in lists, so that people recognise a key


def make_key(
    role: KeyRole,
    tenant: str | None,
    *,
    note: str,
    expires_s: float | None = None,
    limits: KeyLimits | None = None,
) -> tuple[str, ApiKey]:
    """Return a key, which is kept nowhere, and its record."""
    secret = new_key()
    key = ApiKey(
        id=secrets.token_hex(8),
        prefix=secret[:PREFIX_CHARS],
        sha256=hash_key(secret),
        role=role,
        tenant=tenant,
        note=note,
        created_s=time.time(),
        expires_s=expires_s,
        limits=limits,
    )
    return secret, key
