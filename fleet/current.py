"""The fleet as it is now: one value that all parts of a gateway read, and that is replaced whole.

A part keeps this, never the fleet itself. Tables that requests look into are derived from each fleet once.
A part that counts by tenant is told after a replacement. All of that is one step of the event loop, so
nobody ever sees half of a change. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fleet.types import Fleet

T = TypeVar("T")


class Derived(Generic[T]):
    """A table of the fleet as it is now."""

    def __init__(self, make: Callable[[Fleet], T], fleet: Fleet) -> None:
        self.make = make
        self.now = make(fleet)


class CurrentFleet:
    """The fleet as it is now, and the number of its revision."""

    def __init__(self, fleet: Fleet, revision: int = 0) -> None:
        self.now = fleet
        self.declared = fleet  # before `amend` put the run time's changes on top
        self.revision = revision  # of what is declared; 0: as fleet.yaml says
        # Models that were added at run time are put into what is declared, tenants' changes on top of that.
        self.extend: Callable[[Fleet], Fleet] = lambda declared: declared
        self.amend: Callable[[Fleet], Fleet] = lambda declared: declared
        self.is_known = True  # False until it is known what was applied or changed before this start
        self._derived: list[Derived[Any]] = []
        self._followers: list[Callable[[Fleet], None]] = []

    def derive(self, make: Callable[[Fleet], T]) -> Derived[T]:
        """Make a table from the fleet, and again from each that replaces it."""
        derived = Derived(make, self.now)
        self._derived.append(derived)
        return derived

    def follow(self, told: Callable[[Fleet], None]) -> None:
        """Call `told` after each replacement, in the order of these calls. It must not fail."""
        self._followers.append(told)

    def replace(self, declared: Fleet, revision: int = 0) -> None:
        """Let another fleet be declared. Where a table cannot be made, nothing changes."""
        self._put(self.amend(declared), declared, revision)

    def renew(self) -> None:
        """Put what was made at run time on top of the same declared fleet anew."""
        self._put(self.amend(self.declared), self.declared, self.revision)

    def change(self, fleet: Fleet) -> None:
        """Let another fleet be the one that counts, while the same is declared."""
        self._put(fleet, self.declared, self.revision)

    def _put(self, fleet: Fleet, declared: Fleet, revision: int) -> None:
        tables = [derived.make(fleet) for derived in self._derived]
        self.now, self.declared, self.revision = fleet, declared, revision
        for derived, table in zip(self._derived, tables, strict=True):
            derived.now = table
        for told in self._followers:
            told(fleet)
