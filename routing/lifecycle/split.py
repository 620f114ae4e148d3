"""Keeps the statistics of both sides of each running rollout, and returns the verdict."""

from __future__ import annotations

from routing.catalog.entries import AdapterEntry, AdapterKey, Rollout
from routing.lifecycle.rollouts import Action, Side, Verdict, judge
from routing.types import Record


class Observation:
    """The statistics of one rollout. A restart resets them."""

    def __init__(self, rollout: Rollout, live: int | None) -> None:
        self.rollout = rollout
        self.live_number = live
        self.live = Side()
        self.candidate = Side()


class Rollouts:
    """Watches every adapter that is being rolled out."""

    def __init__(self) -> None:
        self._running: dict[AdapterKey, Observation] = {}

    def forget(self, key: AdapterKey) -> None:
        """Drop what was counted of an adapter: another rollout of it begins."""
        self._running.pop(key, None)

    def observation(self, entry: AdapterEntry) -> Observation | None:
        """Return the statistics of the adapter's running rollout; None if there is none."""
        rollout = entry.rollout
        if rollout is None:
            self._running.pop(entry.key, None)
            return None
        seen = self._running.get(entry.key)
        if seen is None or seen.rollout.candidate != rollout.candidate or seen.live_number != entry.live:
            seen = self._running[entry.key] = Observation(rollout, entry.live)
        seen.rollout = rollout  # its plan may have changed
        return seen

    def observe(self, entry: AdapterEntry, record: Record) -> Verdict:
        """Count one settled request of an adapter, and return the verdict."""
        seen = self.observation(entry)
        if seen is None:
            return Verdict(Action.WAIT)
        if record.target.version == seen.rollout.candidate:
            seen.candidate.observe(record)
        elif record.target.version == seen.live_number:
            seen.live.observe(record)
        return judge(seen.rollout.plan, seen.live, seen.candidate)
