"""Which names does a fleet take: of models, adapters, tenants, pools, and of models at a tenant? Pure."""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_VERSION = re.compile(r".*@[0-9]{1,9}")  # how a request names one version of a model
_LONGEST_ALIAS = 128


def check_name(name: str) -> str:
    """Return the name. Raises `ValueError` for what is none."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 63 of a-z, 0-9, `.`, `_`, `-` and begins with a letter or a digit")
    if ".." in name:
        raise ValueError("a name has no two dots in a row")
    return name


def check_alias(name: str) -> str:
    """Return a tenant's name for a model. Raises `ValueError` for what is none."""
    if not 1 <= len(name) <= _LONGEST_ALIAS or not name.isprintable() or name != name.strip(" /"):
        raise ValueError(
            f"a tenant's name for a model is 1 to {_LONGEST_ALIAS} printable characters, with no space "
            "and no slash at its ends"
        )
    if _VERSION.fullmatch(name):
        raise ValueError("a tenant's name for a model does not end as `@2` does, which names a version")
    if not {".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("a tenant's name for a model has no `.` or `..` between slashes")
    return name


def is_name(text: str) -> bool:
    """Whether a text may be the name of a base model, an adapter, a tenant or a pool."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def is_alias(text: str) -> bool:
    """Whether a text may be a tenant's name for a model."""
    try:
        return bool(check_alias(text))
    except ValueError:
        return False
