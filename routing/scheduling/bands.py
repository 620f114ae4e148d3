"""In which order are priority bands served? The highest first, with a part of the grants for lower ones.

Strict priority starves the lowest band for as long as the others keep a replica full. So every grant earns
each band that waits below the highest one a small part of a grant, and a band that has earned a whole one
goes first once. Of n grants a waiting band gets at least n * share - 1, if it could use them: the idea of
deficit round robin (Shreedhar and Varghese, SIGCOMM 1995). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

WHOLE = 1.0 - 1e-9  # grants; sums of shares are not exact
MOST = 2.0  # grants; a band that cannot use them does not hoard them


class BandGuard:
    """What the lower bands of one group have earned."""

    def __init__(self, bands: int, share: float) -> None:
        """`share` of all grants, 0..1, is kept for each band below the highest that waits; 0: strict."""
        self.share = share
        self._earned = [0.0] * bands

    def order(self) -> Sequence[int]:
        """Ranks in the order in which they are to be asked: those that have earned a grant, then by rank."""
        ranks = range(len(self._earned))
        if max(self._earned) < WHOLE:
            return ranks
        return sorted(ranks, key=lambda rank: (self._earned[rank] < WHOLE, rank))

    def granted(self, rank: int, waiting: Sequence[int]) -> None:
        """Note a grant to a band; `waiting` is requests by rank."""
        if self._earned[rank] >= WHOLE:
            self._earned[rank] -= 1.0
        for lower in range(1, len(self._earned)):
            earned = self._earned[lower] + self.share
            self._earned[lower] = min(MOST, earned) if waiting[lower] else 0.0
