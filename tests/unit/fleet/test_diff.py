"""Is what differs between two fleets said in the file's words, without secrets, and with what it takes?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.diff import ENGINES, RESTART, Needs, differences
from fleet.mig import Mig
from fleet.schema import BaseModelSection
from fleet.types import (
    Adapter,
    Budget,
    Caps,
    Fleet,
    GatewaySettings,
    Pool,
    SchedulerSettings,
    Slo,
    StateSettings,
    Strategy,
    Tenant,
)
from fleet.values import base_model_values, gateway_values, pool_values, state_values
from tests.fakes import small_fleet, without_tenant

FLEET = small_fleet()


def told(after: Fleet, before: Fleet = FLEET) -> list[str]:
    """What differs, in words."""
    return [str(change) for change in differences(before, after)]


def with_tenant(**changes: object) -> Fleet:
    """The fleet in which tenant a differs."""
    return replace(FLEET, tenants=FLEET.tenants | {"a": replace(FLEET.tenants["a"], **changes)})  # type: ignore[arg-type]


def test_nothing_differs_from_itself() -> None:
    assert told(small_fleet()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"caps": Caps(requests_per_minute=120)}, "tenant a: requests_per_minute none -> 120"),
        ({"weight": 2.5}, "tenant a: weight 1 -> 2.5"),
        ({"budget": Budget(1000)}, "tenant a: monthly_tokens none -> 1000"),
        ({"default_model": None}, "tenant a: default_model support -> none"),
        (
            {"models": FLEET.tenants["a"].models | {"plain": "a-sales"}},
            "tenant a: alias plain base -> a-sales",
        ),
        ({"adapter_sources": ("https://user:password@host/",)}, "tenant a: adapter_sources changed"),
    ],
)
def test_what_a_tenant_has_otherwise(changes: dict[str, object], words: str) -> None:
    after = with_tenant(**changes)
    assert words in told(after)
    assert {change.needs for change in differences(FLEET, after)} == {Needs.NOTHING}
    assert "password" not in " ".join(told(after))


def test_keys_are_shown_by_the_beginning_of_their_hash() -> None:
    (digest,) = FLEET.tenants["a"].key_hashes
    (text,) = told(with_tenant(key_hashes=frozenset()))
    assert text == f"tenant a: key {digest[:16]}... removed"


def test_a_tenant_comes_and_goes_with_its_place() -> None:
    smaller = without_tenant(FLEET, "b")
    assert told(smaller) == ["tenant b: removed", "pool shared: tenant b leaves"]
    assert told(FLEET, smaller) == ["tenant b: added", "pool shared: tenant b joins"]


def test_a_pool_s_objective_counts_at_once_and_its_engines_do_not() -> None:
    pool = replace(FLEET.pools["shared"], slo=Slo(ttft_s=2.0), replicas=3)
    changes = differences(FLEET, replace(FLEET, pools=FLEET.pools | {"shared": pool}))
    assert [(change.text, change.needs) for change in changes] == [
        ("replica shared-1 joins", Needs.NOTHING),
        ("replica shared-2 joins", Needs.NOTHING),
        ("ttft_s none -> 2", Needs.NOTHING),
    ]


def test_base_models_and_pools_come_and_go_at_once() -> None:
    more = replace(FLEET, base_models=FLEET.base_models | {"x": replace(FLEET.base_models["base"], name="x")})
    fewer = replace(FLEET, pools={"shared": FLEET.pools["shared"]})
    changes = [*differences(FLEET, more), *differences(FLEET, fewer)]
    assert [(str(change), change.needs) for change in changes] == [
        ("base model x: added", Needs.NOTHING),
        ("pool alone: removed", Needs.NOTHING),
    ]


def test_a_pool_whose_base_models_take_turns_is_made_at_the_start_and_its_models_come_and_go() -> None:
    pool = Pool("mesh", Strategy.MODEL_MESH, ("base", "other"), 1, (), ())
    other = replace(FLEET.base_models["base"], name="other")
    meshed = replace(FLEET, pools={"mesh": pool}, base_models=FLEET.base_models | {"other": other})
    fewer = replace(meshed, pools={"mesh": replace(pool, base_models=("base",))})
    gone = replace(meshed, pools={})
    for before, after in ((meshed, gone), (gone, meshed)):
        told = {change.text: change.needs for change in differences(before, after)}
        assert Needs.RESTART in told.values(), told
    moved = replace(FLEET.base_models["base"], source="/models/elsewhere")
    other_weights = replace(meshed, base_models=meshed.base_models | {"base": moved})
    for before, after in ((meshed, fewer), (fewer, meshed), (meshed, other_weights)):
        told = {change.text: change.needs for change in differences(before, after)}
        assert set(told.values()) == {Needs.NOTHING}, told


def test_what_engines_are_started_with_needs_their_restart_and_other_weights_that_of_the_service() -> None:
    model = replace(FLEET.base_models["base"], max_loras=4, vllm_args=("--seed", "7"), source="/models/other")
    changes = differences(FLEET, replace(FLEET, base_models={"base": model}))
    assert {(change.text.partition(" ")[0], change.needs) for change in changes} == {
        ("source", Needs.RESTART),
        ("max_loras", Needs.ENGINES),
        ("vllm_args", Needs.ENGINES),
    }


def test_it_is_known_of_every_key_of_a_base_model_what_it_needs() -> None:
    counts_at_once = {"media_tokens", "request_limits", "sha256"}
    known = RESTART["base_models"] | ENGINES["base_models"] | counts_at_once
    assert known == set(BaseModelSection.model_fields)
    assert not RESTART["base_models"] & ENGINES["base_models"]


def test_settings_of_the_gateway_and_the_state() -> None:
    settings = GatewaySettings(
        operator_key_hashes=FLEET.gateway.operator_key_hashes,
        log_requests=False,
        shutdown_grace_s=5.0,
        scheduler=SchedulerSettings(slot_wait_s=3.0),
    )
    state = StateSettings(database="postgresql+psycopg://user:password@host/name", keep_versions=9)
    changes = differences(FLEET, replace(FLEET, gateway=settings, state=state))
    assert sorted((str(change), change.needs) for change in changes) == [
        ("gateway: shutdown_grace_s 30 -> 5", Needs.RESTART),
        ("gateway: slot_wait_s 10 -> 3", Needs.NOTHING),
        ("state: database changed", Needs.RESTART),
        ("state: keep_versions 3 -> 9", Needs.NOTHING),
    ]


def test_sources_are_not_shown() -> None:
    adapter = Adapter("a-support", "https://user:password@host/x.zip", "base", max_concurrency=3)
    after = replace(FLEET, adapters=FLEET.adapters | {"a-support": adapter})
    assert told(after) == [
        "adapter a-support: source changed",
        "adapter a-support: max_concurrency none -> 3",
    ]


def test_what_needs_a_restart_is_named_as_the_file_names_it() -> None:
    model = replace(
        FLEET.base_models["base"],
        revision="x",
        max_model_len=1,
        gpu_memory_utilization=0.5,
        kv_cache_bytes=2**30,
    )
    state = StateSettings(database="x", store_bytes=2**30, model_store_bytes=2**30)
    known = {
        "base_models": base_model_values(model),
        "pools": pool_values(
            replace(FLEET.pools["shared"], strategy=Strategy.MODEL_MESH, awake=2, mig=Mig("0", "1g.10gb", 1))
        ),
        "gateway": gateway_values(FLEET, {}),
        "state": state_values(state),
    }
    for section, names in (*RESTART.items(), *ENGINES.items()):
        assert names <= known[section].keys(), section


def test_a_long_value_is_cut() -> None:
    tenant = Tenant("a", frozenset(), {"x" * 300: "base"}, None)
    assert all(len(text) < 600 for text in told(replace(FLEET, tenants=FLEET.tenants | {"a": tenant})))
