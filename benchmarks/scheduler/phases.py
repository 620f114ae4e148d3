"""What is measured of each scheduler? Three phases with the same demand for all, and what is kept of each.

steady      all tenants at a share of what the engines can do
flood       the same arrivals, and one tenant asks for more than the engines can do on top
saturated   every tenant always has requests waiting: how much gets done in all
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import aiohttp

from benchmarks.baselines import BASELINES
from benchmarks.scheduler.answers import Answer
from benchmarks.scheduler.arrivals import Arrival, Demand, Prompts, merged
from benchmarks.scheduler.cores import Clocks, Cores, Roles
from benchmarks.scheduler.doors import DirectDoor, Door
from benchmarks.scheduler.driving import Drive, closed_loop, open_loop, undisturbed
from benchmarks.scheduler.engines import EngineEyes
from benchmarks.scheduler.figures import tokens_between
from benchmarks.scheduler.pace import measured_pace

OURS = "ours"
IDLE_WITHIN_S = 90.0
# Enough to keep engines busy, and little enough that answers still come soon: with more waiting, more
# requests share a slot at a time, and more gets done than an open load of that rate finds.
CALIBRATION_CLIENTS_PER_SLOT = 4
SETTLE_S = 1.2  # engines ask their workers what was loaded at most once a second


class Phase(StrEnum):
    """One of the three."""

    STEADY = "steady"
    FLOOD = "flood"
    SATURATED = "saturated"


# What is compared with each other follows each other: machines change their pace from minute to minute.
COMPARED = ((Phase.STEADY, Phase.FLOOD), (Phase.SATURATED,))


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard."""

    rounds: int
    seconds: float  # of each phase
    seed: int
    warmup_s: float = 2.0  # arrivals of so long at the beginning do not count, steady and flood
    drain_s: float = 8.0  # longest wait for what has arrived
    filling_s: float = 8.0  # of the saturated phase, at its beginning: queues of rare adapters fill
    clients: int = 16  # per tenant, while saturated
    tokens: int = 32  # of every answer
    load: float = 0.75  # steady arrivals, as a share of the capacity
    flood: float = 1.5  # what the flood adds, as a share of the capacity

    def steps(self, names: Sequence[str]) -> Iterator[tuple[int, Phase, str]]:
        """Every phase with every scheduler in every round; every order is turned and alternates."""
        for number in range(self.rounds):
            turn = 1 if number % 2 == 0 else -1
            for position, phases in enumerate(COMPARED):
                first = (number // 2 + position) % len(names)
                order = [*names[first:], *names[:first]]
                for name in order[::turn]:
                    for phase in phases[::turn]:
                        yield number, phase, name

    def flooder(self, demand: Demand) -> int:
        """The tenant that floods: one in the middle, neither the most popular nor the least."""
        return demand.shape.tenants // 2


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase of one scheduler in one round."""

    round: int
    phase: Phase
    scheduler: str
    drive: Drive
    window: tuple[float, float]  # of `time.monotonic`: what counts
    disk_loads: float  # adapters that engines read from disk
    most_adapters: float  # at once in one engine, by vLLM's own count at each step
    cores: Cores
    work_s: float | None  # CPU time of the same small piece of work in the window: the machine's pace

    def counted(self) -> list[Answer]:
        """Answers to what became due in the window, the flood's own excepted."""
        return [a for a in self.drive.answers if self._inside(a) and not a.arrival.flood]

    def _inside(self, answer: Answer) -> bool:
        start_s, end_s = self.window
        return start_s <= answer.due_s < end_s

    def service(self, tenants: int, tokens: int) -> list[float]:
        """Tokens each tenant got in the window."""
        served = [0.0] * tenants
        for answer in self.drive.answers:
            served[answer.arrival.tenant] += tokens_between(answer, tokens, *self.window)
        return served

    def demand(self, tenants: int, tokens: int) -> list[float]:
        """Tokens each tenant asked for in the window; without bound while saturated."""
        if self.phase is Phase.SATURATED:
            return [float("inf")] * tenants
        asked = [0.0] * tenants
        for answer in self.drive.answers:
            asked[answer.arrival.tenant] += tokens * self._inside(answer)
        return asked

    def lateness_s(self) -> list[float]:
        """How late each request was sent."""
        return [answer.sent_s - answer.due_s for answer in self.drive.answers if answer.sent_s]


class Stage:
    """Runs phases against the engines, one at a time."""

    def __init__(
        self, doors: Sequence[Door], demand: Demand, plan: Plan, eyes: EngineEyes, roles: Roles
    ) -> None:
        self._doors = {door.name: door for door in doors}
        self._demand = demand
        self._plan = plan
        self._eyes = eyes
        self._roles = roles

    async def capacity_per_s(self, name: str, seconds: float) -> float:
        """Requests per second of all tenants' mix that a closed loop gets done; its first quarter settles."""
        door = self._doors[name]
        chance = random.Random(f"{self._plan.seed}/capacity")
        shape = self._demand.shape
        clients = CALIBRATION_CLIENTS_PER_SLOT * shape.slots * shape.replicas
        sources = [self._mix(random.Random(chance.random())) for _ in range(clients)]
        prompts = Prompts(f"{self._plan.seed}/capacity")
        await self._eyes.wait_until_idle(IDLE_WITHIN_S)
        drive = await closed_loop(door, sources, prompts, self._plan.tokens, seconds=seconds)
        window = (drive.started_s + seconds / 4, drive.ended_s)
        tokens = sum(tokens_between(a, self._plan.tokens, *window) for a in drive.answers)
        return tokens / self._plan.tokens / (window[1] - window[0])

    def _mix(self, chance: random.Random) -> Iterator[Arrival]:
        popularity = self._demand.popularity()
        while True:
            adapter = chance.choices(range(len(popularity)), popularity)[0]
            yield Arrival(0.0, self._demand.shape.owner(adapter), adapter)

    async def measure(self, number: int, phase: Phase, name: str, capacity_per_s: float) -> Measured:
        """Run one phase with one scheduler. Raises ToolError where engines do not come to rest."""
        door = self._doors[name]
        await self._eyes.wait_until_idle(IDLE_WITHIN_S)
        with undisturbed(), measured_pace() as pace:
            before, clocks = await self._eyes.pages(), Clocks.read(self._roles)
            drive, window = await self._drive(number, phase, door, capacity_per_s)
            cores = Clocks.read(self._roles).cores_since(clocks)
        await self._eyes.wait_until_idle(IDLE_WITHIN_S)
        await asyncio.sleep(SETTLE_S)
        after = await self._eyes.pages()
        return Measured(
            round=number,
            phase=phase,
            scheduler=name,
            drive=drive,
            window=window,
            disk_loads=sum(after[e].disk_loads - before[e].disk_loads for e in after),
            most_adapters=max(after[e].most_adapters(before[e]) for e in after),
            cores=cores,
            work_s=pace.work_s(*window),
        )

    async def _drive(
        self, number: int, phase: Phase, door: Door, capacity_per_s: float
    ) -> tuple[Drive, tuple[float, float]]:
        plan = self._plan
        prompts = Prompts(f"{plan.seed}/{number}/{phase}/{door.name}")  # another order of words for each
        if phase is Phase.SATURATED:
            clients = list(self._backlogged(number))
            drive = await closed_loop(door, clients, prompts, plan.tokens, seconds=plan.seconds)
            return drive, (drive.started_s + plan.filling_s, drive.ended_s)
        arrivals = self.arrivals(number, phase, capacity_per_s)
        drive = await open_loop(door, arrivals, prompts, plan.tokens, drain_s=plan.drain_s)
        return drive, (drive.started_s + plan.warmup_s, drive.started_s + plan.seconds)

    def _backlogged(self, number: int) -> Iterator[Iterator[Arrival]]:
        for tenant in range(self._demand.shape.tenants):
            for client in range(self._plan.clients):
                chance = random.Random(f"{self._plan.seed}/{number}/{tenant}/{client}")
                yield self._demand.endless(chance, tenant)

    def arrivals(self, number: int, phase: Phase, capacity_per_s: float) -> list[Arrival]:
        """The list of a round: the flood comes on top of the very same steady one."""
        plan, demand = self._plan, self._demand
        chance = random.Random(f"{plan.seed}/{number}/arrivals")
        steady = demand.steady(chance, plan.load * capacity_per_s, plan.seconds)
        if phase is not Phase.FLOOD:
            return steady
        chance = random.Random(f"{plan.seed}/{number}/flood")
        flooder = plan.flooder(demand)
        return merged(steady, demand.flood(chance, flooder, plan.flood * capacity_per_s, plan.seconds))


def baseline_doors(
    sessions: dict[str, aiohttp.ClientSession], engine_names: Sequence[str], slots: int
) -> list[Door]:
    """A door for each baseline."""
    return [DirectDoor(name, new(), sessions, engine_names, slots) for name, new in BASELINES.items()]
