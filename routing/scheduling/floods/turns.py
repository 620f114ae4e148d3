"""When may a tenant run that is held to a share? In turns, so that its slot is free in between. Pure.

Who runs a few sequences all the time holds a slot all the time. Who runs twice as many for a while, and then
none, has had as much of the engine, and the slot is others' half of the time. A token bucket of
sequence-seconds says when: it fills at the share, what runs empties it, and it must be full before a turn
begins.
"""

from __future__ import annotations

from dataclasses import dataclass

TURN_S = 2.0  # of its share are saved up for a turn: an answer or two, for which the slot is lent
AT_ONCE = 2.0  # times its share may run in a turn


@dataclass(slots=True)
class Turn:
    """Whether it is a tenant's turn, and what it has saved up for it."""

    saved: float = 0.0  # sequence-seconds
    begun: bool = True

    def pass_time(self, elapsed_s: float, share: float, running: float) -> None:
        """Let time pass in which `running` sequences ran, of a share of so many."""
        full = TURN_S * share
        self.saved = min(full, max(-full, self.saved + elapsed_s * (share - running)))
        self.begun = self.saved >= (0.0 if self.begun else full)
