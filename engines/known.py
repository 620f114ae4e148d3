"""What was seen of one base model since the host's start: ways, their seconds, the memory it takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

HALF_FORGOTTEN_S = 600.0  # what a way took counts half after as long


@dataclass(slots=True)
class Known:
    """One base model."""

    way: str = ""  # by which it came last
    took_s: dict[str, float] = field(default_factory=dict)
    memory_bytes: int = 0
    asleep_bytes: int = 0  # that it takes while it sleeps
    away: str = ""  # why its files are not on this machine
    _took_at_s: dict[str, float] = field(default_factory=dict)

    def took(self, way: str, seconds: float, now_s: float) -> None:
        """Take over what a way took."""
        self.took_s[way], self._took_at_s[way] = seconds, now_s

    def expected_s(self, way: str, usual_s: float, now_s: float) -> float:
        """Return what a way is expected to take: as measured, and after a time as it is elsewhere.

        Else a way that was slow once, on a busy machine, would never be taken again.
        """
        if way not in self.took_s:
            return usual_s
        weight: float = 0.5 ** ((now_s - self._took_at_s[way]) / HALF_FORGOTTEN_S)
        return usual_s + weight * (self.took_s[way] - usual_s)
