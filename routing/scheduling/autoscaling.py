"""How many replicas does a pool want? An absolute number, with its reason. Pure.

It says how many replicas the work needs, not how many more: replicas that are loading count as coming without
being known, and who reads the number late, or twice, does no harm.

1. The *need* is the largest of
   a. sequences that run or wait, over what one replica may run, four fifths full (`FULL`); and, where an
      objective for first tokens has requests refused, the replicas that the refused work would keep busy:
      what is refused waits nowhere, so the queue alone would hide it;
   b. distinct adapters that run or wait, over the slots of one replica;
   c. tokens in flight and in prompts that wait, over what the KV cache of one replica holds, as full.
2. What lasts less than a second counts for nothing (`SAMPLES`); the rest as its mean over some 2 s. A longer
   one has forgotten the peaks that 4 is to remember: over 5 s up to 4 % of the simulator's calls were late.
3. The number wanted is the need, rounded up, and at least one while anything at all runs, waits or was asked
   for: the first replica comes at once.
4. Up at once, down only to the most that was wanted in the last `KEEP_S`. So it does not flap at a border,
   and a poller that looks once a minute misses nothing.
5. A gateway that has just begun knows no demand yet. For `START_S` it wants at least what is there, loading
   or ready. It may not have found that yet, and whoever reads a small number takes it away. So it says no
   number for `SETTLE_S`, and for `START_S` while it has found nothing; unless there may be none, and one is
   asked for.
6. Never outside of the pool's range.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

FULL = 0.8  # of a replica: what comes while the next one starts finds room
SMOOTHING_S = 2.0  # of the mean
SAMPLES = 5  # the least of so many counts, a second's at four samples a second
SLACK = 0.02  # of a replica: rounded down, so that a mean which dies away comes to an end
KEEP_S = 300.0  # as long as Kubernetes' HPA looks back before it scales down
START_S = 60.0
SETTLE_S = 3.0  # until all replicas were found and probed, each once a second
LONGEST_STEP_S = 1.0  # a sample speaks for no more time than this
NO_NEED = "nothing runs or waits"


class Load(NamedTuple):
    """What a group of engines has to do now."""

    sequences: int = 0  # running and waiting; without lines of batches, which wait for spare room
    adapters: int = 0  # distinct ones, of the same
    tokens: int = 0  # in flight, and in prompts that wait
    refused: float = 0.0  # replicas that the work refused since the last sample would have kept busy
    anything: bool = False  # something runs, waits or was asked for, lines of batches too


class Room(NamedTuple):
    """What one replica may have, when it is warm."""

    sequences: float  # at least 1
    slots: float  # 0: it takes no adapters
    tokens: float  # in its KV cache; 0: not known


@dataclass(frozen=True, slots=True)
class Desired:
    """A number of replicas, and why that many."""

    replicas: int
    reason: str


class _Wanted(NamedTuple):
    at_s: float
    replicas: int
    reason: str


class _Needs(NamedTuple):
    """How many replicas each kind of work needs."""

    sequences: float
    refused: float
    adapters: float
    tokens: float

    @property
    def largest(self) -> float:
        return max(self.sequences + self.refused, self.adapters, self.tokens)


NOTHING = _Needs(0.0, 0.0, 0.0, 0.0)


class Autoscaler:
    """Says from samples, taken several times a second, how many replicas one group should have."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most  # may change at any time
        self._began_s: float | None = None
        self._sampled_s = 0.0
        self._last = deque([NOTHING] * SAMPLES, maxlen=SAMPLES)
        self._mean = NOTHING
        self._wanted: deque[_Wanted] = deque()  # of the last KEEP_S; ever fewer replicas, ever later

    def sample(self, now_s: float, load: Load, room: Room, there: int) -> Desired | None:
        """Take a sample in; `there` replicas answer. None: no number yet. `now_s` is monotonic."""
        if self._began_s is None:
            self._began_s = self._sampled_s = now_s
        self._smooth(_needs(load, room), now_s)
        age_s, may_be_none = now_s - self._began_s, self.least == 0 and load.anything
        if age_s < SETTLE_S or (age_s < START_S and not there and not may_be_none):
            return None
        wanted = self._wanted_now(now_s, load, room, there)
        while self._wanted and self._wanted[-1].replicas <= wanted.replicas:
            self._wanted.pop()
        self._wanted.append(wanted)
        while self._wanted[0].at_s < now_s - KEEP_S:
            self._wanted.popleft()
        return self._bounded(self._wanted[0], now_s)

    def _smooth(self, needs: _Needs, now_s: float) -> None:
        weight = 1.0 - math.exp(-min(now_s - self._sampled_s, LONGEST_STEP_S) / SMOOTHING_S)
        self._sampled_s = now_s
        self._last.append(needs)
        most = self.most + 1.0  # more is not to be had, and need not be remembered
        lasting = (min(most, *each) for each in zip(*self._last, strict=True))
        self._mean = _Needs(*(m + weight * (n - m) for m, n in zip(self._mean, lasting, strict=True)))

    def _wanted_now(self, now_s: float, load: Load, room: Room, there: int) -> _Wanted:
        replicas = max(0, math.ceil(self._mean.largest - SLACK))
        if self._began_s is not None and now_s - self._began_s < START_S and there > replicas:
            return _Wanted(now_s, there, f"the gateway has just begun, with {there} there")
        if replicas == 0 and load.anything:
            return _Wanted(now_s, 1, "something runs, waits or was asked for")
        return _Wanted(now_s, replicas, _reason(self._mean, room) if replicas else NO_NEED)

    def _bounded(self, wanted: _Wanted, now_s: float) -> Desired:
        replicas, reason = wanted.replicas, wanted.reason
        if now_s - wanted.at_s >= 1.0:
            reason += f" ({now_s - wanted.at_s:.0f} s ago)"
        if replicas > self.most:
            return Desired(self.most, f"{reason}; no more than {self.most}")
        if replicas < self.least:
            return Desired(self.least, f"{reason}; no fewer than {self.least}")
        return Desired(replicas, reason)


def _needs(load: Load, room: Room) -> _Needs:
    return _Needs(
        load.sequences / (FULL * room.sequences),
        load.refused,
        load.adapters / room.slots if room.slots else 0.0,
        load.tokens / (FULL * room.tokens) if room.tokens else 0.0,
    )


def _reason(mean: _Needs, room: Room) -> str:
    """Say what needs the most, as a mean, and how much of it one replica takes."""
    need, count, what, each = mean.largest, mean.sequences, "sequences", FULL * room.sequences
    if need == mean.adapters:
        count, what, each = need, "adapters", room.slots
    elif need == mean.tokens:
        count, what, each = need, "tokens", FULL * room.tokens
    refused = f"; work for {mean.refused:.1f} is refused" if mean.refused >= 0.1 else ""
    takes = f"a replica takes {round(each, 1):.10g}"
    return f"need {need:.1f}: {count * each:.0f} {what} run or wait, and {takes}{refused}"
