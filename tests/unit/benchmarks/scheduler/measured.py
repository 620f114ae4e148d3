"""What phases could have measured, for tests of what is made of it. Times are seconds from zero."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival, Demand
from benchmarks.scheduler.cores import Cores
from benchmarks.scheduler.driving import Drive
from benchmarks.scheduler.fleet import Shape
from benchmarks.scheduler.phases import Measured, Phase, Plan
from benchmarks.scheduler.report import Report, Setting

SHAPE = Shape(adapters=6, tenants=2, slots=2)
DEMAND = Demand(SHAPE)
PLAN = Plan(
    rounds=2,
    seconds=9.0,
    warmup_s=1.0,
    drain_s=5.0,
    filling_s=1.0,
    clients=2,
    tokens=10,
    load=0.5,
    flood=2.0,
    seed=1,
)
SETTING = Setting(SHAPE, PLAN)
CORES = Cores(load=0.1, gateway=0.2, engines=1.6, others=0.05)


def made(
    due_s: float, ttft_s: float = 0.1, *, tenant: int = 0, flood: bool = False, adapter: int | None = None
) -> Answer:
    """An answer that took half a second after its first token."""
    arrival = Arrival(due_s, tenant, tenant if adapter is None else adapter, flood)
    answer = Answer(arrival, due_s, sent_s=due_s, whole=True, replica="shared-0")
    answer.first_s, answer.last_s = due_s + ttft_s, due_s + ttft_s + 0.5
    return answer


def measured(
    phase: Phase,
    scheduler: str,
    answers: Sequence[Answer],
    *,
    number: int = 0,
    most_adapters: int = 2,
    cores: Cores = CORES,
) -> Measured:
    """One phase of which seconds 1 to 9 count."""
    return Measured(
        round=number,
        phase=phase,
        scheduler=scheduler,
        drive=Drive(0.0, 12.0, list(answers)),
        window=(1.0, 9.0),
        disk_loads=1.0,
        most_adapters=most_adapters,
        cores=cores,
        work_s=None,
    )


def report(*parts: Measured) -> Report:
    """A report of them."""
    return Report(SETTING, seats="anywhere", capacities_per_s=[40.0], measured=list(parts))
