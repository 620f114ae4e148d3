"""What is left of the engine's throughput behind the gateway? `python -m benchmarks.engine` asks a real vLLM.

The same requests go through the gateway and straight to the engine behind it, in turn, round by round, so
that both meet the same engine in the same minute. Without --gateway it starts one pool of a fleet itself. It
says nothing about the gateway's own limits, far above one engine: `python -m benchmarks.gateway` does.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.endpoint import Target, split_url
from benchmarks.engine_report import ENGINE, GATEWAY, Measurement, Report, render
from benchmarks.machine import origin
from benchmarks.processes import end_on_sigterm
from benchmarks.results import LoadResult
from benchmarks.scenarios import prompts
from benchmarks.service import start_service
from benchmarks.tools import Endpoint, Load, ToolError, run_load

BODIES = 512  # per round: no prompt comes twice while it counts, so that prefix caching helps neither side


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to ask."""

    name: str
    stream: bool
    connections: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, how long and how hard both sides are measured."""

    rounds: int
    seconds: float
    warmup_s: float
    connections: int
    max_tokens: int
    seed: int

    def modes(self) -> list[Mode]:
        """At the given number of connections, whole and streamed, and one at a time for the latency."""
        return [
            Mode("whole answers", stream=False, connections=self.connections),
            Mode("streams", stream=True, connections=self.connections),
            Mode("one at a time", stream=True, connections=1),
        ]

    def steps(self) -> Iterator[tuple[int, Mode, str]]:
        """Every mode on both sides in every round; who begins alternates."""
        for number in range(self.rounds):
            for mode in self.modes():
                for name in (GATEWAY, ENGINE) if number % 2 == 0 else (ENGINE, GATEWAY):
                    yield number, mode, name

    def bodies(self, mode: Mode, model: str, round_number: int) -> str:
        """One round's requests: the same for both sides but for the model's name."""
        chance = random.Random(f"{self.seed}/{round_number}/{mode.name}")
        extra: dict[str, object] = {"max_tokens": self.max_tokens, "ignore_eos": True, "stream": mode.stream}
        if mode.stream:
            extra["stream_options"] = {"include_usage": True}
        return prompts(chance, BODIES, [model], extra)


def drive(target: Target, plan: Plan, mode: Mode, number: int, folder: Path) -> LoadResult:
    """Load one side once with the requests of round `number`."""
    file = folder / "bodies.jsonl"
    file.write_text(plan.bodies(mode, target.models[0], number))
    load = Load(mode.connections, plan.seconds, plan.warmup_s, timeout_s=60.0)
    return run_load(target.endpoint, load, file)


def measure(sides: dict[str, Target], plan: Plan, report: Report, folder: Path) -> None:
    """Measure both sides in turn, adding to the report as it goes.

    One round goes before that does not count: engines compile and tune themselves on their first batches.
    """
    with Console(stderr=True).status("measuring") as status:
        for mode in plan.modes():
            for name in (ENGINE, GATEWAY):
                status.update(f"settling: {mode.name}, {name}")
                drive(sides[name], plan, mode, -1, folder)
        for number, mode, name in plan.steps():
            status.update(f"round {number + 1} of {plan.rounds}: {mode.name}, {name}")
            report.measurements.append(
                Measurement(mode.name, name, drive(sides[name], plan, mode, number, folder))
            )


def side(name: str, url: str, headers: Sequence[str], model: str) -> Target:
    """One side by its URL. Raises ToolError on an address that is none."""
    address, prefix = split_url(url)
    return Target(name, Endpoint(address, tuple(headers), f"{prefix}/v1/chat/completions"), (model,))


def key_header(key: str) -> list[str]:
    """What the gateway wants to see beside a request."""
    return [f"Authorization: Bearer {key}"]


@contextmanager
def started_sides(
    folder: Path, fleet: Path, pool: str, key: str, models: tuple[str, str]
) -> Iterator[dict[str, Target]]:
    """Start the service as in production and find the engine behind its gateway. Raises ToolError."""
    console = Console(stderr=True)
    with start_service(folder, fleet, pool) as service:
        front = side(GATEWAY, service.url, key_header(key), models[0])
        with console.status("starting the service and its engines"):
            service.wait_until_ready(front)
        headers = service.engine_headers(models[1])
        yield {GATEWAY: front, ENGINE: side(ENGINE, service.engine_url(f"{pool}-0"), headers, models[1])}


def main(  # noqa: PLR0913 - Typer reads one argument per option
    gateway: Annotated[str, typer.Option(help="URL of a gateway that runs already.")] = "",
    key: Annotated[str, typer.Option(help="API key of the tenant.")] = "acme-demo-key",
    model: Annotated[str, typer.Option(help="The model as the tenant calls it.")] = "support",
    engine: Annotated[str, typer.Option(help="http:// or unix: address of the engine behind it.")] = "",
    engine_header: Annotated[list[str] | None, typer.Option(help="'Name: value' sent to --engine.")] = None,
    engine_model: Annotated[str, typer.Option(help="The same, as the engine calls it.")] = "acme-support",
    fleet: Annotated[Path, typer.Option(help="What is started without --gateway.")] = Path("fleet.yaml"),
    pool: Annotated[str, typer.Option(help="The pool of it that serves the model.")] = "shared",
    connections: Annotated[int, typer.Option(min=1)] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="Every answer has exactly so many.")] = 64,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="What each measurement counts for.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds before it counts.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where the figures go; - is stdout.")
    ] = None,
) -> None:
    """Measure a real engine through the gateway and without it."""
    plan = Plan(rounds, seconds, warmup, connections, max_tokens, seed)
    report = Report()
    end_on_sigterm()
    try:
        if bool(gateway) != bool(engine):
            raise ToolError("--gateway and --engine go together: give both, or neither to start a service")
        with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
            folder, models = Path(temporary), (model, engine_model)
            if gateway:
                front = side(GATEWAY, gateway, key_header(key), model)
                back = side(ENGINE, engine, engine_header or [], engine_model)
                measure({GATEWAY: front, ENGINE: back}, plan, report, folder)
            else:
                with started_sides(folder, fleet.resolve(), pool, key, models) as sides:
                    measure(sides, plan, report, folder)
    except ToolError as error:
        Console(stderr=True).print(f"[red]{error}")
        raise typer.Exit(1) from error
    show(report, json_file)


def show(report: Report, json_file: Path | None) -> None:
    """Print or write the report. Raises typer.Exit where requests failed."""
    head = origin()
    if json_file is not None and str(json_file) == "-":
        sys.stdout.write(report.as_json(head))
        return
    if json_file is not None:
        json_file.write_text(report.as_json(head))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for line in head.lines():
        console.print(line, highlight=False)
    console.print(render(report))
    for line in report.complaints():
        console.print(f"[red]{line}")
    if report.complaints():
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
