"""Models that the gateway holds, put into what is declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.diff import differences
from fleet.held_models import DECLARED, HeldModel, base_model_of, with_models
from fleet.sources import is_url
from fleet.types import Pool, Strategy
from tests.fakes import small_fleet

MESH = Pool("mesh", Strategy.MODEL_MESH, ("base",), 2, (), ("a",))
FLEET = replace(small_fleet(), pools={**small_fleet().pools, "mesh": MESH})


def held(name: str = "new", pool: str | None = "mesh", folder: str | None = "/store/x") -> HeldModel:
    return HeldModel(name, pool, {"max_model_len": 512}, folder, "hf://org/new")


def test_one_that_was_added_is_a_base_model_with_a_replica_at_each_host() -> None:
    fleet = with_models(FLEET, [held()]).fleet
    assert (fleet.base_models["new"].source, fleet.base_models["new"].max_model_len) == ("/store/x", 512)
    replicas = [name for name, model in fleet.pools["mesh"].replica_models if model == "new"]
    assert replicas == ["mesh-0.new", "mesh-1.new"]
    assert all(str(change.needs) == "nothing" for change in differences(FLEET, fleet))


def test_a_fleet_file_would_name_where_it_came_from() -> None:
    assert with_models(FLEET, [held()], as_told=True).fleet.base_models["new"].source == "hf://org/new"


def test_one_that_is_declared_gets_the_folder_of_what_was_fetched() -> None:
    remote = replace(FLEET.base_models["base"], source="hf://org/base", sha256="ab" * 32)
    declared = replace(FLEET, base_models={"base": remote})
    found = with_models(declared, [held("base", None)]).fleet.base_models["base"]
    assert (found.source, found.sha256, found.max_loras) == ("/store/x", None, remote.max_loras)
    assert not is_url(found.source)
    assert with_models(declared, [held("base", None, None)]).fleet is declared, "it is not here yet"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (held("base"), DECLARED),
        (held("a-support"), "an adapter of this name is declared: a request could mean either"),
        (held(pool="nowhere"), "there is no pool `nowhere`"),
        (held(pool="shared"), "pool `shared` is of strategy multi-lora"),
    ],
)
def test_one_that_does_not_fit_is_not_served_and_the_reason_is_told(model: HeldModel, why: str) -> None:
    extended = with_models(FLEET, [model, held("other")])
    assert why in extended.unfit[model.name]
    assert extended.fleet.pools["mesh"].base_models == ("base", "other"), "others are"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_model_len": 0}, "max_model_len"),
        ({"nonsense": 1}, "nonsense"),
        ({"kv_cache_gib": 1e-12}, "less than a byte"),
        ({"max_loras": 4, "max_cpu_loras": 1}, "less than max_loras"),
        ({"vllm_args": {"model": "other"}}, "vllm_args"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        base_model_of("new", values, "/store/x")
