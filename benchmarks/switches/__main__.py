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
ON_GPU, EVERYWHERE = ("wake1", "wake2"), ("put", "reload", "fork", "cold")
ASLEEP_AT = {"wake1": 1, "wake2": 2}


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
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Measure what needs no GPU, on this machine's CPUs.")
    ] = False,
    turns: Annotated[int, typer.Option(min=0, help="Turns whose answers are compared.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="Switches by each way; two thirds fewer cold ones.")] = 6,
    seconds: Annotated[float, typer.Option(min=1, help="Of each measurement of speed.")] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Measure each way from one whole model to another, and check the answers after it."""
    on = device()
    if not (on or cpu):
        message = (
            "No GPU here, or vLLM is the build for CPUs: nothing was measured. --cpu measures what CPUs can."
        )
        Console(stderr=True).print(message)
        raise typer.Exit(NO_GPU)
    report = Report(f"{os.cpu_count()} CPU cores" if cpu else on)
    with benchmark(), tempfile.TemporaryDirectory(prefix="switches-") as temporary:
        asyncio.run(_measure(report, Path(temporary), cpu, (turns, rounds, seconds)))
    show(report, render(report), json_file)


async def _measure(report: Report, folder: Path, on_cpu: bool, plan: tuple[int, int, float]) -> None:
    turns, rounds, seconds = plan
    large = make_large(folder)
    async with Host(folder, large, on_cpu=on_cpu, slots=0) as host:
        await _ways(report, host, rounds)
        report.tokens_per_s["a host after these switches"] = await speed.drive_host(host, folder, seconds)
    first, second = (large[name] for name in LARGE)
    for number in range(max(1, rounds // 3)):
        models = (first, second) if number % 2 == 0 else (second, first)
        report.switches.append(await asyncio.to_thread(plain.switch, folder, models, on_cpu=on_cpu))
    with plain.served(folder, second, on_cpu=on_cpu) as target:
        report.tokens_per_s["plain vllm serve"] = await asyncio.to_thread(
            speed.drive, target, folder, seconds
        )
    async with Host(folder, fine_tunes(), on_cpu=on_cpu, slots=2) as host:
        await _turns(report, host, turns)
        await _slots(report, host)


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
