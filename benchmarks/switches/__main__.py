"""Measures switches between whole models on this machine's GPU; with --cpu what CPUs can.

    python -m benchmarks.switches [--cpu]

It needs the demo's models (`make demo`), and makes two larger ones. Exit status: 0, 1 for an error, or 3
where there is no GPU.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.output import JsonFile, benchmark, show
from benchmarks.switches import plain, speed
from benchmarks.switches.host import Host
from benchmarks.switches.models import FINE_TUNES, LARGE, adapters, fine_tunes, make_large
from benchmarks.switches.report import Report, Slots, render, require
from engines.devices.nvml import NoNvml, read_machine
from engines.vllm_engine import is_cpu_build

NO_GPU = 3
SAID = "No GPU here, or vLLM is its build for CPUs: nothing was measured. --cpu measures what CPUs can."
ON_GPU = ("wake1", "wake2")
ASLEEP_AT = {"wake1": 1, "wake2": 2}


class Part(StrEnum):
    """What is measured."""

    WAYS = "ways"  # every way between two models of one shape, memory, and speed
    PLAIN = "plain"  # the same of plain vLLM
    TURNS = "turns"  # answers after many turns, and adapters


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    parts: frozenset[Part]
    turns: int
    rounds: int
    seconds: float
    on_cpu: bool

    @property
    def slow_rounds(self) -> int:
        """Of what takes as long as a cold start."""
        return max(1, self.rounds // 3)


def device() -> str:
    """Name the first GPU; "" where there is none, or vLLM's build cannot use it."""
    if is_cpu_build():
        return ""
    try:
        gpus = read_machine().gpus
    except NoNvml:
        return ""
    return gpus[0].name if gpus else ""


def main(
    cpu: Annotated[bool, typer.Option("--cpu", help="Measure what needs no GPU.")] = False,
    part: Annotated[list[Part] | None, typer.Option(help="Only this; again for more.")] = None,
    turns: Annotated[int, typer.Option(min=0, help="Turns whose answers are compared.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="Switches by each way; of cold ones a third.")] = 6,
    seconds: Annotated[float, typer.Option(min=1, help="Of each measurement of speed.")] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Measure each way from one whole model to another, and check the answers after it."""
    on = device()
    if not (on or cpu):
        Console(stderr=True).print(SAID, soft_wrap=True)
        raise typer.Exit(NO_GPU)
    report = Report(f"{os.cpu_count()} CPU cores" if cpu else on)
    plan = Plan(frozenset(part or Part), turns, rounds, seconds, on_cpu=cpu)
    with benchmark(), tempfile.TemporaryDirectory(prefix="switches-") as temporary:
        try:
            asyncio.run(_measure(report, Path(temporary), plan))
        finally:  # what was measured before an error is shown, too
            show(report, render(report), json_file)


async def _measure(report: Report, folder: Path, plan: Plan) -> None:
    large = make_large(folder) if plan.parts & {Part.WAYS, Part.PLAIN} else {}
    if Part.WAYS in plan.parts:
        async with Host(folder, large, on_cpu=plan.on_cpu, slots=0) as host:
            await _ways(report, host, plan.rounds)
            of_host = await speed.drive_host(host, folder, plan.seconds)
            report.tokens_per_s["a host after these switches"] = of_host
    if Part.PLAIN in plan.parts:
        for number in range(plan.slow_rounds):
            await asyncio.to_thread(_plain, report, folder, [large[name] for name in LARGE], plan, number)
    if Part.TURNS in plan.parts:
        async with Host(folder, fine_tunes(), on_cpu=plan.on_cpu, slots=2) as host:
            await _turns(report, host, plan.turns)
            await _slots(report, host)


def _plain(report: Report, folder: Path, models: list[Path], plan: Plan, number: int) -> None:
    first, second = models if number % 2 == 0 else reversed(models)
    with plain.switched(folder, (first, second), on_cpu=plan.on_cpu) as (switch, target):
        report.switches.append(switch)
        if number == plan.slow_rounds - 1:
            report.tokens_per_s["plain vllm serve"] = speed.drive(target, folder, plan.seconds)


async def _ways(report: Report, host: Host, rounds: int) -> None:
    """Take each way, there and back."""
    report.memory.append(host.memory("before"))
    await host.go(LARGE[0], "fork", "cold")
    await host.read_all()
    report.memory.append(host.memory("one awake"))
    await host.go(LARGE[1], "reload")  # now the first one's weights are held
    await host.go(LARGE[0], "reload")
    for way in ("put", "reload"):
        await _there_and_back(report, host, way, rounds)
    for way in ("fork", "cold"):
        await _there_and_back(report, host, way, max(1, rounds // 3) if way == "cold" else rounds)
    for way in ON_GPU:
        if host.on_cpu:
            report.not_possible[way] = "vLLM sleeps on GPUs alone"
        else:
            await _sleeps(report, host, way, rounds)
    report.memory.append(host.memory("after"))


async def _there_and_back(report: Report, host: Host, way: str, times: int) -> None:
    for _ in range(times):
        report.switches.append(await host.go(_other(host), way))


async def _sleeps(report: Report, host: Host, way: str, times: int) -> None:
    """Have both sleep at one level, and wake by turns."""
    host.app.turns.sleeps_at = ASLEEP_AT[way]
    for _ in range(2):
        await host.go(_other(host), "fork", "cold")
    report.memory.append(host.memory(f"one awake, one asleep at level {ASLEEP_AT[way]}"))
    await _there_and_back(report, host, way, times)


async def _turns(report: Report, host: Host, turns: int) -> None:
    """Have two fine-tunes take turns, by whichever way is the cheapest; each must answer as it did alone."""
    alone = {}
    for model in FINE_TUNES:
        await host.go(model, "fork", "cold")
        alone[model] = await host.ask()
    require(len(set(alone.values())) == len(FINE_TUNES), "the models' answers cannot be told apart")
    await host.read_all()
    for number in range(turns):
        model = FINE_TUNES[number % len(FINE_TUNES)]
        way = (await host.go(model)).way
        report.ways_of_turns[way] = report.ways_of_turns.get(way, 0) + 1
        report.wrong_answers += await host.ask() != alone[model]
    report.turns, report.failed_checks = turns, host.failed_checks()


async def _slots(report: Report, host: Host) -> None:
    for adapter, folder in adapters().items():
        began_s = time.monotonic()
        await host.tell({adapter: folder})
        load_s = time.monotonic() - began_s
        times = [await _first_token_s(host, adapter) for _ in range(2)]
        report.slots.append(Slots(adapter, load_s, *times))


async def _first_token_s(host: Host, adapter: str) -> float:
    began_s = time.monotonic()
    await host.ask(model=adapter, max_tokens=1)
    return time.monotonic() - began_s


def _other(host: Host) -> str:
    return LARGE[1] if host.now == LARGE[0] else LARGE[0]


if __name__ == "__main__":
    typer.run(main)
