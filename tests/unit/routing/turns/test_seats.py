"""What is a model's state at a host, by what its host says of it?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from engines.health import EngineHealth, EngineState, Place
from routing.scheduling.state import Replica
from routing.turns.report import ModelState
from routing.turns.seats import Seat


def seat(told: EngineHealth | None) -> Seat:
    engine = SimpleNamespace(declared=None, base_model="even", told=told, ready=False)
    return Seat(cast(Replica, SimpleNamespace(engine=engine, asleep=True)))


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (None, ModelState.UNKNOWN),
        (EngineHealth(EngineState.STOPPED), ModelState.ON_DISK),
        (EngineHealth(EngineState.STOPPED, place=Place()), ModelState.ON_DISK),
        (EngineHealth(EngineState.STOPPED, place=Place(asleep=2)), ModelState.ASLEEP),
    ],
)
def test_one_that_is_not_awake_is_on_disk_or_asleep_as_its_host_says(
    told: EngineHealth | None, state: ModelState
) -> None:
    assert seat(told).state(coming=None) is state
    assert seat(told).state(coming="even") is ModelState.WAKING
