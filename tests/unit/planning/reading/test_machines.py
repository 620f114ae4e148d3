"""Machines: of a file, by a kind's name, of this machine's driver; and what is wrong with such files."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.devices.layout import Gpu
from engines.devices.layout import Machine as Found
from engines.devices.nvml import NoNvml
from planning.reading import machines
from planning.reading.machines import read_machines
from planning.requests import DemandError
from planning.values import Machine

GIB = 2**30
H200 = Gpu(0, "GPU-1", "NVIDIA H200", 140 * GIB, False)


def read(tmp_path: Path, text: str) -> list[Machine]:
    path = tmp_path / "machines.yaml"
    path.write_text(text)
    return read_machines(str(path))


def test_a_file_names_devices_how_many_and_prices(tmp_path: Path) -> None:
    first, second = read(
        tmp_path,
        "machines:\n"
        "- {device: a100-80gb, devices: 8, count: 2, host_memory_gib: 1000, price_per_hour: 1.5}\n"
        "- {name: mine, device: rtx, devices: 1, count: any, memory_gib: 24, bandwidth_gb_s: 1008,"
        " tflops: 165}\n",
    )
    assert (first.device.kind, first.devices, first.count, first.host_memory_bytes) == (
        "a100-80gb",
        8,
        2,
        1000 * GIB,
    )
    assert first.device.price_per_hour == 1.5
    assert (second.name, second.count, second.device.memory_bytes) == ("mine", None, 24 * GIB)
    assert second.device.bandwidth == pytest.approx(1.008e12)


def test_a_kinds_name_is_as_many_as_needed() -> None:
    (found,) = read_machines("h100-80gb")
    assert (found.device.kind, found.count) == ("h100-80gb", None)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it is empty"),
        ("machines: {}", "must have `machines`"),
        ("machines: [5]", "must have `machines`"),
        ("machines: [{device: h100", "line 1: not YAML"),
        (
            "machines:\n- {device: l4, devices: 1}\n- {device: l4, devices: 1, devices: 2}",
            "line 3: `machines.1..devices`: again on line 3",
        ),
        ("machines:\n- {device: l4, devices: 1}\n- {device: l4}", "line 3: `devices` is 'None'"),
        ("machines: [{devices: 1}]", "line 1: device '' is not in the catalogue"),
        ("machines: [{device: rtx, devices: 1}]", "one of your own needs a name, memory_gib"),
        ("machines: [{device: h200}]", "`devices` is 'None'"),
        ("machines: [{device: h200, devices: 0}]", "`devices` is '0'; it is a whole number from 1"),
        ("machines: [{device: h200, devices: 1.5}]", "a whole number"),
        ("machines: [{device: h200, devices: 1, price_per_hour: -1}]", "`price_per_hour` is '-1'"),
        ("machines: [{device: h200, devices: 1, colour: red}]", "'colour' is unknown"),
        ("machines: [{device: h200, devices: 1, memory_gib: .nan}]", "`memory_gib` is 'nan'"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_machine(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(DemandError, match=what):
        read(tmp_path, text)


def test_what_is_no_file_names_the_kinds() -> None:
    with pytest.raises(DemandError, match="No such file or directory; a device's name is one of a100-40gb"):
        read_machines("h300")


def test_this_machine_has_what_its_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Gpu(2, "", "", fault="lost")
    monkeypatch.setattr(machines, "read_machine", lambda: Found((H200, H200, lost), "580"))
    (found,) = read_machines(None)
    assert (found.device.kind, found.device.memory_bytes, found.devices) == ("h200", 140 * GIB, 2)
    assert found.host_memory_bytes > GIB


@pytest.mark.parametrize(
    ("gpus", "what"),
    [
        ((), "has no GPU"),
        ((H200, Gpu(1, "GPU-2", "NVIDIA L4", 22 * GIB)), "GPUs of several kinds .NVIDIA H200, NVIDIA L4"),
        ((Gpu(0, "GPU-1", "Tesla T4", 15 * GIB),), "Tesla T4 is not in the catalogue"),
    ],
)
def test_a_machine_that_cannot_be_planned_for_says_why(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[Gpu, ...], what: str
) -> None:
    monkeypatch.setattr(machines, "read_machine", lambda: Found(gpus, "580"))
    with pytest.raises(DemandError, match=what):
        read_machines(None)


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> Found:
        raise NoNvml("the NVIDIA driver is not loaded")

    monkeypatch.setattr(machines, "read_machine", read)
    with pytest.raises(DemandError, match="not loaded; name the devices to plan for: a file, or one of a100"):
        read_machines(None)
