"""Reads the machines to plan for: from a file, from the driver of this one, or a kind by name."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.devices.layout import Gpu
from engines.devices.nvml import NoNvml, read_machine
from planning.catalogue import BY_KIND, device_of, known
from planning.reading.yaml_file import read_yaml
from planning.requests import DemandError
from planning.values import Device, Machine

MAX_DEVICES = 10_000
_GIB = 2**30
_FIELDS = frozenset(
    {
        "name",
        "device",
        "devices",
        "count",
        "host_memory_gib",
        "price_per_hour",
        "memory_gib",
        "bandwidth_gb_s",
    }
    | {"tflops", "host_link_gb_s"}
)
_OWN = ("memory_gib", "bandwidth_gb_s", "tflops")


def read_machines(where: str | None) -> list[Machine]:
    """Return the machines of a file, as many devices as needed of a kind, or without `where` this machine.

    Raises `DemandError`.
    """
    if where is None:
        return [_this_machine()]
    if device := known(where):
        return [Machine(device.kind, device, 8, 8 * 128 * _GIB, count=None)]
    path = Path(where)
    try:
        document = read_yaml(path)
    except OSError as error:
        kinds = ", ".join(BY_KIND)
        raise DemandError(f"{where}: {error.strerror or error}; a device's name is one of {kinds}") from None
    except DemandError as error:
        raise DemandError(f"{where}: {error}") from None
    told = document.data
    entries = told.get("machines") if isinstance(told, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DemandError(
            f"{where}: it must have `machines`, a list of them, each with `device` and `devices`"
        )
    lines = (document.lines["machines", index] for index in range(len(entries)))
    return [_machine(f"{where}, line {line}", entry) for line, entry in zip(lines, entries, strict=True)]


def _machine(where: str, entry: Mapping[str, Any]) -> Machine:
    unknown = sorted(set(map(str, entry)) - _FIELDS)
    if unknown:
        raise DemandError(f"{where}: {unknown[0]!a} is unknown; there are {', '.join(sorted(_FIELDS))}")
    device = _device(where, entry)
    devices = _number(where, entry, "devices", 1, MAX_DEVICES, whole=True)
    memory_gib = _number(where, entry, "host_memory_gib", 0, 1e6, default=128.0 * devices)
    count = (
        None if entry.get("count") == "any" else int(_number(where, entry, "count", 1, 1e5, 1, whole=True))
    )
    name = str(entry.get("name") or device.kind)
    return Machine(name, device, int(devices), int(memory_gib * _GIB), count)


def _device(where: str, entry: Mapping[str, Any]) -> Device:
    kind = str(entry.get("device") or "")
    device = known(kind)
    if device is None:
        missing = [name for name in _OWN if name not in entry]
        if not kind or missing:
            raise DemandError(
                f"{where}: device {kind!a} is not in the catalogue ({', '.join(BY_KIND)}); one of your own "
                f"needs {', '.join(('a name', *_OWN))}"
            )
        device = Device(kind, 0, 0.0, 0.0, source="the file of machines")
    for field, name, unit in (
        ("memory_bytes", "memory_gib", _GIB),
        ("bandwidth", "bandwidth_gb_s", 1e9),
        ("flops", "tflops", 1e12),
        ("host_link", "host_link_gb_s", 1e9),
    ):
        if name in entry:
            value = _number(where, entry, name, 1e-3, 1e6) * unit
            figures: dict[str, Any] = {field: int(value) if field == "memory_bytes" else value}
            device = replace(device, **figures)
    if entry.get("price_per_hour") is not None:
        price = _number(where, entry, "price_per_hour", 0, 1e6)
        device = replace(device, price_per_hour=price)
    return device


def _number(
    where: str,
    entry: Mapping[str, Any],
    name: str,
    least: float,
    most: float,
    default: float | None = None,
    *,
    whole: bool = False,
) -> float:
    value = entry.get(name, default)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not least <= value <= most or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise DemandError(
            f"{where}: `{name}` is {str(value)[:40]!a}; it is {kind} from {least:g} to {most:g}"
        )
    return float(value)


def _this_machine() -> Machine:
    try:
        gpus = [gpu for gpu in read_machine().gpus if not gpu.fault]
    except NoNvml as error:
        raise DemandError(
            f"{error}; name the devices to plan for: a file, or one of {', '.join(BY_KIND)}"
        ) from None
    if not gpus:
        raise DemandError(f"this machine has no GPU; name a file of machines, or one of {', '.join(BY_KIND)}")
    (name, count), *others = Counter(gpu.name for gpu in gpus).most_common()
    if others:
        raise DemandError(
            f"this machine has GPUs of several kinds ({', '.join(sorted({gpu.name for gpu in gpus}))}): "
            "name them in a file of machines"
        )
    return Machine("this machine", _known(gpus[0], name), count, _host_memory())


def _known(gpu: Gpu, name: str) -> Device:
    device = device_of(gpu)
    if device is None:
        raise DemandError(f"{name} is not in the catalogue: describe it in a file of machines")
    return device


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
