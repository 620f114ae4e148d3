"""What does it cost to have a model awake at a host? From the order until it takes requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

GUESS_S = 20.0  # before anything was measured: a cold start of a small model
NEWEST = (
    0.5  # weight of the newest switch in a running mean; the way, and so the cost, may change at any time
)


class Costs:
    """The seconds that switches took, by host and model."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def learn(self, host: str, model: str, took_s: float) -> None:
        """Take over what a switch has taken."""
        known = self._seconds.get((host, model), took_s)
        self._seconds[host, model] = known + NEWEST * (took_s - known)

    def measured_s(self, host: str, model: str) -> float | None:
        """Return what a model's switches took at a host; None: it has not come there yet."""
        return self._seconds.get((host, model))

    def expected(self, host: str, models: Iterable[str]) -> Mapping[str, float]:
        """Return the seconds of each model: measured there, else elsewhere, else as other models'."""
        usual_s = fmean(self._seconds.values()) if self._seconds else GUESS_S
        elsewhere: dict[str, float] = {}
        for (_, model), seconds in self._seconds.items():
            elsewhere[model] = min(seconds, elsewhere.get(model, seconds))
        return {m: self._seconds.get((host, m), elsewhere.get(m, usual_s)) for m in models}
