"""Why does something pass on plain vLLM and not through the gateway? Reasons by patterns of check names."""

from __future__ import annotations

from fnmatch import fnmatchcase

REASONS: dict[tuple[str, str], str] = {}


def reason_of(suite: str, check: str) -> str | None:
    """Return the reason for which a check need not pass here; None: there is none."""
    fitting = (why for (of, name), why in REASONS.items() if of == suite and fnmatchcase(check, name))
    return next(fitting, None)
