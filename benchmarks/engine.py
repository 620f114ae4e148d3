"""What is left of the engine's throughput behind the gateway? `python -m benchmarks.engine` asks a real vLLM.

The same requests go through the gateway and straight to the engine behind it, in turn, round by round, so
that both meet the same engine in the same minute. Without --gateway it starts one pool of a fleet itself. It
says nothing about the gateway's own limits, far above one engine: `python -m benchmarks.gateway` does.
"""

from __future__ import annotations

import http.client
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.endpoint import Target, ask, split_url, wait_for_chat
from benchmarks.engine_report import ENGINE, GATEWAY, render
from benchmarks.output import JsonFile, benchmark, show
from benchmarks.results import LoadResult
from benchmarks.rounds import Measurement, Rounds
from benchmarks.scenarios import prompts
from benchmarks.service import start_service
from benchmarks.tools import Endpoint, Load, ToolError, run_load
from engines.protocol import ADAPTER_HEADER, ADAPTERS_PATH
from engines.residency import Residency

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
    seed: int
    warmup_s: float = 2.0
    connections: int = 32
    max_tokens: int = 64

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


def measure(sides: dict[str, Target], plan: Plan, report: Rounds, folder: Path) -> None:
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


def gateway_side(url: str, key: str, model: str) -> Target:
    """The side that tenants see. Raises ToolError on an address that is none."""
    return side(GATEWAY, url, [f"Authorization: Bearer {key}"], model)


def engine_side(url: str, headers: Sequence[str], adapter: str) -> Target:
    """The side that the gateway sees, where a version has the engine's own name. Raises ToolError."""
    held = held_adapters(side(ENGINE, url, headers, adapter).endpoint)
    name = engine_name(adapter, held)
    return side(ENGINE, url, [*headers, f"{ADAPTER_HEADER}: {name}"], name)


def held_adapters(endpoint: Endpoint) -> tuple[str, ...]:
    """What an engine has in memory, least recently used first. Raises ToolError."""
    try:
        status, answer = ask(endpoint, ADAPTERS_PATH)
        if status != 200:
            raise ToolError(f"the engine answers {status} to GET {ADAPTERS_PATH}: give it its token")
        return Residency.from_json(json.loads(answer)).host
    except (OSError, http.client.HTTPException, KeyError, TypeError, ValueError) as error:
        raise ToolError(f"the engine does not say what it holds: {error!r}") from error


def engine_name(adapter: str, held: Sequence[str]) -> str:
    """The engine's name of the adapter's version it has used last. Raises ToolError where it has none."""
    names = [name for name in held if name.rpartition("@")[0] == adapter]
    if not names:
        raise ToolError(f"the engine has no adapter {adapter!r}; it has: {', '.join(held) or 'none'}")
    return names[-1]


@contextmanager
def started_sides(
    folder: Path, fleet: Path, pool: str, key: str, names: tuple[str, str]
) -> Iterator[dict[str, Target]]:
    """Start the service as in production and find the engine behind its gateway. Raises ToolError.

    `names` are those of the model, as the tenant calls it, and of its adapter.
    """
    console = Console(stderr=True)
    with start_service(folder, fleet, pool) as service:
        front = gateway_side(service.url, key, names[0])
        with console.status("starting the service and its engines"):
            service.wait_until_ready(front)
        back = engine_side(service.engine_url(f"{pool}-0"), service.engine_headers(), names[1])
        yield {GATEWAY: front, ENGINE: back}


def main(  # noqa: PLR0913 - Typer reads one argument per option
    gateway: Annotated[str, typer.Option(help="URL of a gateway that runs already.")] = "",
    key: Annotated[str, typer.Option(help="API key of the tenant.")] = "acme-demo-key",
    model: Annotated[str, typer.Option(help="The model as the tenant calls it.")] = "support",
    engine: Annotated[str, typer.Option(help="http:// or unix: address of the engine behind it.")] = "",
    engine_header: Annotated[
        list[str] | None, typer.Option(help="'Name: value' for --engine; its token.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="The adapter behind it, without version.")] = "acme-support",
    fleet: Annotated[Path, typer.Option(help="What is started without --gateway.")] = Path("fleet.yaml"),
    pool: Annotated[str, typer.Option(help="The pool of it that serves the model.")] = "shared",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="What each measurement counts for.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure a real engine through the gateway and without it."""
    plan, report = Plan(rounds, seconds, seed), Rounds()
    with benchmark(), tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        if bool(gateway) != bool(engine):
            raise ToolError("--gateway and --engine go together: give both, or neither to start a service")
        if gateway:
            front = gateway_side(gateway, key, model)
            wait_for_chat(front, None)  # now the engine holds the adapter
            back = engine_side(engine, engine_header or [], adapter)
            measure({GATEWAY: front, ENGINE: back}, plan, report, folder)
        else:
            with started_sides(folder, fleet.resolve(), pool, key, (model, adapter)) as sides:
                measure(sides, plan, report, folder)
    show(report, render(report), json_file)


if __name__ == "__main__":
    typer.run(main)
