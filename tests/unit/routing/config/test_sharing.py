"""Which tenants can meet in one engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from routing.config import read_fleet
from routing.config.sharing import Company, pools_of, who_shares
from tests.fakes import small_fleet
from tests.unit.routing.config.files import changed, write


def test_each_replica_is_listed_with_its_tenants_and_device() -> None:
    fleet = small_fleet(replicas=2)
    shared = replace(fleet.pools["shared"], devices=("0", "1"))
    fleet = replace(fleet, pools={**fleet.pools, "shared": shared})
    assert who_shares(fleet) == [
        Company("shared", "shared-0", "base", "0", ("a", "b")),
        Company("shared", "shared-1", "base", "1", ("a", "b")),
        Company("alone", "alone-0", "base", None, ("c",)),
    ]


def test_a_tenant_meets_nobody_on_a_base_model_it_does_not_use(tmp_path: Path) -> None:
    data = changed(
        "pools/whole/base_models", ["plain", "other"], changed("base_models/other", {"source": "org/other"})
    )
    data["pools"]["whole"]["tenants"] = ["alpha", "beta"]
    data["tenants"]["beta"]["models"]["raw"] = "other"
    fleet = read_fleet(write(tmp_path, data)).fleet
    assert [(c.replica, c.tenants) for c in who_shares(fleet) if c.pool == "whole"] == [
        ("whole-0", ("alpha",)),
        ("whole-1", ("beta",)),
    ]
    assert pools_of(fleet, fleet.tenants["beta"]) == ["shared", "whole"]
