"""Where would another router send a request? Baselines, for real engines and for simulated ones.

All of them send at once and let the engine queue. Each follows its source's rule for one choice, and knows
exactly what is in flight where. Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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

    def begin(self, adapter: str) -> None:
        """A request of that adapter is sent there."""
        self.in_flight += 1
        self.by_adapter[adapter] = self.by_adapter.get(adapter, 0) + 1
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


class Scraped(Protocol):
    """What a router reads from an engine's metrics."""

    @property
    def waiting(self) -> int:
        """Requests in its queue."""

    @property
    def kv_usage(self) -> float:
        """Part of its KV cache in use, 0..1."""


class Policy:
    """A way to choose."""

    scrape_s: float | None = None  # how often it reads metrics; None: never

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The engine a request of that adapter goes to."""
        raise NotImplementedError

    def scrape(self, metrics: Sequence[Scraped], engines: Sequence[EngineLedger]) -> None:
        """Read every engine's metrics."""

    def least(self, engines: Sequence[EngineLedger]) -> EngineLedger:
        """An engine with the least in flight; which one of equals is drawn."""
        fewest = min(engine.in_flight for engine in engines)
        return self.chance.choice([engine for engine in engines if engine.in_flight == fewest])


class RoundRobin(Policy):
    """Each engine in turn (the default of vLLM Production Stack, routers/routing_logic.py)."""

    _next = 0

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The one after the last."""
        self._next += 1
        return engines[(self._next - 1) % len(engines)]


class LeastOutstanding(Policy):
    """The fewest requests in flight (nginx `least_conn`, Envoy `LEAST_REQUEST` over all hosts)."""

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """One with the fewest."""
        return self.least(engines)


class HashAffinity(Policy):
    """Each adapter on its own engine by rendezvous hashing (Thaler 1996), whatever the load."""

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The adapter's home."""
        return max(engines, key=lambda engine: _weight(adapter, engine.name))


@lru_cache(maxsize=2**16)
def _weight(adapter: str, engine: str) -> bytes:
    return hashlib.blake2b(f"{adapter}|{engine}".encode(), digest_size=8).digest()


class LoraAffinity(Policy):
    """Where the adapter runs, else where a slot is free, else where it waits (llm-d's lora-affinity-scorer).

    Its scores are those of llm-d-router, pkg/epp/framework/plugins/scheduling/scorer/loraaffinity. Where they
    are equal the least in flight decides.
    """

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The one with the highest score."""
        best = max(self.score(adapter, engine) for engine in engines)
        return self.least([engine for engine in engines if self.score(adapter, engine) == best])

    @staticmethod
    def score(adapter: str, engine: EngineLedger) -> float:
        """1.0, 0.8, 0.6 or 0.0, as in the original."""
        if adapter in engine.active:
            return 1.0
        if len(engine.active) + len(engine.waiting) < engine.slots:
            return 0.8
        return 0.6 if adapter in engine.waiting else 0.0


class LlmdAffinity(Policy):
    """llm-d-router's scorers, the highest sum wins, equals are drawn (picker/maxscore).

    scorer/loraaffinity: 1.0 where the adapter is active, 0.8 where active and waiting adapters are fewer
    than slots, 0.6 where it waits, else 0. vLLM 0.32 lists every adapter in flight in both of its labels
    (seen on a running engine), so "active" is "in flight" and the sum counts each twice.
    scorer/queuedepth: 1 at the shortest queue, 0 at the longest. scorer/kvcacheutilization: 1 - usage.
    Weights: 2 for queue and KV cache (config/loader/defaults.go), 4 for adapters as KServe adds it
    (kserve/kserve#5655). The prefix scorer finds nothing in prompts that are all different.
    Metrics are 50 ms old at most (`--refresh-metrics-interval`).
    """

    scrape_s = 0.05
    lora_weight, queue_weight, kv_weight = 4.0, 2.0, 2.0

    def scrape(self, metrics: Sequence[Scraped], engines: Sequence[EngineLedger]) -> None:
        """Read every engine's metrics."""
        queues = [one.waiting for one in metrics]
        longest, span = max(queues), max(queues) - min(queues)
        self._load_scores = [
            self.queue_weight * ((longest - one.waiting) / span if span else 1.0)
            + self.kv_weight * (1.0 - one.kv_usage)
            for one in metrics
        ]
        self._listed = [(set(engine.by_adapter), engine.slots) for engine in engines]

    def affinity(self, adapter: str, place: int) -> float:
        """The score of scorer/loraaffinity for one engine."""
        listed, slots = self._listed[place]
        if adapter in listed:
            return 1.0
        return 0.8 if 2 * len(listed) < slots else 0.0

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """One with the highest sum."""
        scores = [
            load + self.lora_weight * self.affinity(adapter, place)
            for place, load in enumerate(self._load_scores)
        ]
        best = max(scores)
        return self.chance.choice([e for e, score in zip(engines, scores, strict=True) if score == best])


class SglangCacheAware(Policy):
    """SGLang model gateway, policies/cache_aware.rs: the best prefix match while loads are balanced.

    Imbalanced is `max - min > 64` and `max > 1.5 * min` in flight (balance_abs_threshold and
    balance_rel_threshold of the Python launcher, router_args.py); then the least loaded one is taken, and
    the prefix is known there too. Each adapter's requests are taken to begin alike, with its system prompt,
    for more than `cache_threshold` of their length: the match is then the engine that had the adapter last,
    and one never seen goes to the least loaded.
    """

    absolute, relative = 64, 1.5

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._last: dict[str, EngineLedger] = {}

    def choose(self, adapter: str, engines: Sequence[EngineLedger]) -> EngineLedger:
        """The engine that had the adapter last, unless loads are out of balance."""
        loads = [engine.in_flight for engine in engines]
        most, fewest = max(loads), min(loads)
        imbalanced = most - fewest > self.absolute and most > self.relative * fewest
        known = None if imbalanced else self._last.get(adapter)
        chosen = self._last[adapter] = self.least(engines) if known is None else known
        return chosen


# Of real engines.
BASELINES: dict[str, Callable[[], Policy]] = {
    "round robin": RoundRobin,
    "least outstanding": LeastOutstanding,
    "LoRA affinity": LoraAffinity,
    "hash affinity": HashAffinity,
}
