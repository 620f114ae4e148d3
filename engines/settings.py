"""The settings with which an engine runs: as they travel, and the digest by which two are compared. Pure.

A base model's name, its weights and the limits that the gateway keeps are no settings of an engine.
"""

from __future__ import annotations

import functools
import hashlib
import json

from fleet.types import BaseModel
from fleet.values import engine_values

DIGEST_CHARS = 12


@functools.lru_cache(maxsize=1024)
def digest_of(model: BaseModel) -> str:
    """Tell the settings of a base model's engines from others."""
    text = json.dumps(engine_values(model), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]
