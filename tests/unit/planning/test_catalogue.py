"""Devices: the catalogue, what a driver's GPU is, and slices."""

from __future__ import annotations

import pytest

from engines.devices.layout import Gpu
from planning.catalogue import DEVICES, device_of, known

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "gib", "kind"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.5, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-80gb"),
        ("NVIDIA H200", 139.8, "h200"),
        ("NVIDIA B200", 178.4, "b200"),
        ("NVIDIA L4", 22.0, "l4"),
        ("NVIDIA L40S", 44.4, "l40s"),
        ("NVIDIA A10G", 22.0, "a10g"),
    ],
)
def test_a_gpu_of_a_machine_is_found_with_the_memory_that_its_driver_tells(
    name: str, gib: float, kind: str
) -> None:
    found = device_of(Gpu(0, "GPU-1", name, int(gib * GIB)))
    assert found is not None
    assert (found.kind, found.memory_bytes) == (kind, int(gib * GIB))


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090", "NVIDIA L40", "Tesla T4", ""])
def test_another_gpu_is_not_taken_for_one(name: str) -> None:
    assert device_of(Gpu(0, "GPU-1", name, 24 * GIB)) is None


def test_a_slice_has_its_part_of_a_gpu() -> None:
    whole, third = known("h200"), known("H200/3g.71gb")
    assert whole is not None
    assert third is not None
    assert third.bandwidth == whole.bandwidth / 2
    assert third.flops == pytest.approx(whole.flops * 3 / 7)
    assert third.memory_bytes < 69.5 * GIB
    assert third.profiles == ()
    assert known("h200/9g.1gb") is None
    assert known("l4/1g.5gb") is None
    assert known("nothing") is None


def test_every_device_names_its_source_and_no_price() -> None:
    for device in DEVICES:
        assert "data sheet" in device.source
        assert device.price_per_hour is None
        assert device.memory_bytes > 20 * GIB
