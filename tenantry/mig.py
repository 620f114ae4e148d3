"""The commands `mig ...`: plan how GPUs are divided into slices. They change no GPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from adapters.errors import AdapterError
from engines.devices.layout import Gpu
from engines.devices.nvml import NoNvml, read_machine
from engines.devices.packing import Layout, NoRoomError, Placed, Room, Wanted, pack
from engines.devices.profiles import BY_NAME, known_profiles, profiles_of
from fleet.mig import PROFILE_PATTERN
from fleet.types import Fleet
from tenantry.client import Answer, WrongUse
from tenantry.columns import print_prose
from tenantry.fleets import load
from tenantry.running import AsJson, conclude, printable

app = typer.Typer(no_args_is_help=True, help="Plan how GPUs are divided into MIG slices; changes no GPU.")

MAX_GPUS = 16  # of one machine
MAX_SLICES = 7 * MAX_GPUS
_CONFIG = "tenantry"  # name of the configuration in mig-parted's file
_MODELS = ", ".join(BY_NAME)


class _NoPlanError(AdapterError):
    """No plan can be made; says why in one sentence."""


@app.callback()
def mig() -> None:
    """Plan how GPUs are divided into MIG slices; changes no GPU."""


@app.command()
def plan(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROFILE=COUNT]...", help="Slices on any GPU, such as 1g.20gb=3.", show_default="none"
        ),
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option("--fleet", help="Fleet file: the slices its pools ask for.", show_default="none"),
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="One pool of it.", show_default="all its mig pools")
    ] = None,
    gpu: Annotated[
        list[int] | None,
        typer.Option("--gpu", min=0, help="Use this GPU; can be given again.", show_default="all"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help=f"Plan for GPUs of a model: {_MODELS}.", show_default="this machine's GPUs"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a legal layout for wanted slices: nvidia-smi's lines and mig-parted's YAML. Applies nothing."""
    declared = None if fleet is None else load(fleet).fleet

    def work() -> Answer:
        slices = [*map(_wanted, wanted or []), *_of_pools(declared, pool)]
        if not slices:
            raise WrongUse("no slices are wanted: name some as 1g.20gb=3, or a fleet file with --fleet")
        if sum(want.count for want in slices) > MAX_SLICES:
            raise _NoPlanError(f"more than {MAX_SLICES} slices are wanted: plan for one machine at a time")
        gpus = _gpus(model, gpu, slices)
        rooms = [Room(one.index, known_profiles(one)) for one in gpus]
        try:
            layouts = pack(rooms, slices)
        except NoRoomError as error:
            raise _NoPlanError(str(error)) from None
        return _answer(layouts, {one.index: one for one in gpus})

    conclude(work, as_json, _show)


def _wanted(text: str) -> Wanted:
    """Read `1g.20gb=3`. Raises `WrongUse`."""
    profile, _, count = text.partition("=")
    if not re.fullmatch(PROFILE_PATTERN, profile) or not re.fullmatch(r"[1-9][0-9]{0,2}", count or "1"):
        raise WrongUse(f"{text!r} is not PROFILE=COUNT; write it like 1g.20gb=3")
    return Wanted(profile, int(count or 1))


def _of_pools(fleet: Fleet | None, only: str | None) -> list[Wanted]:
    """What pools ask for by GPU and profile. Raises `WrongUse` and `_NoPlanError`."""
    if fleet is None:
        if only is not None:
            raise WrongUse("--pool is a pool of a fleet file: name that with --fleet")
        return []
    if only is not None and only not in fleet.pools:
        raise WrongUse(f"no pool is called {only!r}; there are {', '.join(fleet.pools)}")
    found = [pool.mig for pool in fleet.pools.values() if only in (None, pool.name) and pool.mig is not None]
    if not found:
        raise _NoPlanError("no such pool asks for slices by GPU and profile (`mig: {gpu, profile, count}`)")
    try:
        return [Wanted(mig.profile, mig.count, int(mig.gpu)) for mig in found]
    except ValueError:
        raise _NoPlanError("a pool names its GPU by UUID: name it by its index to plan for it") from None


def _gpus(model: str | None, chosen: Sequence[int] | None, wanted: Sequence[Wanted]) -> list[Gpu]:
    """Return the GPUs to plan for: this machine's, or some of a model. Raises `WrongUse`, `_NoPlanError`."""
    if model is None:
        gpus = _found(chosen)
    elif model in BY_NAME:
        indexes = chosen or sorted({want.gpu for want in wanted if want.gpu is not None}) or [0]
        profiles = profiles_of(BY_NAME[model])
        gpus = [Gpu(index, "", model, profiles=profiles) for index in dict.fromkeys(indexes)]
    else:
        raise WrongUse(f"no model is called {model!r}; there are {_MODELS}")
    if len(gpus) > MAX_GPUS:
        raise _NoPlanError(f"more than {MAX_GPUS} GPUs: plan for one machine at a time")
    return gpus


def _found(chosen: Sequence[int] | None) -> list[Gpu]:
    try:
        gpus = [gpu for gpu in read_machine().gpus if not chosen or gpu.index in chosen]
    except NoNvml as error:
        raise _NoPlanError(f"{error}; name the GPUs' model with --model") from None
    if not any(map(known_profiles, gpus)):
        raise _NoPlanError("no GPU here has known MIG profiles; name their model with --model")
    return gpus


def _answer(layouts: Sequence[Layout], gpus: dict[int, Gpu]) -> Answer:
    return {
        "gpus": [_layout(layout, gpus[layout.room.gpu]) for layout in layouts],
        "commands": [line for layout in layouts for line in _commands(layout)],
        "mig_parted": yaml.safe_dump(_mig_parted(layouts), sort_keys=False),
    }


def _layout(layout: Layout, gpu: Gpu) -> Answer:
    memory, compute = layout.wasted()
    return {
        "gpu": layout.room.gpu,
        "name": gpu.name,
        "slices": [_placed(placed) for placed in layout.slices],
        "room_left": [_placed(placed) for placed in layout.room_left()],
        "wasted_memory_slices": list(memory),
        "wasted_compute_slices": compute,
        "now": [one.profile for one in gpu.slices],
    }


def _placed(placed: Placed) -> Answer:
    return {"profile": placed.profile.name, "start": placed.start, "size": placed.profile.size}


def _commands(layout: Layout) -> list[str]:
    """nvidia-smi's lines for one GPU; each slice with its place, since other places could be in the way."""
    index = layout.room.gpu
    slices = ",".join(f"{placed.profile.name}:{placed.start}" for placed in layout.slices)
    return [f"nvidia-smi -i {index} -mig 1", f"nvidia-smi mig -i {index} -cgi {slices} -C"]


def _mig_parted(layouts: Sequence[Layout]) -> Answer:
    configs = [
        {
            "devices": [layout.room.gpu],
            "mig-enabled": True,
            "mig-devices": dict(Counter(placed.profile.name for placed in layout.slices)),
        }
        for layout in layouts
    ]
    return {"version": "v1", "mig-configs": {_CONFIG: configs}}


def _show(console: Console, answer: Answer) -> None:
    for gpu in answer["gpus"]:
        placed = ", ".join(f"{one['profile']} at {one['start']}" for one in gpu["slices"])
        print_prose(console, f"GPU {gpu['gpu']} ({gpu['name']}): {placed}")
        left = Counter(one["profile"] for one in gpu["room_left"])
        if left:
            room = ", ".join(f"{count} x {name}" for name, count in left.items())
            print_prose(console, f"  room left for {room}")
        print_prose(console, f"  wasted: {_wasted(gpu)}")
        if gpu["now"]:
            now = ", ".join(f"{count} x {name}" for name, count in Counter(gpu["now"]).items())
            print_prose(
                console,
                f"  it has slices now ({now}), which go first: nvidia-smi mig -i {gpu['gpu']} -dci, "
                f"then nvidia-smi mig -i {gpu['gpu']} -dgi",
                "yellow",
            )
    print_prose(console, "nothing was changed; as root, with no process on these GPUs:")
    for line in answer["commands"]:
        console.print(printable(line), soft_wrap=True)
    print_prose(console, "or with mig-parted, which chooses the places itself:")
    console.print(answer["mig_parted"].rstrip(), soft_wrap=True)


def _wasted(gpu: Answer) -> str:
    memory, compute = gpu["wasted_memory_slices"], gpu["wasted_compute_slices"]
    parts = []
    if memory:
        parts.append(f"memory slice{'' if len(memory) == 1 else 's'} {', '.join(map(str, memory))}")
    if compute:
        parts.append(f"{compute} compute slice{'' if compute == 1 else 's'}")
    return " and ".join(parts) or "nothing"
