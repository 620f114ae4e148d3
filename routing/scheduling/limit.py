"""How many sequences should a replica run at once so that each keeps its pace?

Additive increase, multiplicative decrease (AIMD). Source: Chiu and Jain, "Analysis of the increase and
decrease algorithms for congestion avoidance", 1989. The signal is the time between two tokens of one
stream, as the gateway sees it, against the pool's objective. The limit only grows while it binds, so that
an idle replica does not look like a fast one. It is never a small constant: that would leave an engine half
empty and move the wait into the queue.
Pure: gaps and the number in flight come in, the limit comes out.
"""

from __future__ import annotations

SMOOTHING = 0.02  # weight of one gap in the running mean: a step of 50 streams replaces most of it
DECREASE = 0.9
LEAST_SEQUENCES = 8  # below it an engine's step costs nearly the same, so that nothing would be won
BINDING = 0.9  # of the limit in flight: more would be there if they were let
HEADROOM = 0.9  # of the objective: above it the limit stays as it is


class ConcurrencyLimit:
    """K_R of one replica. Starts at the most, and comes down only where tokens come too slowly."""

    def __init__(self, itl_slo_s: float, *, least: int, most: int) -> None:
        """`least` and `most` are sequences; the least is at least `LEAST_SEQUENCES`, if the most allows."""
        self._slo_s = itl_slo_s
        self._most = float(most)
        self._least = float(min(most, max(least, LEAST_SEQUENCES)))
        self._limit = self._most
        self._gaps = 0  # since the last decision
        self.itl_s: float | None = None  # running mean; None: no stream yet

    def __repr__(self) -> str:
        itl = "-" if self.itl_s is None else f"{1000 * self.itl_s:.1f}ms"
        return f"<ConcurrencyLimit {self.sequences} itl={itl} slo={1000 * self._slo_s:g}ms>"

    @property
    def sequences(self) -> int:
        """Sequences the replica may have in flight."""
        return int(self._limit)

    def note_gap(self, gap_s: float, tokens: int = 1) -> None:
        """Note that a stream brought so many tokens after so long."""
        itl_s = gap_s / tokens
        before = self.itl_s
        self.itl_s = itl_s if before is None else before + SMOOTHING * (itl_s - before)
        self._gaps += 1

    def decide(self, in_flight: int) -> None:
        """Move the limit by what was noted since the last call; nothing where no stream ran."""
        if not self._gaps or self.itl_s is None:
            return
        self._gaps = 0
        if self.itl_s > self._slo_s:
            # From what runs, not from a limit that nothing had reached.
            self._limit = max(self._least, min(self._limit, float(in_flight)) * DECREASE)
        elif in_flight >= BINDING * self._limit and self.itl_s < HEADROOM * self._slo_s:
            self._limit = min(self._most, self._limit + 1.0)
