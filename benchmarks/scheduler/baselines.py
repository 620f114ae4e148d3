"""Which engine would another scheduler choose? Idealised: each knows exactly what is in flight where.

A router of that kind sends every request on at once and leaves waiting to the engine. Here it has no stale
metrics and costs nothing, so that what it does badly it does by its policy. Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class EngineLedger:
    """What is in flight at one engine, and which adapters hold its slots.

    Slots go as in vLLM (v1/core/sched/scheduler.py): a running adapter keeps its slot while it has requests,
    new ones of it join at once, and others wait for a slot first come, first served.
    """

    name: str
    slots: int
    in_flight: int = 0
    by_adapter: dict[str, int] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)
    waiting: OrderedDict[str, None] = field(default_factory=OrderedDict)
    most_adapters: int = 0  # at once, so far

    def begin(self, adapter: str) -> None:
        """A request of that adapter is sent there."""
        self.in_flight += 1
        self.by_adapter[adapter] = self.by_adapter.get(adapter, 0) + 1
        self.most_adapters = max(self.most_adapters, len(self.by_adapter))
        if adapter in self.active:
            return
        if len(self.active) < self.slots:
            self.active.add(adapter)
        else:
            self.waiting[adapter] = None

    def end(self, adapter: str) -> None:
        """A request of that adapter has ended there, in whatever way."""
        self.in_flight -= 1
        self.by_adapter[adapter] -= 1
        if self.by_adapter[adapter]:
            return
        del self.by_adapter[adapter]
        self.active.discard(adapter)
        self.waiting.pop(adapter, None)
        while self.waiting and len(self.active) < self.slots:
            self.active.add(self.waiting.popitem(last=False)[0])


class Policy(Protocol):
    """A way to choose."""

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The engine a request of that adapter goes to."""


class RoundRobin:
    """In turn, whatever is asked."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The next one."""
        return engines[next(self._turn) % len(engines)]


class LeastOutstanding:
    """Where least is in flight; in turn where that is equal."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The idlest one."""
        first = next(self._turn) % len(engines)
        turned = [*engines[first:], *engines[:first]]
        return min(turned, key=lambda engine: engine.in_flight)


class LoraAffinity:
    """Where the adapter runs, else where a slot is free, else where it waits (llm-d's lora-affinity-scorer).

    Its scores are those of llm-d-router, pkg/epp/framework/plugins/scheduling/scorer/loraaffinity. Where they
    are equal the least in flight decides.
    """

    def __init__(self) -> None:
        self._ties = LeastOutstanding()

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The one with the highest score."""
        best = max(self.score(adapter, engine) for engine in engines)
        return self._ties.choose(adapter, [e for e in engines if self.score(adapter, e) == best])

    @staticmethod
    def score(adapter: str, engine: EngineLedger) -> float:
        """1.0, 0.8, 0.6 or 0.0, as in the original."""
        if adapter in engine.active:
            return 1.0
        if len(engine.active) + len(engine.waiting) < engine.slots:
            return 0.8
        return 0.6 if adapter in engine.waiting else 0.0


class HashAffinity:
    """Always the same engine for an adapter (highest random weight, Thaler and Ravishankar 1996)."""

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The adapter's home."""
        return max(engines, key=lambda engine: _weight(adapter, engine.name))


def _weight(adapter: str, engine: str) -> bytes:
    return hashlib.blake2b(f"{adapter}|{engine}".encode(), digest_size=8).digest()


BASELINES: dict[str, Callable[[], Policy]] = {
    "round robin": RoundRobin,
    "least outstanding": LeastOutstanding,
    "LoRA affinity": LoraAffinity,
    "hash affinity": HashAffinity,
}
