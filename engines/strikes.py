"""Which ways between two models rest, since they have failed there? Pure.

A way that fails costs its own time, and often the engine, before the next one is taken. So it rests after it
has failed: 1 minute, then 4, then 16, then an hour, until it succeeds once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIRST_S, LAST_S = 60.0, 3600.0
GROWTH = 4


@dataclass(frozen=True, slots=True)
class Strike:
    """Failures of one way between two models, one after the other."""

    times: int
    until_s: float
    why: str  # the last one's words


class Strikes:
    """The failures of one host's ways, by way, the model that went, and the one that came."""

    def __init__(self) -> None:
        self._strikes: dict[tuple[str, str | None, str], Strike] = {}

    def failed(self, way: str, going: str | None, coming: str, why: str, now_s: float) -> Strike:
        """Record a failure; return what follows from it."""
        key = way, going, coming
        times = self._strikes[key].times + 1 if key in self._strikes else 1
        rest_s = min(LAST_S, FIRST_S * GROWTH ** (times - 1))
        self._strikes[key] = Strike(times, now_s + rest_s, why)
        return self._strikes[key]

    def worked(self, way: str, going: str | None, coming: str) -> None:
        """Forget the failures of a way that has succeeded."""
        self._strikes.pop((way, going, coming), None)

    def rests(self, way: str, going: str | None, coming: str, now_s: float) -> bool:
        """Whether a way is not taken now."""
        strike = self._strikes.get((way, going, coming))
        return strike is not None and now_s < strike.until_s

    def of(self, coming: str, now_s: float) -> Mapping[str, str]:
        """Return the ways to a model that rest now, each with the reason."""
        found: dict[str, str] = {}
        for (way, going, model), strike in self._strikes.items():
            if model == coming and now_s < strike.until_s:
                after = f" after {going}" if going is not None else ""
                found[way] = f"{strike.why} ({strike.times}x{after})"
        return found
