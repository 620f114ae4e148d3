"""Which fleets, loads and routers are compared? Each scenario, with the load at which routers come apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from benchmarks.baselines import (
    HashAffinity,
    LeastOutstanding,
    LlmdAffinity,
    RoundRobin,
    SglangCacheAware,
)
from benchmarks.baselines import Policy as Baseline
from benchmarks.simulator import two_engines
from benchmarks.simulator.ours import Ours, Policy
from benchmarks.simulator.send_at_once import SendAtOnce
from benchmarks.simulator.two_engines import TwoEngines
from benchmarks.simulator.workloads import CONV, Flood, Workload, sharegpt
from fleet.types import Band, Slo
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Router

WARMUP_S = 60.0  # the first use of every adapter reads it from disk
NEVER_S = 1e9

PUBLIC: Mapping[str, Callable[[int], Baseline]] = {
    "round robin": RoundRobin,
    "least outstanding": LeastOutstanding,
    "hash affinity": HashAffinity,
    "llm-d LoRA affinity": LlmdAffinity,
    "SGLang cache-aware": SglangCacheAware,
}
OURS = "ours"
# Variants of ours: what is different from the settings a gateway starts with.
VARIANTS: Mapping[str, Mapping[str, float]] = {
    OURS: {},
    "ours, plain VTC": {"aging_tokens_per_s": 0.0, "slot_wait_s": NEVER_S},
}
ALL = (*PUBLIC, *VARIANTS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet, what arrives at it, and who shall route it."""

    name: str
    replicas: int
    engine: EngineSettings
    workload: Workload | TwoEngines
    routers: tuple[str, ...] = ALL
    label: str = ""  # of one of several fleets under one name
    slo: Slo = field(default_factory=Slo)  # of our pool; none: nothing is refused
    queue_timeout_s: float = NEVER_S
    bands: Mapping[str, Band] = field(default_factory=dict)
    costs: StepCosts | None = None  # of its engines; None: those of the run

    def engines(self) -> list[EngineSettings]:
        """Every replica's settings."""
        return [self.engine] * self.replicas

    def router(self, name: str, seed: int, changes: Mapping[str, float]) -> Router:
        """Make a router; `changes` are settings of ours. Raises KeyError on an unknown name."""
        if name in PUBLIC:
            return SendAtOnce(PUBLIC[name](seed))
        policy = Policy(name, slo=self.slo, queue_timeout_s=self.queue_timeout_s)
        return Ours(
            policy.with_settings(dict(VARIANTS[name]) | dict(changes)), self.workload.tenants(), self.bands
        )


def scenarios() -> dict[str, list[Scenario]]:
    """All of them by name, in the order shown."""
    return {
        "fleet": [_many("fleet", Workload(1000, 80.0, CONV))],
        "crowded": [_many("crowded", Workload(1000, 120.0, CONV))],
        "even": [_many("even", Workload(1000, 60.0, CONV, zipf=0.0))],
        "noisy": [_many("noisy", Workload(1000, 40.0, CONV, flood=Flood(200.0)))],
        "noisy-many": [_many("noisy-many", Workload(1000, 40.0, CONV, flood=Flood(100.0, adapters=200)))],
        "starved": [
            _starved(),
            replace(_starved(), label="2 s promised", routers=(OURS,), slo=Slo(ttft_s=2.0)),
        ],
        "overload": [_overload()],
        "two-engines": [
            _two("steady", TwoEngines()),
            _two("flood", TwoEngines(flood=1.5)),
            _two("clients' flood", TwoEngines(flood_clients=100)),
            _two("busy", TwoEngines(load=1.25)),
            _two("saturated", TwoEngines(clients=16)),
        ],
        "slots": [_slots(count) for count in (8, 16, 32, 64)],
    }


def _many(name: str, workload: Workload) -> Scenario:
    """Sixteen replicas of sixteen slots, whose batches alone would let them serve some 250 calls/s."""
    return Scenario(name, 16, EngineSettings(), workload)


def _starved() -> Scenario:
    """Far more adapters that are active at once than slots: 200 for 4 replicas of 4."""
    return Scenario("starved", 4, EngineSettings(slots=4), Workload(200, 10.0, CONV, zipf=0.8))


def _overload() -> Scenario:
    """Ten times what such a fleet serves within its objectives; some tenants high, some low.

    The high band alone asks for about half of what can be served: the others are what is too much.
    """
    of_tenth = {9: Band.HIGH, 6: Band.LOW, 7: Band.LOW, 8: Band.LOW}
    return Scenario(
        "overload",
        16,
        EngineSettings(),
        Workload(1000, 1600.0, CONV, duration_s=120.0),
        slo=Slo(ttft_s=2.0, itl_s=0.060),
        queue_timeout_s=30.0,
        bands={f"t{index}": of_tenth[index % 10] for index in range(1000) if index % 10 in of_tenth},
    )


def _two(label: str, workload: TwoEngines) -> Scenario:
    """The real benchmark, as `two_engines.py` simulates it."""
    engine, costs = two_engines.ENGINE, two_engines.COSTS
    return Scenario("two-engines", workload.shape.replicas, engine, workload, label=label, costs=costs)


def _slots(count: int) -> Scenario:
    """One replica as it was measured: 128 adapters, a third each at 0.1, 0.05 and 0.025 requests/s."""
    workload = Workload(128, 7.47, sharegpt(222.0, 194.5), duration_s=3600.0, levels_per_s=(0.1, 0.05, 0.025))
    engine = EngineSettings(slots=count, host_places=128, max_sequences=2048)
    return Scenario("slots", 1, engine, workload, ("round robin", OURS), label=f"{count} slots")
