"""Derives keys from the deployment's one secret: the internal token, and each tenant's cache salt. Pure.

One secret (`TENANTRY_SECRET`) is enough: HMAC-SHA256 under different labels gives independent keys.
"""

from __future__ import annotations

import hashlib
import hmac


def internal_token(secret: bytes) -> str:
    """Token the gateway shows to engines; 64 hex digits."""
    return _derive(secret, "internal-token")


def cache_salt(secret: bytes, account: str) -> str:
    """Prefix-cache salt of an account, so that no tenant's prompts can be guessed from another's latency.

    vLLM takes at most 128 characters, none of `@ / \\ NUL` (fix of CVE-2025-46570); this is 64 hex digits.
    """
    return _derive(secret, f"cache-salt/{account}")


def _derive(secret: bytes, label: str) -> str:
    return hmac.new(secret, label.encode(), hashlib.sha256).hexdigest()
