"""What is asked of a target? The scenarios and their request bodies, the same for every target."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.tools import Load

CHUNKS = 64  # per stream, and tokens per plain answer
BODIES = 64  # different prompts, sent in turn
WORDS = ("gateway", "tenant", "adapter", "engine", "queue", "stream", "token", "model", "share", "wait")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to load a target."""

    name: str
    connections: int
    stream: bool = False
    delay_ms: int = 0  # between the chunks of a stream; 0: as fast as the target takes them
    warmup_s: float = 0.5
    stagger_ms: float = 0.0

    def load(self, seconds: float) -> Load:
        """The load of one run that counts for `seconds`."""
        return Load(self.connections, seconds, self.warmup_s, self.stagger_ms)


CHAT_1 = Scenario("chat_1", connections=1)
CHAT_32 = Scenario("chat_32", connections=32)
STREAMS_16 = Scenario("streams_16", connections=16, stream=True)
# The warm-up is longer than one stream (1.3 s), so that streams begin and end evenly while it counts.
SLOW_200 = Scenario("slow_200", connections=200, stream=True, delay_ms=20, warmup_s=2.0, stagger_ms=1280)
SCENARIOS = (CHAT_1, CHAT_32, STREAMS_16, SLOW_200)


def prompts(chance: random.Random, count: int, models: Sequence[str], extra: Mapping[str, object]) -> str:
    """`count` chat requests, one per line: prompts drawn from `chance`, the models in turn."""
    lines = []
    for number in range(count):
        body = {
            "model": models[number % len(models)],
            "messages": [
                {"role": "system", "content": "You answer in one short paragraph of plain words."},
                {"role": "user", "content": " ".join(chance.choices(WORDS, k=40))},
            ],
            "temperature": 0.7,
            **extra,
        }
        lines.append(json.dumps(body))
    return "\n".join(lines) + "\n"


def bodies(scenario: Scenario, models: Sequence[str], seed: int) -> str:
    """Request bodies of a scenario. The field `seed` in them sets the mock engine's pace."""
    extra: dict[str, object] = {"max_tokens": CHUNKS, "stream": scenario.stream}
    if scenario.delay_ms:
        extra["seed"] = scenario.delay_ms
    return prompts(random.Random(seed), BODIES, models, extra)
