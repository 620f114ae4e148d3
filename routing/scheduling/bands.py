"""In which order do priority bands get a place? The highest first, with a part of the grants for those below.

Strict priority starves the lowest band for as long as the others keep a replica full. So every grant to
a band earns each lower band that waits a small share of a grant, and whoever has earned a whole one goes
first once. Of n grants in a row, a waiting band gets at least floor(n * share) of those it could use, as in
deficit round robin (Shreedhar and Varghese, SIGCOMM 1995). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence


class BandGuard:
    """What the lower bands of one pool have earned."""

    def __init__(self, bands: int, share: float) -> None:
        """`share` of all grants, 0..1, is kept for each band below the highest that waits; 0: strict."""
        self._share = share
        self._earned = [0.0] * bands

    def order(self) -> Sequence[int]:
        """Ranks in the order in which they are to be asked: those that have earned a grant, then by rank."""
        ranks = range(len(self._earned))
        if max(self._earned) < 1.0:
            return ranks
        return sorted(ranks, key=lambda rank: (self._earned[rank] < 1.0, rank))

    def granted(self, rank: int, waiting: Sequence[int]) -> None:
        """Note a grant to a band while so many wait in each."""
        if self._earned[rank] >= 1.0:
            self._earned[rank] -= 1.0
        for lower in range(rank + 1, len(self._earned)):
            earned = self._earned[lower] + self._share
            self._earned[lower] = min(2.0, earned) if waiting[lower] else 0.0
