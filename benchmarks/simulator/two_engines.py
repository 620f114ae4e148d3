"""What would `make bench-scheduler` come to? Its fleet and its arrivals, on engines as this CPU runs them.

It takes seconds instead of a quarter of an hour, has no noise, and any number of seeds: what is to be tried
is tried here first.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.scheduler.arrivals import Demand, merged
from benchmarks.scheduler.fleet import Shape
from benchmarks.simulator.workloads import NOISY
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Call

# Of a step of the demo's model on one core of a two-core EPYC. The decode terms are what `fit` makes of
# `benchmarks.scheduler --fit`; a prefill with all that a request costs its engine once, a move into a slot
# and a read from disk are those at which the real benchmark's own figures come out.
COSTS = StepCosts(
    base_ms=4.5,
    sequence_ms=0.17,
    adapter_ms=0.0,
    sequence_adapter_ms=0.0,
    slot_ms=0.0,
    prefill_token_ms=0.19,
    gpu_load_ms=5.0,
    disk_load_ms=50.0,
)
CAPACITY_PER_S = 62.0  # as the real benchmark calibrates it
PROMPT_TOKENS, COMPLETION_TOKENS = 40, 32
SHAPE = Shape()
ENGINE = EngineSettings(
    slots=SHAPE.slots,
    host_places=SHAPE.host_places,
    max_sequences=SHAPE.max_sequences,
    kv_tokens=100_000,
)


@dataclass(frozen=True, slots=True)
class TwoEngines:
    """All tenants at a share of the capacity, and one of them floods.

    With another share on top, or with so many clients, each of which always has one request in flight. Or
    every tenant has clients, and nobody anything else.
    """

    load: float = 0.75
    flood: float = 0.0
    flood_clients: int = 0
    clients: int = 0
    shape: Shape = SHAPE
    duration_s: float = 60.0

    @property
    def _flooder(self) -> int:
        return self.shape.tenants // 2

    def _tenant(self, number: int) -> str:
        return NOISY if number == self._flooder else f"t{number}"

    def tenants(self) -> dict[str, list[str]]:
        """Tenant -> its adapters; the one that floods is `NOISY`, in the steady phase too."""
        owned: dict[str, list[str]] = {self._tenant(number): [] for number in range(self.shape.tenants)}
        for adapter in range(self.shape.adapters):
            owned[self._tenant(self.shape.owner(adapter))].append(f"a{adapter}")
        return owned

    def calls(self, seed: int) -> list[Call]:
        """All calls in the order in which they arrive; the flood comes on top of the same steady ones."""
        demand = Demand(self.shape)
        if self.clients:
            tenants = range(self.shape.tenants)
            return [self._client(demand, seed, t, n) for t in tenants for n in range(self.clients)]
        steady = demand.steady(random.Random(f"{seed}/steady"), self.load * CAPACITY_PER_S, self.duration_s)
        flood = []
        if self.flood:
            chance, rate_per_s = random.Random(f"{seed}/flood"), self.flood * CAPACITY_PER_S
            flood = demand.flood(chance, self._flooder, rate_per_s, self.duration_s)
        calls = [self._call(one.at_s, one.tenant, one.adapter) for one in merged(steady, flood)]
        return [self._client(demand, seed, self._flooder, n) for n in range(self.flood_clients)] + calls

    def _call(self, at_s: float, tenant: int, adapter: int) -> Call:
        return Call(at_s, self._tenant(tenant), f"a{adapter}", PROMPT_TOKENS, COMPLETION_TOKENS)

    def _client(self, demand: Demand, seed: int, tenant: int, number: int) -> Call:
        """The first call of a client, which makes the next one when it has ended, until time is over."""
        chance = random.Random(f"{seed}/{tenant}/{number}")

        def make(now: float) -> Call:
            call = self._call(now, tenant, demand.draw(chance, tenant))
            call.then = go_on
            return call

        def go_on(now: float) -> Call | None:
            return make(now) if now < self.duration_s else None

        return make(0.0)
