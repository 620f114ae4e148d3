"""What may be in requests and answers: media, and texts that somebody looks at first. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Media:
    """Which pictures, recordings and films an engine may be given, and from where it may fetch them."""

    hosts: tuple[str, ...] = ()  # from which engines fetch, by https; empty: from none
    max_mib: int = 16  # of one medium, given or fetched
    per_request: int = 16

    @property
    def max_bytes(self) -> int:
        """The size in bytes."""
        return self.max_mib * 2**20
