"""Is the forecast true? Real engines answer a demand; the same demand is simulated with what they cost.

    python -m benchmarks.forecast run awake --costs costs.json --json awake.json   # measures costs first
    python -m benchmarks.forecast run turns --costs costs.json --json turns.json
    python -m benchmarks.forecast report turns.json awake.json                     # measured and simulated

Each fleet has two adapters of one base model on a replica of their own and three whole models of its shape on
hosts that they share: `turns` has one awake at a time, `two-hosts` one on each of two, `awake` all three. The
models are of 243 MiB and untrained, so that engines' steps count, and not what client and gateway take of the
same cores. All engines share this machine's cores, in the simulation too. Fleets must come out in the order
in which they are measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import RANK, WIDE_CAP, api_key
from benchmarks.service import start_service
from benchmarks.untrained import make_adapter, make_model
from fleet import read_fleet
from fleet.types import Fleet
from planning.calibration import Extent, calibrate
from planning.costs import Measured, roofline
from planning.fitting import as_cost, fitted
from planning.forecast import step_costs
from planning.reading.costs_file import read_costs, written
from planning.reading.models import whole_model
from planning.values import Device, Figure, ServingCost, Source, Way
from routing.observing.metrics.definitions import SWITCH_TIME, SWITCHES
from simulation.costs import EngineSettings
from simulation.driver import Call, Driver
from simulation.gateway import GatewayRouter

TENANT = "bench"
BASE, ADAPTERS, WHOLE = "base", ("adapter-1", "adapter-2"), ("whole-1", "whole-2", "whole-3")
NAMES = (*ADAPTERS, *WHOLE)
LAYERS, KV_GIB = 8, 0.25
CPU = Device("cpu", 8 * 2**30, 20e9, 0.5e12, source="a guess; what counts was measured")
FLEETS: Mapping[str, Mapping[str, int]] = {
    "turns": {"awake": 1, "replicas": 1},
    "two-hosts": {"awake": 1, "replicas": 2},
    "awake": {"awake": 3, "replicas": 1},
}
RATES_PER_S = {"adapter": 0.3, "whole": 0.05}
PROMPT, TOKENS = (4, 48), (8, 64)  # words (some three tokens each) and tokens, drawn evenly
EXTENT = Extent(longest=128, batches=(1, 2, 4, 8), tokens=32, repeats=2)
READY_S, PATIENCE_S, WARMUP_S = 600.0, 300.0, 5.0

app = typer.Typer(add_completion=False, no_args_is_help=True)


def make_models(folder: Path) -> None:
    """Make what the fleets serve."""
    for seed, model in enumerate((BASE, *WHOLE)):
        make_model(folder / model, layers=LAYERS, seed=seed)
    for seed, adapter in enumerate(ADAPTERS):
        make_adapter(folder / adapter, of=folder / BASE, seed=seed)


def fleet_file(name: str, folder: Path) -> Path:
    """Write the fleet file of a fleet, whose models are in the same folder."""
    fast = {"max_model_len": 512, "kv_cache_gib": KV_GIB, "vllm_args": ["--enforce-eager"]}
    declared = {
        "base_models": {
            BASE: {"source": str(folder / BASE), "max_loras": 4, "max_lora_rank": RANK, **fast},
            **{one: {"source": str(folder / one), **fast} for one in WHOLE},
        },
        "adapters": {one: {"source": str(folder / one), "base_model": BASE} for one in ADAPTERS},
        "tenants": {
            TENANT: {
                "api_keys": [{"sha256": _sha256(api_key(TENANT))}],
                "models": {model: model for model in (*NAMES, BASE)},
                "caps": {"max_concurrency": WIDE_CAP, "max_queued": WIDE_CAP, "queue_timeout_s": PATIENCE_S},
            }
        },
        "pools": {
            "adapters": {"strategy": "multi-lora", "base_models": [BASE], "tenants": [TENANT]},
            "mesh": {
                "strategy": "model-mesh",
                "base_models": list(WHOLE),
                "tenants": [TENANT],
                **FLEETS[name],
            },
        },
        "gateway": {
            "operator_keys": [{"sha256": _sha256(api_key("operator"))}],
            "metrics_access": "loopback",
        },
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(declared))
    return path


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Planned:
    """A request to be sent."""

    at_s: float
    model: str
    words: int
    tokens: int


@dataclass(slots=True)
class Seen:
    """What became of it."""

    planned: Planned
    prompt: int = 0
    tokens: int = 0
    first_s: float | None = None
    total_s: float | None = None


def demand(duration_s: float, seed: int) -> list[Planned]:
    """Poisson arrivals of each model."""
    chance, found = random.Random(seed), []
    for model in NAMES:
        at_s = chance.expovariate(RATES_PER_S[model.partition("-")[0]])
        while at_s < duration_s:
            found.append(Planned(at_s, model, chance.randint(*PROMPT), chance.randint(*TOKENS)))
            at_s += chance.expovariate(RATES_PER_S[model.partition("-")[0]])
    return sorted(found, key=lambda one: one.at_s)


async def send(client: httpx.AsyncClient, planned: Sequence[Planned]) -> list[Seen]:
    """Send every request at its time."""
    begun_s = time.monotonic()

    async def one(what: Planned) -> Seen:
        await asyncio.sleep(max(0.0, begun_s + what.at_s - time.monotonic()))
        return await ask(client, what)

    return list(await asyncio.gather(*map(one, planned)))


async def ask(client: httpx.AsyncClient, what: Planned) -> Seen:
    """Send one request as a stream. Raises `httpx.HTTPError`."""
    chance = random.Random(what.at_s)
    body = {
        "model": what.model,
        "prompt": " ".join(str(chance.randrange(10, 99)) for _ in range(what.words)),
        "max_tokens": what.tokens,
        "min_tokens": what.tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    seen, sent_s = Seen(what), time.monotonic()
    async with client.stream("POST", "/v1/completions", json=body, timeout=PATIENCE_S) as answer:
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"{what.model}: {answer.status_code} {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event.get("choices") and seen.first_s is None:  # a token may have no text of its own
                seen.first_s = time.monotonic() - sent_s
            if usage := event.get("usage"):
                seen.prompt, seen.tokens = usage["prompt_tokens"], usage["completion_tokens"]
    seen.total_s = time.monotonic() - sent_s
    return seen


# -- what it costs -----------------------------------------------------------------------------------------


async def costs_here(client: httpx.AsyncClient, fleet: Fleet) -> list[Measured]:
    """Measure each base model as `tenantry plan calibrate` does; whole models are woken for it."""
    found = []
    for base in (BASE, *WHOLE):
        adapters = list(ADAPTERS) if base == BASE else []
        served = await calibrate(
            client, [base, *adapters], adapters, extent=EXTENT, seed=1, progress=lambda done, of: None
        )
        model = whole_model(fleet.base_models[base])
        fit = fitted(served, dict.fromkeys(adapters, base), least=20)[base]
        found.append(Measured(as_cost(fit, roofline(model, CPU), "here"), model.shape, None))
    return found


@dataclass(frozen=True, slots=True)
class Costs:
    """A file of costs, which is written as soon as they are measured: they hold for the next run, too."""

    path: Path

    def read(self) -> list[Measured]:
        """Read it; empty where it is not there."""
        return read_costs(self.path) if self.path.is_file() else []

    def keep(self, costs: list[Measured]) -> None:
        """Write it."""
        self.path.write_text(written(costs))


async def switches(client: httpx.AsyncClient, cost: ServingCost) -> ServingCost:
    """Add what switches to a model have taken on average, from the order until a request could run."""
    took_s, count = defaultdict[str, float](float), defaultdict[str, float](float)
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            if sample.labels.get("model") != cost.model:
                continue
            if sample.name == SWITCH_TIME.sample:
                took_s[sample.labels["way"]] += sample.value
            elif sample.name == SWITCHES.sample and sample.labels["outcome"] == "awake":
                count[sample.labels["way"]] += sample.value
    figures = {Way(way): Figure(took_s[way] / count[way], Source.MEASURED) for way in count if count[way]}
    return replace(cost, switches={**cost.switches, **figures})


# -- the same, simulated -----------------------------------------------------------------------------------


def simulated(fleet: Fleet, seen: Sequence[Seen], costs: Mapping[str, ServingCost]) -> list[Call]:
    """Run the requests that were sent over simulated engines."""
    shapes = {name: whole_model(model).shape for name, model in fleet.base_models.items()}
    woken = [Planned(100.0 * i - 1000.0, name, 8, 4) for i, name in enumerate(NAMES)]  # before the demand
    before = [Seen(one, 16, 4) for one in woken]
    calls = []
    for one in (*before, *seen):
        name = one.planned.model
        adapter = name if name in fleet.adapters else None
        base = fleet.adapters[name].base_model if adapter else name
        at_s = one.planned.at_s + 1000.0
        calls.append(Call(at_s, TENANT, adapter, one.prompt, one.tokens, base_model=base))
    settings, engine_costs = [], []
    for pool in fleet.pools.values():
        for _, base in pool.replica_models:
            model = fleet.base_models[base]
            kv = int(KV_GIB * 2**30 / max(1, whole_model(model).kv_bytes_per_token))
            settings.append(
                EngineSettings(model.max_loras, max(model.max_loras, model.max_cpu_loras), 256, kv_tokens=kv)
            )
            engine_costs.append(step_costs(costs[base]))

    def switch_s(model: str, went: str | None) -> float:
        same = went is not None and shapes[went] == shapes[model]
        figure = costs[model].switch_s(same_shape=same, in_host_memory=True)
        return figure.value if figure is not None else 60.0

    router = GatewayRouter(fleet, switch_s)
    lanes = len(os.sched_getaffinity(0))
    Driver(settings, engine_costs, router, devices=[0] * len(settings), lanes=lanes).run(calls)
    return calls[len(before) :]


@app.command()
def run(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(FLEETS)}.")],
    costs_file: Annotated[
        Path, typer.Option("--costs", help="Measured, and written, where it is not there.")
    ],
    json_file: Annotated[Path, typer.Option("--json", help="For `report`.")],
    seconds: Annotated[float, typer.Option(help="Of the demand.")] = 60.0,
    seed: int = 1,
) -> None:
    """Serve a fleet, send the demand, and simulate it."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"the service's log is {folder}/service.log")
        make_models(Path(folder))
        path = fleet_file(name, Path(folder))
        fleet = read_fleet(path).fleet
        with start_service(Path(folder), path) as service:
            result = asyncio.run(_run(service.url, fleet, Costs(costs_file), demand(seconds, seed)))
    json_file.write_text(json.dumps({"fleet": name, **result}, indent=1))
    _show([json_file])


async def _run(url: str, fleet: Fleet, known: Costs, planned: Sequence[Planned]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key(TENANT)}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits) as client:
        await _until_ready(client)
        for model in NAMES:  # each has been awake once
            await ask(client, Planned(0.0, model, 8, 4))
        found = known.read() or await costs_here(client, fleet)
        known.keep(found)
        seen = await send(client, planned)
        measured = [Measured(await switches(client, one.cost), one.shape, None) for one in found]
    known.keep(measured)
    costs = {one.cost.model: one.cost for one in measured}
    calls = simulated(fleet, seen, costs)
    return {
        "costs": {
            name: {"base": cost.base_s.value, "prefill": cost.prefill_token_s.value}
            for name, cost in costs.items()
        },
        "switches": {
            name: {str(w): f.value for w, f in cost.switches.items()} for name, cost in costs.items()
        },
        "requests": [
            {
                "model": one.planned.model,
                "at_s": one.planned.at_s,
                "first_s": one.first_s,
                "total_s": one.total_s,
                "tokens": one.tokens,
                "simulated_first_s": None
                if call.ttft_s is None
                else call.ttft_s + costs[call.base_model].request_s.value,
                "simulated_total_s": None if call.finished_s is None else call.finished_s - call.at_s,
            }
            for one, call in zip(seen, calls, strict=True)
        ],
    }


async def _until_ready(client: httpx.AsyncClient) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        try:
            if (await client.get("/readyz")).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.5)
    raise RuntimeError("the service is not ready")


# -- report ------------------------------------------------------------------------------------------------


@app.command()
def report(files: list[Path]) -> None:
    """Show measured against simulated, of one or several fleets."""
    _show(files)


def _show(files: Sequence[Path]) -> None:
    table = Table(
        "fleet",
        "model",
        "requests",
        "p50 s",
        "simulated",
        "off",
        "p99 s",
        "simulated",
        "off",
        "tokens/s",
        "simulated",
    )
    for file in files:
        result = json.loads(file.read_text())
        requests = [one for one in result["requests"] if one["at_s"] >= WARMUP_S]
        groups = {"all": requests}
        for kind in ("adapter", "whole"):
            groups[kind] = [one for one in requests if one["model"].startswith(kind)]
        for group, members in groups.items():
            table.add_row(result["fleet"], group, str(len(members)), *_cells(members))
    Console(width=160).print(table)


def _cells(requests: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = []
    for part in (50, 99):
        values = [_percentile(requests, key, part) for key in ("first_s", "simulated_first_s")]
        cells += [f"{values[0]:.3g}", f"{values[1]:.3g}", f"{values[1] / values[0] - 1:+.0%}"]
    return cells + [f"{_pace(requests, key):.3g}" for key in ("total_s", "simulated_total_s")]


def _percentile(requests: Sequence[Mapping[str, Any]], key: str, part: int) -> float:
    return float(np.percentile([one[key] for one in requests if one[key] is not None], part))


def _pace(requests: Sequence[Mapping[str, Any]], key: str) -> float:
    """Tokens a second from the first arrival to the last end."""
    ended = [one for one in requests if one[key] is not None]
    length_s = max(one["at_s"] + one[key] for one in ended) - min(one["at_s"] for one in requests)
    return float(sum(one["tokens"] for one in ended) / length_s)


if __name__ == "__main__":
    app()
