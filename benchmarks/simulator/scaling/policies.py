"""Who says how many replicas there should be? Asked every `POLL_S`, as Kubernetes' HPA asks."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

POLL_S = 15.0  # of the HPA's controller
WINDOW_S = 300.0  # the HPA scales down to the most that it recommended in that time
TOLERANCE = 0.1  # the HPA leaves alone what is off by less


class Seen(NamedTuple):
    """What a policy may know of a pool."""

    replicas: int  # those that were ordered last
    waiting: int  # requests in the gateway's queue
    running: int  # sequences on engines
    desired: int | None  # what the gateway says; None: it says nothing


class Policy(Protocol):
    """Says how many replicas there should be."""

    @property
    def name(self) -> str:
        """How it is called."""
        ...

    def wanted(self, now_s: float, seen: Seen) -> int:
        """Return their number; whoever asks keeps it in the pool's range."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always as many."""

    replicas: int

    @property
    def name(self) -> str:
        """How it is called."""
        return f"fixed at {self.replicas}"

    def wanted(self, now_s: float, seen: Seen) -> int:
        """Return it."""
        return self.replicas


class Gateway:
    """What the gateway says, handed on by KEDA as it is."""

    name = "ours"

    def wanted(self, now_s: float, seen: Seen) -> int:
        """Return what it says, or leave all as it is while it says nothing."""
        return seen.replicas if seen.desired is None else seen.desired


class Hpa:
    """Kubernetes' HPA with its defaults, on a count of requests with a target for each replica.

    ceil(total / target), left alone within its tolerance; down to the most of five minutes; up by four
    replicas or to twice as many at each look, whichever is more.
    """

    def __init__(self, target: float, *, with_running: bool) -> None:
        self._target, self._with_running = target, with_running
        self._recommended: deque[tuple[float, int]] = deque()
        self.name = f"HPA, {target:g} {'running or waiting' if with_running else 'waiting'}"

    def wanted(self, now_s: float, seen: Seen) -> int:
        """Return what it would set now."""
        total = seen.waiting + (seen.running if self._with_running else 0)
        fits = abs(total / (self._target * max(1, seen.replicas)) - 1.0) <= TOLERANCE
        number = seen.replicas if fits else math.ceil(total / self._target)
        self._recommended.append((now_s, min(number, max(seen.replicas + 4, 2 * seen.replicas))))
        while self._recommended[0][0] < now_s - WINDOW_S:
            self._recommended.popleft()
        if number >= seen.replicas:
            return self._recommended[-1][1]
        return min(seen.replicas, max(number for _, number in self._recommended))
