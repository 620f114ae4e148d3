"""What a fleet says of its models: who asks, with which objective, apart from whom; and how it is today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet import read_fleet
from fleet.types import Fleet, Isolation
from planning.fleets import added_models, model_name, today, wishes, with_added, with_wishes
from planning.measuring import measured, usual_spread
from planning.requests import Requests, sifted
from planning.served import Added
from planning.values import HOUR_S, Demand, ModelDemand
from tests.unit.fleet.files import changed, write
from tests.unit.planning.plans import whole


def fleet(tmp_path: Path, **changes: Any) -> Fleet:
    data = changed("pools/shared/slo", {"ttft_s": 2.0})
    data["pools"]["shared"]["replicas"] = 2
    return read_fleet(write(tmp_path, data), keys_needed=False, files=False).fleet


def asked(*models: str) -> Demand:
    found = Requests()
    for number, model in enumerate(models):
        found.add(number * 60.0, model, 10, 5, tenant="alpha")
    return measured(sifted(found), "test")


def test_a_record_names_the_model_that_answered(tmp_path: Path) -> None:
    known = fleet(tmp_path)
    assert model_name(known, "alpha", "support", "a-support") == "a-support"
    assert model_name(known, "alpha", "tone", "tone-lora") == "alpha/tone-lora"  # added at run time
    assert model_name(known, "alpha#1", "raw", "") == "plain"
    assert model_name(known, "alpha", "gone", "") == "alpha/gone"
    assert model_name(known, "gone", "base", "") == "base"
    assert model_name(known, "", "whatever", "") == "whatever"


def test_a_model_is_wished_for_as_its_tenants_and_pools_say(tmp_path: Path) -> None:
    told = wishes(fleet(tmp_path))
    assert told["a-support"].tenants == ("alpha",)
    assert told["a-support"].ttft_s == 2.0
    assert told["c-support"].isolation is Isolation.DEDICATED
    assert told["c-support"].ttft_s is None
    assert told["plain"].isolation is Isolation.SHARED


def test_adapters_that_were_added_at_run_time_are_planned_as_their_tenant_wishes(tmp_path: Path) -> None:
    known = fleet(tmp_path)
    base = whole("base")
    asks = asked("alpha/tone", "alpha/all", "alpha/gone", "alpha/lost")
    added = [
        *(Added("alpha", "tone", "base", 8, 100), Added("", "all", "base", None, 50)),
        *(Added("beta", "gone", "base", 8, 1), Added("alpha", "lost", "elsewhere", 8, 1)),
    ]
    models = added_models(asks, added, {"base": base})
    assert [(m.name, m.base, m.rank, m.weight_bytes) for m in models] == [
        ("alpha/all", "base", 16, 50),
        ("alpha/tone", "base", 8, 100),
    ]
    joined = with_added(asks, known, models)
    assert {one.model: one.ttft_s for one in joined.models} == {
        "alpha/tone": 2.0,
        "alpha/all": 2.0,
        "alpha/gone": None,
        "alpha/lost": None,
    }
    apart = replace(asks, models=tuple(replace(one, tenants=("gamma",)) for one in asks.models))
    isolation = {one.model: one.isolation for one in with_added(apart, known, models).models}
    assert isolation["alpha/tone"] is Isolation.DEDICATED
    assert isolation["alpha/gone"] is Isolation.SHARED


def test_a_demand_is_joined_with_the_fleet_and_knows_who_is_silent(tmp_path: Path) -> None:
    joined = with_wishes(asked("a-support", "alpha/tone"), fleet(tmp_path))
    names = [one.model for one in joined.models]
    assert names == sorted({"a-support", "b-support", "c-support", "plain", "alpha/tone"})
    asked_for, silent = joined.of("a-support"), joined.of("c-support")
    assert asked_for is not None
    assert silent is not None
    assert (asked_for.ttft_s, asked_for.tenants) == (2.0, ("alpha",))
    assert (silent.requests, silent.isolation) == (0.0, Isolation.DEDICATED)
    assert len(silent.hourly) == joined.hours
    assert "Nobody asked for b-support, c-support, plain." in joined.notes
    assert "The fleet file does not know alpha/tone: added at run time, or gone." in joined.notes


def test_what_a_table_says_itself_counts_first(tmp_path: Path) -> None:
    one = ModelDemand(
        "a-support", (), 5.0, (5.0,), usual_spread(10), usual_spread(10), ttft_s=9.0,
        isolation=Isolation.DEDICATED,
    )  # fmt: skip
    joined = with_wishes(Demand("table", None, HOUR_S, (one,)), fleet(tmp_path)).of("a-support")
    assert joined is not None
    assert (joined.ttft_s, joined.isolation) == (9.0, Isolation.DEDICATED)


def test_today_is_where_each_model_is_served(tmp_path: Path) -> None:
    now = today(fleet(tmp_path))
    (served,) = [each for each in now.served["a-support"] if each.pool == "shared"]
    assert served.replicas == 2
    assert "plain" in now.served
    assert now.devices >= 3
