"""What does one scheduling decision cost? `python -m benchmarks.decisions` runs the gateway's own dispatcher.

A thousand tenants with an adapter each, ten thousand requests waiting, sixteen replicas: every step submits
one request and settles another, which grants the place it leaves to one or more. No engine, no socket, no
event loop. CPU time of this thread counts, so that what else runs on the machine does not. A virtual CPU is
not always equally fast, so the same steps are run several times, and of each step the fastest counts;
what a run showed as it was, pauses of the machine included, stands beside it.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.output import JsonFile, show
from benchmarks.simulator.ours import POOL, Policy, fleet_of
from benchmarks.stats import short
from fleet.current import CurrentFleet
from fleet.types import Band, SchedulerSettings
from routing import gc_tuning
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target
from simulation.costs import EngineSettings
from simulation.driver import BASE

T = TypeVar("T")
REPLICA = EngineSettings(slots=16, host_places=64, max_sequences=64)
POLICY = Policy(settings=SchedulerSettings(max_queued=10**9, max_queued_bytes=2**50), queue_timeout_s=3600.0)
STEP_S = 0.001  # of the virtual clock
BOUND_US = 200.0  # p99 that the design asks for
BANDS = tuple(Band)
WHOLE = "all that one settle grants"  # several decisions, so no bound is asked of it


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the fleet is and how much waits."""

    steps: int = 20_000  # requests that come and go
    runs: int = 5  # of the same steps
    tenants: int = 1000  # each with one adapter
    queued: int = 10_000
    replicas: int = 16
    users: int = 0  # of each tenant, named by its requests; 0: they name none
    seed: int = 1


@dataclass(slots=True)
class Costs:
    """Microseconds of each decision of one kind."""

    name: str
    us: list[float] = field(default_factory=list)
    disturbed_p99_us: float = 0.0  # of a run as it was, the middle one

    def percentile(self, fraction: float) -> float:
        """A percentile, by nearest rank."""
        ordered = sorted(self.us)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]

    @staticmethod
    def fastest(runs: Sequence[Costs]) -> Costs:
        """Take each decision from the run that was fastest at it; runs decide the same in the same order."""
        us = [min(of_step) for of_step in zip(*(run.us for run in runs), strict=True)]
        return Costs(runs[0].name, us, statistics.median(run.percentile(0.99) for run in runs))


@dataclass(slots=True)
class Report:
    """Costs by queue length."""

    plan: Plan
    rows: list[tuple[int, Costs]] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """What is slower than the design asks for."""
        return [
            f"{costs.name} with {queued} queued: p99 {costs.percentile(0.99):.0f} us is over {BOUND_US:.0f}"
            for queued, costs in self.rows
            if costs.name != WHOLE and costs.percentile(0.99) > BOUND_US
        ]


class House:
    """A dispatcher under a virtual clock, and requests for it by Zipf's law."""

    def __init__(self, plan: Plan) -> None:
        self._chance = random.Random(plan.seed)
        self._users = [f"user-{number}" for number in range(plan.users)]
        self._now_s = 1000.0
        self._names = [f"tenant-{number}" for number in range(plan.tenants)]
        self._weights = [1.0 / (number + 1) for number in range(plan.tenants)]
        self._made = 0
        self.live: list[Ticket] = []
        owned = {name: [name] for name in self._names}
        bands = {name: BANDS[number % len(BANDS)] for number, name in enumerate(self._names)}
        fleet = fleet_of(POLICY, owned, [REPLICA] * plan.replicas, bands)
        self.dispatcher = Dispatcher(CurrentFleet(fleet), declared_replicas(fleet), clock=lambda: self._now_s)
        ids = [f"{name}@1" for name in self._names]
        for replica in self.dispatcher.replicas:
            self.dispatcher.take_residency(replica, adapters=ids, pinned=(), host=())
            self.dispatcher.set_ready(replica, True)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return sum(len(group.backlog) for group in self.dispatcher.groups.values())

    def submit(self) -> float:
        """Submit one request; returns microseconds."""
        self._made += 1
        self._now_s += STEP_S
        name = self._chance.choices(self._names, self._weights)[0]
        target = Target(name, name, name, BASE, POOL, 1, f"{name}@1")
        prompt_tokens = self._chance.randint(100, 2000)
        user = self._chance.choice(self._users) if self._users else ""
        request = Request(str(self._made), target, 1, prompt_tokens, self._now_s, user=user)
        taken_us, ticket = _timed(lambda: self.dispatcher.submit(request))
        if not isinstance(ticket, Ticket):
            raise RuntimeError(f"a request was refused: {ticket}")
        self.live.append(ticket)
        return taken_us

    def settle(self) -> tuple[float, int]:
        """End one running request; returns microseconds, and how many that wait were granted its place."""
        while True:
            place = self._chance.randrange(len(self.live))
            if self.live[place].replica is not None:
                break
        ticket, self.live[place] = self.live[place], self.live[-1]
        self.live.pop()
        tokens, waited = self._chance.randint(1, 300), self.waiting
        taken_us, _ = _timed(
            lambda: self.dispatcher.settle(
                ticket,
                Outcome.COMPLETED,
                prompt_tokens=ticket.request.prompt_tokens,
                completion_tokens=tokens,
            )
        )
        return taken_us, waited - self.waiting

    def sweep(self) -> None:
        """Do what is done four times a second."""
        self._now_s += STEP_S
        self.dispatcher.sweep()


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began_ns = time.thread_time_ns()
    result = work()
    return (time.thread_time_ns() - began_ns) / 1000, result


def measure(plan: Plan, queued: int) -> list[Costs]:
    """Measure every kind of decision with so much in the queue."""
    numbers = track(range(plan.runs), f"{queued} queued", console=Console(stderr=True), transient=True)
    runs = [_run(plan, queued) for _ in numbers]
    return [Costs.fastest(kind) for kind in zip(*runs, strict=True)]


def _run(plan: Plan, queued: int) -> list[Costs]:
    """Fill the queue, then let as much come as goes."""
    house = House(plan)
    while house.waiting < queued:
        house.submit()
    gc_tuning.rest()  # as the gateway does
    submits, settles, whole = Costs("submit"), Costs("settle and grant"), Costs(WHOLE)
    for step in range(plan.steps):
        submits.us.append(house.submit())
        taken_us, grants = house.settle()
        whole.us.append(taken_us)
        settles.us.append(taken_us / max(1, grants))
        if step % 100 == 0:
            house.sweep()
    gc.unfreeze()
    return [submits, settles, whole]


def render(report: Report) -> Table:
    """One row for each kind of decision and length of the queue."""
    plan = report.plan
    users = f", {plan.users} users of each" if plan.users else ""
    table = Table(title=f"CPU time of a decision: {plan.tenants} tenants, {plan.replicas} replicas{users}")
    for name in ("queued", "decision", "p50 us", "p99 us", "max us", "p99 of a run", "decisions/s"):
        table.add_column(name, justify="left" if name == "decision" else "right")
    for queued, costs in report.rows:
        rate = 1e6 * len(costs.us) / sum(costs.us)
        figures = (costs.percentile(0.5), costs.percentile(0.99), max(costs.us), costs.disturbed_p99_us)
        table.add_row(str(queued), costs.name, *(f"{us:.1f}" for us in figures), short(rate))
    return table


def main(
    steps: Annotated[int, typer.Option(min=100, help="Requests that come and go.")] = 20_000,
    runs: Annotated[int, typer.Option(min=1, help="Of the same steps; the fastest counts.")] = 5,
    users: Annotated[int, typer.Option(min=0, help="Of each tenant, named by its requests.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure decisions with a tenth of the queue, and with all of it."""
    plan = Plan(steps, runs, users=users)
    report = Report(plan)
    for length in (plan.queued // 10, plan.queued):
        report.rows += [(length, costs) for costs in measure(plan, length)]
    show(report, render(report), json_file)


if __name__ == "__main__":
    typer.run(main)
