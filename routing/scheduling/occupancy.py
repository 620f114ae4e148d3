"""Which part of the time of a slot, or an engine, falls to each request that uses it? Pure.

Processor sharing: while n sequences run, each has 1/n of the time. The integral of 1/n over time is kept at
every arrival and departure, in O(1); what it grows by while a sequence runs is that sequence's share. The
shares of all that ever ran add up to the time in which anything did.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ShareClock:
    """The integral of 1/sequences over time. It stands still while nothing runs."""

    share_s: float = 0.0  # of one sequence that had run all the time
    _read_at_s: float = 0.0

    def read(self, sequences: int, now_s: float) -> float:
        """Advance to `now_s`; `sequences` have run since it was read last. Returns the integral.

        To be called before that number changes.
        """
        if sequences:
            self.share_s += (now_s - self._read_at_s) / sequences
        self._read_at_s = now_s
        return self.share_s
