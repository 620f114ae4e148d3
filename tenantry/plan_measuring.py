"""The command `plan calibrate`: measures what an engine takes, for plans that are to be true here."""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from adapters.errors import AdapterError
from engines.devices.nvml import NoNvml, read_machine
from planning.calibration import Extent, calibrate
from planning.catalogue import BY_KIND, device_of, known
from planning.costs import Measured
from planning.fitting import measured_by
from planning.reading.costs_file import read_costs, written
from planning.reading.models import whole_model
from planning.requests import DemandError
from planning.served import Served
from planning.values import Device, Figure, Kind, Model, ServingCost, Source, Way
from tenantry.client import KEY_VARIABLE, Answer, Gateway, GatewayError, WrongUse
from tenantry.columns import Columns, print_prose
from tenantry.fleets import load
from tenantry.running import URL, AsJson, Url, conclude, print_whole
from tenantry.running import console as errors_console

TENANT_KEY_VARIABLE = "TENANTRY_API_KEY"  # of a tenant; never an argument
CPU = "cpu"
_LONGEST = 1024  # tokens of a prompt
_FEWEST = 40  # requests of a calibration; all are alike, so that few do
# A CPU is in no catalogue; where nothing of it was measured these stand in: two memory channels, AVX-512.
_CPU = Device(CPU, 0, 20e9, 0.5e12, host_link=5e9, source="a guess at two cores")


def calibrate_engine(  # noqa: PLR0913  # an argument for each option, as typer wants it
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[=NAME]", help="Whole model as the key's tenant calls it, and as the fleet does."
        ),
    ],
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="An adapter of it, as the tenant calls it; can be given again."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Kind of device it runs on.", show_default="this machine's")
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="Fleet file, for what the model's files say.", show_default="none")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File of costs; other models in it stay.")
    ] = Path("costs.json"),
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Rounds of the load.")] = 2,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Measure an engine through its gateway by some minutes of load: steps by batch, prompts, adapters.

    TENANTRY_API_KEY holds a tenant's key. With TENANTRY_ADMIN_KEY too, what switches took is noted.
    """
    alias, _, name = model.partition("=")
    whole = _model(fleet, name or alias)

    async def work(on: Device) -> Measured:
        extent = Extent(longest=min(_LONGEST, (whole.max_model_len or _LONGEST) // 2), repeats=repeats)
        served = await _measure(url, [alias, *(adapter or [])], adapter or [], extent, as_json)
        served.model = [name or alias if each == alias else each for each in served.model]
        switches = await _switches(url, name or alias)
        return _measured(served, whole, on, adapter or [], switches)

    def done() -> Answer:
        try:
            known_costs, on = _kept(output), _device(device)  # before minutes of load
            measured = asyncio.run(work(on))
            kept = [one for one in known_costs if not _is_same(one.cost, measured.cost)]
        except DemandError as error:
            raise AdapterError(str(error)) from None
        output.write_text(written([*kept, measured]))
        return {"file": str(output), **asdict(measured.cost)}

    conclude(done, as_json, _show)


async def _measure(url: str, models: list[str], adapters: list[str], extent: Extent, as_json: bool) -> Served:
    key = os.environ.get(TENANT_KEY_VARIABLE)
    if not key:
        raise WrongUse(f"{TENANT_KEY_VARIABLE} is not set: put a tenant's key into it")
    shown = errors_console(stderr=True)

    def progress(done: int, of: int) -> None:
        if not as_json and (done == of or done % 5 == 0):
            shown.print(f"  {done} of {of} loads", style="dim")

    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
        return await calibrate(
            client,
            models,
            adapters,
            extent=extent,
            seed=random.SystemRandom().randrange(2**31),
            progress=progress,
        )


async def _switches(url: str, name: str) -> Mapping[Way, Figure]:
    """Return what switches to a model took, where an operator's key is there and the model takes turns."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return {}
    try:
        async with Gateway(url, key) as gateway:
            answer = await gateway.call("GET", "/models")
    except GatewayError:
        return {}
    return switches_of(answer.get("data", ()), name)


def switches_of(models: Iterable[Mapping[str, Any]], name: str) -> Mapping[Way, Figure]:
    """Return the seconds of each way to a model, the median of its hosts, as the admin API has them."""
    seconds: dict[Way, list[float]] = defaultdict(list)
    for entry in models:
        if entry.get("model") == name:
            for way, took_s in entry.get("took_s", {}).items():
                if way in tuple(Way):
                    seconds[Way(way)].append(float(took_s))
    return {
        way: Figure(median(each), Source.MEASURED, f"of {len(each)} hosts") for way, each in seconds.items()
    }


def _measured(
    served: Served, whole: Model, device: Device, adapters: list[str], switches: Mapping[Way, Figure]
) -> Measured:
    tuned = [replace(whole, name=name, kind=Kind.ADAPTER, base=whole.name) for name in adapters]
    found = measured_by(served, [whole, *tuned], device, "calibration", least=_FEWEST)
    if not found:
        raise DemandError(f"{len(served)} answers were whole, too few to fit costs to")
    cost = replace(found[0].cost, switches={**found[0].cost.switches, **switches})
    return Measured(cost, whole.shape, known(device.kind) and device)


def _model(fleet: Path | None, name: str) -> Model:
    """Return the whole model that is meant, with what its files say where a fleet is named."""
    if fleet is None:
        return Model(name, Kind.WHOLE, "", "", "", weight_bytes=0)
    bases = load(fleet).fleet.base_models
    if name not in bases:
        raise typer.BadParameter(f"{name!a} is no base model of {fleet}; there are {', '.join(bases)}")
    try:
        return whole_model(bases[name])
    except AdapterError as error:
        raise typer.BadParameter(f"{name}: {error}") from None


def _device(kind: str | None) -> Device:
    if kind == CPU:
        return _CPU
    if kind is not None:
        device = known(kind)
        if device is None:
            raise DemandError(f"{kind!a} is no device that is known; there are {', '.join((*BY_KIND, CPU))}")
        return device
    try:
        found = [device_of(gpu) for gpu in read_machine().gpus if not gpu.fault]
    except NoNvml:
        return _CPU
    if not found or found[0] is None:
        raise DemandError("this machine's GPU is not in the catalogue: name its kind with --device")
    return found[0]


def _kept(output: Path) -> list[Measured]:
    return read_costs(output) if output.is_file() else []


def _is_same(one: ServingCost, other: ServingCost) -> bool:
    return (one.model, one.device) == (other.model, other.device)


def _show(console: Console, answer: Answer) -> None:
    print_prose(console, f"{answer['model']} on {answer['device']}, written to {answer['file']}")
    table = Columns("figure", "seconds", "source", "how", prose=("how",), right=("seconds",))
    for name, value in answer.items():
        figures = {name: value} if isinstance(value, dict) and "value" in value else {}
        if name == "switches":
            figures = {f"switch: {way}": figure for way, figure in value.items()}
        for shown, figure in figures.items():
            table.add(shown, f"{figure['value']:.6f}", figure["source"], figure["detail"])
    print_whole(console, table)
