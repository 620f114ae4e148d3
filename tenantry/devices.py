"""The command `devices`: this machine's GPUs and MIG slices, and which replicas of a fleet are on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engines.devices.layout import Gpu, Machine, SliceError
from engines.devices.nvml import NoNvml, read_machine
from fleet.types import Fleet, Host
from tenantry.client import Answer
from tenantry.columns import Columns, print_prose
from tenantry.fleets import load
from tenantry.running import AsJson, conclude, print_whole

DEFAULT_FLEET = Path("fleet.yaml")
_FACTS = ("index", "uuid", "name", "memory_bytes", "mig", "fault")


def devices(
    fleet: Annotated[
        Path | None, typer.Argument(help="Fleet file.", show_default="fleet.yaml, where there is one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show this machine's GPUs and MIG slices, and which replicas of a fleet file are on them."""
    path = fleet or (DEFAULT_FLEET if DEFAULT_FLEET.is_file() else None)
    declared = None if path is None else load(path).fleet
    conclude(lambda: report(declared), as_json, _show)


def report(fleet: Fleet | None) -> Answer:
    """Return what this machine has, who is on it, and which of the fleet's devices are not here."""
    try:
        machine = read_machine()
    except NoNvml as error:
        pinned = [
            {"replica": replica, "why": f"{host.place} is not there"}
            for pool in (fleet.pools.values() if fleet is not None else ())
            for host in pool.hosts
            for replica, _ in host.replicas
            if host.place is not None
        ]
        return {"state": str(error), "driver": None, "gpus": [], "not_here": pinned}
    on, not_here = _placed(machine, fleet)
    return {
        "state": _state(machine),
        "driver": machine.driver,
        "gpus": [_gpu(gpu, on) for gpu in machine.gpus],
        "not_here": [{"replica": name, "why": why} for name, why in not_here.items()],
    }


def _state(machine: Machine) -> str:
    """Say in a sentence what kind of machine this is."""
    if not machine.gpus:
        return "the driver finds no GPU"
    divided = [gpu for gpu in machine.gpus if gpu.mig]
    count = sum(len(gpu.slices) for gpu in divided)
    gpus = f"{len(machine.gpus)} GPU{'' if len(machine.gpus) == 1 else 's'}"
    if not divided:
        can = any(gpu.mig is not None for gpu in machine.gpus)
        return f"{gpus}, {'MIG is off' if can else 'none can be divided'}"
    return f"{gpus}, {len(divided)} divided into {count} slice{'' if count == 1 else 's'}"


def _gpu(gpu: Gpu, on: Mapping[str, list[str]]) -> Answer:
    facts = asdict(gpu)
    slices = [asdict(one) | {"replicas": on.get(one.uuid, [])} for one in gpu.slices]
    return {key: facts[key] for key in _FACTS} | {"slices": slices, "replicas": on.get(gpu.uuid, [])}


def _placed(machine: Machine, fleet: Fleet | None) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Map each device's UUID to the replicas on it, and each replica without its device to the reason."""
    on: dict[str, list[str]] = {}
    not_here: dict[str, str] = {}
    for pool in fleet.pools.values() if fleet is not None else ():
        for host in pool.hosts:
            found, why = _devices_of(machine, host)
            for replica, _ in host.replicas:
                for uuid in found:
                    on.setdefault(uuid, []).append(replica)
                if why:
                    not_here[replica] = why
    return on, not_here


def _devices_of(machine: Machine, host: Host) -> tuple[list[str], str]:
    """Return the UUIDs of a host's devices, and why one of them is not here."""
    if host.on_slice is not None:
        try:
            return [machine.find(host.on_slice)[1].uuid], ""
        except SliceError as error:
            return [], str(error)
    names = host.device.split(",") if host.device is not None else []
    missing = ", ".join(name for name in names if not _uuid_of(machine, name))
    found = [uuid for name in names if (uuid := _uuid_of(machine, name))]
    return found, f"this machine has no device {missing}" if missing else ""


def _uuid_of(machine: Machine, device: str) -> str | None:
    """Return the UUID of a device that a fleet file names as CUDA_VISIBLE_DEVICES does."""
    for gpu in machine.gpus:
        if gpu.is_called(device) and not gpu.fault:
            return gpu.uuid
    return next((one.uuid for gpu in machine.gpus for one in gpu.slices if one.uuid == device), None)


def _show(console: Console, answer: Answer) -> None:
    driver = f" (driver {answer['driver']})" if answer["driver"] else ""
    print_prose(console, f"{answer['state']}{driver}")
    table = Columns(
        *("GPU", "device", "what", "memory", "replicas"),
        spare=("memory",),
        prose=("what", "replicas"),
        note="--json has all",
    )
    for gpu in answer["gpus"]:
        table.add(gpu["index"], *_row(gpu, _what(gpu)), style="red" if gpu["fault"] else None)
        for one in gpu["slices"]:
            table.add("", *_row(one, f"slice {one['profile']}"))
    if table.row_count:
        print_whole(console, table)
    for missing in answer["not_here"]:
        print_prose(console, f"{missing['replica']}: {missing['why']}", "yellow")


def _row(device: Answer, what: str) -> Iterable[str]:
    memory = f"{device['memory_bytes'] / 2**30:.2f} GiB" if device["memory_bytes"] else ""
    return device["uuid"], what, memory, ", ".join(device["replicas"])


def _what(gpu: Answer) -> str:
    if gpu["fault"]:
        return f"does not answer: {gpu['fault']}"
    state = {True: "divided", False: "whole, MIG is off", None: "whole"}[gpu["mig"]]
    return f"{gpu['name']}, {state}"
