"""What does it cost to have a model awake at a host? From the order until it takes requests. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from statistics import fmean

GUESS_S = 20.0  # before anything was measured: a cold start of a small model
NEWEST = 0.5  # weight of the newest switch in a running mean; the way, and so the cost, may change


class Costs:
    """The seconds that switches took, by host, model, and the model that went for it.

    From a model of the same shape it is a second or so, from another one it is a cold start.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], dict[str | None, float]] = {}
        # Told of each change: host, model, the one that went, seconds, way.
        self.learnt: Callable[[str, str, str | None, float, str], None] | None = None

    def learn(self, host: str, model: str, took_s: float, *, went: str | None = None, way: str = "") -> None:
        """Take over what a switch has taken; `went` is the model that was awake before, if one went."""
        known = self._seconds.setdefault((host, model), {})
        known[went] = known.get(went, took_s) + NEWEST * (took_s - known.get(went, took_s))
        if self.learnt is not None:
            self.learnt(host, model, went, known[went], way)

    def remember(self, host: str, model: str, took_s: float, *, went: str | None = None) -> None:
        """Take over what a switch took before a restart, unless it is known better by now."""
        self._seconds.setdefault((host, model), {}).setdefault(went, took_s)

    def forget(self, model: str) -> None:
        """Know nothing more of switches to a model."""
        self._seconds = {place: known for place, known in self._seconds.items() if place[1] != model}

    def measured_s(self, host: str, model: str, awake: Collection[str] = ()) -> float | None:
        """Return what a model's switches took at a host; None: it has not come there yet.

        What it took where one of those `awake` went counts, and where there is none, the dearest.
        """
        known = self._seconds.get((host, model), {})
        here = [known[went] for went in awake if went in known]
        return fmean(here) if here else max(known.values(), default=None)

    def expected(self, host: str, models: Iterable[str], awake: Collection[str] = ()) -> Mapping[str, float]:
        """Return the seconds of each model: measured there, else elsewhere, else as other models'."""
        usual_s = fmean(max(known.values()) for known in self._seconds.values()) if self._seconds else GUESS_S
        elsewhere: dict[str, float] = {}
        for (_, model), known in self._seconds.items():
            elsewhere[model] = min(max(known.values()), elsewhere.get(model, math.inf))
        found = {model: self.measured_s(host, model, awake) for model in models}
        return {m: elsewhere.get(m, usual_s) if s is None else s for m, s in found.items()}
