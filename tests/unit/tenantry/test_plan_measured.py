"""A plan is made with what this machine's engines are known to take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.devices.layout import Gpu
from engines.devices.layout import Machine as Driver
from engines.devices.nvml import NoNvml
from planning.reading import machines
from planning.reading.sources import Found
from planning.served import Came, Served
from planning.values import Demand, Figure, Kind, Model, Source, Way
from tenantry.plan_making import measured_here
from tests.unit.planning.test_fitting import BASE, served

MODELS = [
    Model("base", Kind.WHOLE, "", "", "shape", 10**9, parameters=5 * 10**8),
    *(Model(f"a{number}", Kind.ADAPTER, "base", "", "shape", 10**6) for number in range(6)),
]


def found(requests: Served | None) -> Found:
    return Found(Demand("the ledger", None, 3600.0, ()), requests)


def test_what_this_machines_gpu_served_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "GPU-1", "NVIDIA L4", 22 * 2**30)
    monkeypatch.setattr(machines, "read_machine", lambda: Driver((gpu,), "580"))
    (one,), switched = measured_here(found(served(3.0)), MODELS)
    assert switched == []
    assert (one.cost.model, one.cost.device) == ("base", "l4")
    assert one.cost.base_s.value == pytest.approx(BASE, rel=0.15)
    assert one.cost.base_s.detail.startswith("the ledger, ")
    assert measured_here(found(None), MODELS) == ([], [])


def test_how_its_models_came_is_measured_by_way(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "GPU-1", "NVIDIA L4", 22 * 2**30)
    monkeypatch.setattr(machines, "read_machine", lambda: Driver((gpu,), "580"))
    came = (Came("base", "fork", 8.0), Came("base", "fork", 10.0), Came("gone", "fork", 1.0))
    _, (one,) = measured_here(replace(found(served(3.0)), came=came), MODELS)
    assert (one.model, one.shape, one.device) == ("base", "shape", "l4")
    assert one.ways == {Way.FORK: Figure(9.0, Source.MEASURED, "the ledger, after 2 other models")}


def test_without_a_gpu_that_is_known_nobody_knows_what_served_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> Driver:
        raise NoNvml("the NVIDIA driver is not loaded")

    monkeypatch.setattr(machines, "read_machine", read)
    assert measured_here(found(served(3.0)), MODELS) == ([], [])
