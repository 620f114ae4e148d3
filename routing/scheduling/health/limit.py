"""How many sequences should a replica run at once so that each keeps its pace?

The signal is the mean time between two tokens of one stream over an epoch, as the gateway sees it, against
the pool's objective: the objective is one on the mean of a stream, so one slow step decides nothing. The
limit comes down in proportion and goes up in small steps, as in AIMD (Chiu and Jain, "Analysis of the
increase and decrease algorithms for congestion avoidance", 1989). It comes down again only when the last
time has taken effect, which is when as many streams have ended, and it grows only while it binds, so that
an idle replica does not look like a fast one. It is never a small constant: that would leave an engine half
empty and move the wait into the queue.
Pure: times, gaps and the number in flight come in, the limit comes out.
"""

from __future__ import annotations

EPOCH_S = 1.0  # some dozen steps
DECREASE = 0.9
GROWTH = 0.05  # of the limit, one sequence at least: half of what it comes down by
LEAST_SEQUENCES = 8  # below it an engine's step costs nearly the same, so that nothing would be won
BINDING = 0.9  # of the limit in flight: more would be there if they were let
HEADROOM = 0.9  # of the objective: above it the limit stays as it is


class ConcurrencyLimit:
    """K_R of one replica. Starts at the most, and comes down only where tokens come too slowly."""

    def __init__(self, itl_slo_s: float, *, least: int, most: int) -> None:
        """`least` and `most` are sequences; the least is at least `LEAST_SEQUENCES`, if the most allows."""
        self.slo_s = itl_slo_s
        self._most = float(most)
        self._least = float(min(most, max(least, LEAST_SEQUENCES)))
        self._limit = self._most
        self._since_s: float | None = None  # begin of the epoch; None: nothing has been asked yet
        self._gaps_s = 0.0  # in the epoch, summed
        self._tokens = 0  # that they brought
        self._peak = 0  # sequences in flight in the epoch, at most
        self.itl_s: float | None = None  # mean of the last epoch with a stream; None: there was none

    def __repr__(self) -> str:
        itl = "-" if self.itl_s is None else f"{1000 * self.itl_s:.1f}ms"
        return f"<ConcurrencyLimit {self.sequences} itl={itl} slo={1000 * self.slo_s:g}ms>"

    @property
    def sequences(self) -> int:
        """Sequences the replica may have in flight."""
        return int(self._limit)

    def note_gap(self, gap_s: float, tokens: int = 1) -> None:
        """Note that a stream brought `tokens` after `gap_s`."""
        self._gaps_s += gap_s
        self._tokens += tokens

    def decide(self, now_s: float, in_flight: int) -> None:
        """Move the limit at the end of an epoch, which begins with the first stream; else nothing."""
        if self._since_s is None or not self._tokens:
            self._since_s, self._peak = now_s, 0
        self._peak = max(self._peak, in_flight)
        if now_s - self._since_s < EPOCH_S:
            return
        self.itl_s = self._gaps_s / self._tokens
        if self.itl_s > self.slo_s:
            if self._peak <= self._limit:
                # From what ran, not from a limit that nothing had reached.
                self._limit = max(self._least, self._peak * DECREASE)
        elif self._peak >= BINDING * self._limit and self.itl_s < HEADROOM * self.slo_s:
            self._limit = min(self._most, self._limit + max(1.0, GROWTH * self._limit))
        self._since_s, self._gaps_s, self._tokens, self._peak = now_s, 0.0, 0, in_flight
