"""What was changed of a tenant at run time, as plain values. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class SetValue:
    """A value that was set at run time."""

    value: Any
    at_s: float  # Unix time
    by: str


@dataclass(frozen=True, slots=True)
class TenantChange:
    """All that was changed of one tenant at run time."""

    tenant: str
    generation: int = 0  # how many tenants of this name were removed before it
    revision: int = 0  # grows with each change; 0: nothing was changed yet
    admitted: bool = False  # at run time: it need not be declared
    apart: bool = False  # was declared when it was removed; takes nothing of what is declared under its name
    removed: bool = False
    values: Mapping[str, SetValue] = field(default_factory=dict)  # by path, as `fleet.entries` has them
    changed_s: float = 0.0  # Unix time
    changed_by: str = ""

    @property
    def is_suspended(self) -> bool:
        """Whether it was suspended at run time."""
        return SUSPENDED in self.values and self.values[SUSPENDED].value is True
