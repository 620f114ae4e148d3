"""When may a tenant run that is bound to a few sequences? By turns, so that its slot comes free. Pure.

A tenant that runs a few sequences all the time holds a slot all the time. If it runs twice as many for a
while and then none, it has had as much of the engine, and others have the slot half of the time. A token
bucket of sequence-seconds says when: it fills at the tenant's rate, what runs empties it, and a turn begins
when it is full.
"""

from __future__ import annotations

from dataclasses import dataclass

TURN_S = 2.0  # seconds of its rate are saved up for a turn: an answer or two
AT_ONCE = 2.0  # times its rate may run in a turn


@dataclass(slots=True)
class Turn:
    """Whether it is a tenant's turn, and how much it has saved up."""

    saved: float = 0.0  # sequence-seconds
    begun: bool = True

    def pass_time(self, elapsed_s: float, rate: float, running: float) -> None:
        """Let time pass in which `running` sequences ran; `rate` is how many may run on average."""
        full = TURN_S * rate
        self.saved = min(full, max(-full, self.saved + elapsed_s * (rate - running)))
        self.begun = self.saved >= (0.0 if self.begun else full)
