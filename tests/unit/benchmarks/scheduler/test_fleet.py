"""What is served is a valid fleet, in which nothing is refused for its caps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from benchmarks.fleet import POOL, api_key
from benchmarks.scheduler.fleet import Objectives, Shape, fleet
from fleet.schema import FleetFile

SHAPE = Shape(adapters=10, tenants=4)


def written() -> FleetFile:
    content = fleet(Path("/f"), SHAPE, Objectives(1.0, 0.05))
    return FleetFile.model_validate(json.loads(json.dumps(content)))


def test_the_fleet_is_valid_and_has_one_pool_of_two_engines() -> None:
    file = written()
    assert file.pools[POOL].replicas == 2
    assert len(file.adapters) == 10
    assert SHAPE.replica_names() == ["shared-0", "shared-1"]


def test_every_adapter_belongs_to_one_tenant() -> None:
    owned = [name for tenant in written().tenants.values() for name in tenant.models]
    assert sorted(owned) == sorted(written().adapters)


def test_keys_are_those_that_are_asked_with() -> None:
    assert (
        written().tenants["tenant-2"].api_keys[0].sha256
        == hashlib.sha256(api_key("tenant-2").encode()).hexdigest()
    )


def test_pace_is_an_objective_and_no_request_is_shed() -> None:
    slo = written().pools[POOL].slo
    assert (slo.itl_s, slo.ttft_s) == (0.05, None)
