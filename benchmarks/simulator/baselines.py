"""How do public routers place requests of adapters? All of them send at once and let the engine queue.

Each follows its source's rule for one choice; prompts are all different here, so caches of prefixes have
nothing to match but an adapter's own system prompt.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from functools import lru_cache

from benchmarks.simulator.driver import Call, Driver


class SendAtOnce:
    """A router that only chooses. Counts what it has in flight, as all of these do."""

    tick_s: float | None = None

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.in_flight: list[int] = []
        self.adapters: list[Counter[str]] = []  # by replica: adapter -> calls that run or wait there

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives."""
        self.driver = driver
        self.in_flight = [0] * len(driver.engines)
        self.adapters = [Counter() for _ in driver.engines]

    def arrive(self, call: Call, now: float) -> None:
        """Send it where `choose` says."""
        replica = self.choose(call)
        self.in_flight[replica] += 1
        self.adapters[replica][call.adapter] += 1
        self.driver.send(call, replica)

    def choose(self, call: Call) -> int:
        """The replica for a call."""
        raise NotImplementedError

    def first_token(self, call: Call, now: float) -> None:
        """Nothing: none of these looks at it."""

    def finished(self, call: Call, now: float) -> None:
        """Count it out."""
        if call.replica is None:
            return
        self.in_flight[call.replica] -= 1
        here = self.adapters[call.replica]
        here[call.adapter] -= 1
        if not here[call.adapter]:
            del here[call.adapter]

    def tokens(self, replica: int, gap_s: float, tokens: int) -> None:
        """Nothing: none of these looks at it."""

    def tick(self, now: float) -> None:
        """Nothing, where no time is set."""

    def least(self) -> int:
        """A replica with the least in flight; which one of equals is drawn."""
        fewest = min(self.in_flight)
        return self.chance.choice([index for index, count in enumerate(self.in_flight) if count == fewest])


class RoundRobin(SendAtOnce):
    """Each replica in turn (the default of vLLM Production Stack, routers/routing_logic.py)."""

    _next = 0

    def choose(self, call: Call) -> int:
        """The one after the last."""
        self._next += 1
        return (self._next - 1) % len(self.in_flight)


class LeastOutstanding(SendAtOnce):
    """The fewest requests in flight (nginx `least_conn`, Envoy `LEAST_REQUEST` over all hosts)."""

    def choose(self, call: Call) -> int:
        """A replica with the fewest."""
        return self.least()


class HashAffinity(SendAtOnce):
    """Each adapter on its own replica by rendezvous hashing (Thaler 1996), whatever the load."""

    def choose(self, call: Call) -> int:
        """The replica with the highest weight for the adapter."""
        return rendezvous(call.adapter, len(self.in_flight))


@lru_cache(maxsize=2**16)
def rendezvous(key: str, count: int) -> int:
    """The one of `count` with the highest weight for the key."""
    return max(
        range(count), key=lambda index: hashlib.blake2b(f"{key}|{index}".encode(), digest_size=8).digest()
    )


class LlmdAffinity(SendAtOnce):
    """llm-d-router's scorers, the highest sum wins, equals are drawn (picker/maxscore).

    scorer/loraaffinity: 1.0 where the adapter is active, 0.8 where active and waiting adapters are fewer
    than slots, 0.6 where it waits, else 0. vLLM 0.32 lists every adapter in flight in both of its labels
    (seen on a running engine), so "active" is "in flight" and the sum counts each twice.
    scorer/queuedepth: 1 at the shortest queue, 0 at the longest. scorer/kvcacheutilization: 1 - usage.
    Weights: 2 for queue and KV cache (config/loader/defaults.go), 4 for adapters as KServe adds it
    (kserve/kserve#5655). The prefix scorer finds nothing in prompts that are all different.
    Metrics are 50 ms old at most (`--refresh-metrics-interval`).
    """

    tick_s = 0.05
    lora_weight, queue_weight, kv_weight = 4.0, 2.0, 2.0

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives."""
        super().start(driver)
        self.tick(0.0)

    def tick(self, now: float) -> None:
        """Scrape every replica."""
        engines = self.driver.engines
        queues = [engine.waiting for engine in engines]
        longest, shortest = max(queues), min(queues)
        span = longest - shortest
        self._load_scores = [
            self.queue_weight * ((longest - engine.waiting) / span if span else 1.0)
            + self.kv_weight * (1.0 - engine.kv_usage)
            for engine in engines
        ]
        self._listed = [set(adapters) for adapters in self.adapters]

    def affinity(self, adapter: str, replica: int) -> float:
        """The score of scorer/loraaffinity."""
        listed = self._listed[replica]
        if adapter in listed:
            return 1.0
        return 0.8 if 2 * len(listed) < self.driver.engines[replica].settings.slots else 0.0

    def choose(self, call: Call) -> int:
        """A replica with the highest sum."""
        scores = [
            load + self.lora_weight * self.affinity(call.adapter, replica)
            for replica, load in enumerate(self._load_scores)
        ]
        best = max(scores)
        return self.chance.choice([index for index, score in enumerate(scores) if score == best])


class SglangCacheAware(SendAtOnce):
    """SGLang model gateway, policies/cache_aware.rs: the best prefix match while loads are balanced.

    Imbalanced is `max - min > 64` and `max > 1.5 * min` in flight (balance_abs_threshold and
    balance_rel_threshold of the Python launcher, router_args.py); then the least loaded one is taken, and
    the prefix is known there too. Each adapter's requests are taken to begin alike, with its system prompt,
    for more than `cache_threshold` of their length: the match is then the replica that had the adapter last,
    and one never seen goes to the least loaded.
    """

    absolute, relative = 64, 1.5

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._last: dict[str, int] = {}

    def choose(self, call: Call) -> int:
        """The replica that had the adapter last, unless loads are out of balance."""
        most, fewest = max(self.in_flight), min(self.in_flight)
        imbalanced = most - fewest > self.absolute and most > self.relative * fewest
        known = None if imbalanced else self._last.get(call.adapter)
        chosen = self.least() if known is None else known
        self._last[call.adapter] = chosen
        return chosen
