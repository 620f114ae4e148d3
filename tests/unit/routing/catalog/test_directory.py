"""Who calls, and what does a name mean for this caller?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.states import VersionState
from engines.residency import ENGINE_DIED
from fleet.current import CurrentFleet
from fleet.key_hash import FINGERPRINT_CHARS, hash_key
from fleet.types import Budget, KeyLimits, Tenant
from routing.catalog.declared import Identity
from routing.catalog.directory import Directory
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    ApiKey,
    KeyRole,
    Rollout,
    RolloutPlan,
)
from routing.errors import Quarantined, Unavailable
from routing.types import FallbackReason, Target
from tests.fakes import adapter_id, entry_of, key_of, small_fleet, version_of, without_tenant

FLEET = small_fleet()
NOW_S = 1_700_000_000.0


@pytest.fixture
def directory() -> Directory:
    """The small fleet, every adapter of it ready."""
    directory = Directory(CurrentFleet(FLEET))
    for name in FLEET.adapters:
        directory.put(entry_of(name))
    return directory


def resolve(directory: Directory, tenant: str, name: str | None, sticky: str = "") -> Target | None:
    return directory.resolve(FLEET.tenants[tenant], name, sticky)


def tenant_of(directory: Directory, key: str) -> Tenant | None:
    found = directory.authenticate(key, NOW_S)
    return None if found is None else found[0]


def made_key(
    secret: str, role: KeyRole = KeyRole.INFERENCE, tenant: str | None = "b", expires_s: float | None = None
) -> ApiKey:
    return ApiKey("id", secret[:4], hash_key(secret), role, tenant, created_s=NOW_S, expires_s=expires_s)


def test_a_key_finds_its_tenant(directory: Directory) -> None:
    tenant = tenant_of(directory, key_of("b"))
    assert tenant is not None and tenant.name == "b"


@pytest.mark.parametrize("key", ["", "wrong", key_of("a") + " ", key_of("operator"), "\udcff"])
def test_any_other_key_finds_nobody(directory: Directory, key: str) -> None:
    assert directory.authenticate(key, NOW_S) is None


def test_the_operator_is_nobodys_tenant(directory: Directory) -> None:
    assert directory.identify(key_of("operator"), NOW_S) == Identity(KeyRole.OPERATOR, None)
    assert directory.identify(key_of("a"), NOW_S) == Identity(KeyRole.INFERENCE, "a")


def test_a_key_made_at_run_time_counts_at_once_and_until_it_is_revoked(directory: Directory) -> None:
    key = made_key("fresh")
    assert directory.authenticate("fresh", NOW_S) is None
    directory.put_key(key)
    assert tenant_of(directory, "fresh") == FLEET.tenants["b"]
    directory.put_key(replace(key, revoked_s=NOW_S))
    assert directory.authenticate("fresh", NOW_S) is None


def test_a_key_opens_nothing_from_the_moment_it_expires(directory: Directory) -> None:
    directory.put_key(made_key("brief", expires_s=NOW_S + 10))
    assert directory.authenticate("brief", NOW_S + 9.9) is not None
    assert directory.authenticate("brief", NOW_S + 10) is None


def test_a_key_for_adapters_calls_no_model(directory: Directory) -> None:
    directory.put_key(made_key("manage", KeyRole.ADAPTERS))
    assert directory.authenticate("manage", NOW_S) is None
    assert directory.identify("manage", NOW_S) == Identity(KeyRole.ADAPTERS, "b")


def test_a_key_of_a_tenant_that_the_fleet_no_longer_has_is_nobodys(directory: Directory) -> None:
    directory.put_key(made_key("orphan", tenant="gone"))
    assert directory.identify("orphan", NOW_S) is None


@pytest.mark.parametrize(
    ("tenant", "name", "adapter"),
    [
        ("a", "support", "a-support"),
        ("a", "a-support", "a-support"),
        ("a", "support@1", "a-support"),
        ("a", "plain", "base"),
        ("a", "base", "base"),
        ("a", None, "a-support"),
        ("a", "support@2", None),
        ("a", "support@", None),
        ("a", "plain@1", None),
        ("b", "support", "b-support"),
        ("b", "a-support", None),
        ("b", "a-support@1", None),
        ("b", "base", None),
        ("b", "", None),
    ],
)
def test_a_name_means_what_the_tenant_declared(
    directory: Directory, tenant: str, name: str | None, adapter: str | None
) -> None:
    target = resolve(directory, tenant, name)
    if adapter is None:
        assert target is None
    else:
        assert target is not None
        assert target.engine_model == (adapter if adapter == "base" else adapter_id(adapter))


def test_an_adapters_own_name_is_the_same_target_as_its_alias(directory: Directory) -> None:
    assert resolve(directory, "a", "a-support") == resolve(directory, "a", "support")
    assert resolve(directory, "a", "a-support") != resolve(directory, "a", "sales")


def test_a_tenant_is_served_by_its_own_pool(directory: Directory) -> None:
    target = resolve(directory, "c", "support")
    assert target is not None and target.pool == "alone"


def test_a_registered_adapter_is_its_tenants_alone(directory: Directory) -> None:
    directory.put(entry_of("billing", tenant="a"))
    target = resolve(directory, "a", "billing")
    assert target is not None and target.adapter_id == adapter_id("billing", tenant="a")
    assert resolve(directory, "b", "billing") is None
    assert resolve(directory, "b", "a/billing") is None


def test_two_tenants_may_use_one_name_for_two_adapters(directory: Directory) -> None:
    for tenant in ("a", "b"):
        directory.put(entry_of("billing", tenant=tenant))
    ids = {resolve(directory, tenant, "billing").adapter_id for tenant in ("a", "b")}  # type: ignore[union-attr]
    assert len(ids) == 2


def test_the_fleets_names_win_over_registered_ones(directory: Directory) -> None:
    directory.put(entry_of("support", tenant="a"))
    target = resolve(directory, "a", "support")
    assert target is not None and target.adapter_id == adapter_id("a-support")
    assert directory.is_taken("a", "support") and directory.is_taken("a", "a-sales")
    assert not directory.is_taken("b", "a-sales")


def test_a_version_that_is_not_ready_is_said_to_be_so(directory: Directory) -> None:
    key = AdapterKey("a", "billing")
    directory.put(
        entry_of("billing", tenant="a", versions=[version_of(key, 1, VersionState.VERIFYING)], live=None)
    )
    with pytest.raises(Unavailable) as refused:
        resolve(directory, "a", "billing")
    assert refused.value.code == "adapter_unavailable" and refused.value.retry_after_s
    assert resolve(directory, "a", "billing@1") is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("the adapter uses DoRA", "refused: the adapter uses DoRA"),
        ("rank 64, at most 16; pool `theirs` would take it", "refused: rank 64, at most 16"),
        (f"{ENGINE_DIED} tried this adapter: KeyError: acme/other@01", f"{ENGINE_DIED} tried this adapter"),
        ("nothing at /srv/state/x, nor at s3://bucket/x", "refused: nothing at <path>, nor at <path>"),
    ],
)
def test_a_model_that_was_refused_says_why_and_not_to_come_again(
    directory: Directory, reason: str, told: str
) -> None:
    key = AdapterKey("a", "billing")
    version = replace(version_of(key, 2, VersionState.QUARANTINED), reason=reason)
    older = version_of(key, 1, VersionState.RETIRED)
    directory.put(entry_of("billing", tenant="a", versions=[older, version], live=None))
    with pytest.raises(Quarantined) as refused:
        resolve(directory, "a", "billing")
    assert refused.value.message.endswith(told) and "version 2" in refused.value.message
    assert refused.value.should_retry is False and refused.value.retry_after_s is None


@pytest.mark.parametrize("state", [VersionState.REGISTERED, VersionState.FETCHING, VersionState.VERIFYING])
def test_a_model_with_a_version_under_way_may_be_asked_again(
    directory: Directory, state: VersionState
) -> None:
    key = AdapterKey("a", "billing")
    versions = [version_of(key, 1, VersionState.QUARANTINED), version_of(key, 2, state)]
    directory.put(entry_of("billing", tenant="a", versions=versions, live=None))
    with pytest.raises(Unavailable, match="not ready yet"):
        resolve(directory, "a", "billing")


def test_a_retired_adapter_is_unknown(directory: Directory) -> None:
    key = AdapterKey("a", "billing")
    directory.put(
        entry_of("billing", tenant="a", versions=[version_of(key, 1, VersionState.RETIRED)], live=None)
    )
    assert resolve(directory, "a", "billing") is None
    assert "billing" not in [target.model for target in directory.models(FLEET.tenants["a"])]


@pytest.mark.parametrize(
    ("asked", "answers_as"),
    [
        ("support", "support"),
        ("a-support", "a-support"),
        ("support@1", "support@1"),
        ("plain", "plain"),
        ("base", "base"),
        (None, "support"),
    ],
)
def test_an_answer_has_the_name_that_was_asked_for(
    directory: Directory, asked: str | None, answers_as: str
) -> None:
    for _ in range(2):  # the second time it is known
        found = resolve(directory, "a", asked)
        assert found is not None and found.answers_as == answers_as
        assert found.model == ("plain" if asked in ("plain", "base") else "support")


def test_a_split_follows_its_weight_and_keeps_each_caller_on_its_side(directory: Directory) -> None:
    key = AdapterKey(None, "a-support")
    entry = entry_of("a-support", versions=[version_of(key, 1), version_of(key, 2)])
    callers = [f"user-{i}" for i in range(2000)]

    def sides(weight: float) -> list[int | None]:
        directory.put(replace(entry, rollout=Rollout(2, RolloutPlan(weight=weight))))
        return [resolve(directory, "a", "support", caller).version for caller in callers]  # type: ignore[union-attr]

    small, same, large = sides(0.1), sides(0.1), sides(0.5)
    assert small == same
    assert 0.07 < small.count(2) / len(callers) < 0.13
    assert all(after == 2 for before, after in zip(small, large, strict=True) if before == 2)
    assert set(sides(1.0)) == {2} and set(sides(0.0)) == {1}


def test_a_candidate_that_is_not_ready_gets_nothing(directory: Directory) -> None:
    key = AdapterKey(None, "a-support")
    versions = [version_of(key, 1), version_of(key, 2, VersionState.QUARANTINED)]
    plan = Rollout(2, RolloutPlan(weight=1.0))
    directory.put(replace(entry_of("a-support", versions=versions), rollout=plan))
    target = resolve(directory, "a", "support")
    assert target is not None and target.version == 1


def test_every_change_counts_from_the_next_request_on(directory: Directory) -> None:
    key = AdapterKey(None, "a-support")
    one, two = version_of(key, 1), version_of(key, 2)
    entry = entry_of("a-support", versions=[one, two])

    def answers(entry: AdapterEntry) -> int | None:
        directory.put(entry)
        first, second = (resolve(directory, "a", "support") for _ in range(2))
        assert first == second and first is not None
        return first.version

    assert answers(entry) == 1
    assert answers(replace(entry, rollout=Rollout(2, RolloutPlan(weight=1.0)))) == 2
    assert directory.rollouts == {key}
    assert answers(entry) == 1
    assert directory.rollouts == set()
    assert answers(replace(entry, live=2)) == 2
    directory.put_version(replace(two, state=VersionState.QUARANTINED))
    with pytest.raises(Unavailable):
        directory.put(replace(entry, live=2, versions=(one, replace(two, state=VersionState.QUARANTINED))))
        resolve(directory, "a", "support")
    directory.put(entry_of("billing", tenant="a"))
    assert resolve(directory, "a", "billing") is resolve(directory, "a", "billing")
    directory.remove(AdapterKey("a", "billing"))
    assert resolve(directory, "a", "billing") is None


def test_a_tenant_lists_what_it_can_call(directory: Directory) -> None:
    directory.put(entry_of("billing", tenant="a"))
    directory.put(entry_of("secret", tenant="b"))
    assert [t.model for t in directory.models(FLEET.tenants["a"])] == ["support", "sales", "plain", "billing"]


def test_a_thousand_adapters_are_looked_up_as_fast_as_one(directory: Directory) -> None:
    for i in range(1000):
        directory.put(entry_of(f"adapter-{i}", tenant="a"))
    assert len(directory.models(FLEET.tenants["a"])) == 1003
    directory.remove(AdapterKey("a", "adapter-7"))
    assert resolve(directory, "a", "adapter-7") is None
    assert resolve(directory, "a", "adapter-8") is not None


# -- fallbacks ---------------------------------------------------------------------------------------------


def with_fallback() -> tuple[Directory, Tenant]:
    """The small fleet, where `support` of tenant a falls back to its base model."""
    tenant = replace(FLEET.tenants["a"], fallbacks={"support": "plain"})
    directory = Directory(CurrentFleet(replace(FLEET, tenants={**FLEET.tenants, "a": tenant})))
    for name in FLEET.adapters:
        directory.put(entry_of(name))
    return directory, tenant


@pytest.mark.parametrize("name", ["support", "a-support", None])
def test_a_fallback_answers_under_the_name_that_was_asked_for(name: str | None) -> None:
    directory, tenant = with_fallback()
    target = directory.fallback(tenant, name, "", FallbackReason.NO_REPLICA)
    assert target is not None
    assert (target.model, target.adapter, target.answers_as) == ("plain", None, name or "support")
    assert (target.fallback, target.fallback_of) == (None, "support")
    assert target.fallback_reason is FallbackReason.NO_REPLICA


@pytest.mark.parametrize("name", ["plain", "sales", "nothing", "support@1"])
def test_other_names_have_no_fallback(name: str) -> None:
    directory, tenant = with_fallback()
    assert directory.fallback(tenant, name, "", FallbackReason.NO_REPLICA) is None
    found = directory.resolve(tenant, name, "")
    assert found is None or found.fallback is None


def test_a_fallback_that_cannot_answer_is_none() -> None:
    directory, tenant = with_fallback()
    tenant = replace(tenant, fallbacks={"plain": "support"})
    directory.put(entry_of("a-support", versions=(), live=None))
    assert directory.fallback(tenant, "plain", "", FallbackReason.OVERLOADED) is None


# -- another fleet -----------------------------------------------------------------------------------------


@pytest.fixture
def current() -> CurrentFleet:
    """The small fleet, to be replaced."""
    return CurrentFleet(FLEET)


def test_a_declared_key_opens_nothing_once_it_is_taken_out(current: CurrentFleet) -> None:
    directory = Directory(current)
    changed = replace(FLEET.tenants["a"], key_hashes=frozenset({hash_key("another")}))
    current.replace(replace(FLEET, tenants=FLEET.tenants | {"a": changed}))
    assert directory.identify(key_of("a"), NOW_S) is None
    assert tenant_of(directory, "another") is changed


def test_a_removed_tenant_is_nobody_and_comes_back_with_its_keys_and_adapters(current: CurrentFleet) -> None:
    directory = Directory(current)
    directory.put_key(made_key("fresh"))
    directory.put(entry_of("own", tenant="b"))
    current.replace(without_tenant(FLEET, "b"))
    assert directory.identify(key_of("b"), NOW_S) is directory.identify("fresh", NOW_S) is None
    assert directory.users_of(entry_of("own", tenant="b")) == []
    assert not directory.serves(Target("b", "own", "own", "base", "shared", 1))
    assert not directory.is_taken("b", "support"), "nobody has that name now"
    current.replace(FLEET)
    assert tenant_of(directory, "fresh") == FLEET.tenants["b"]
    assert resolve(directory, "b", "own") is not None


def test_the_adapters_of_a_tenant_that_comes_later_are_found(current: CurrentFleet) -> None:
    current.replace(without_tenant(FLEET, "b"))
    directory = Directory(current)
    directory.put(entry_of("own", tenant="b"))
    current.replace(FLEET)
    assert [target.model for target in directory.models(FLEET.tenants["b"])] == ["support", "own"]


def test_an_alias_means_something_else_from_the_next_request_on(current: CurrentFleet) -> None:
    directory = Directory(current)
    for name in FLEET.adapters:
        directory.put(entry_of(name))
    before = resolve(directory, "a", "support")
    changed = replace(FLEET.tenants["a"], models={"support": "a-sales"})
    current.replace(replace(FLEET, tenants=FLEET.tenants | {"a": changed}))
    after = directory.resolve(changed, "support", "")
    assert before is not None and before.adapter == "a-support"
    assert after is not None and after.adapter == "a-sales"
    assert directory.resolve(changed, "sales", "") is None


def test_demo_keys_that_come_later_are_local_too(current: CurrentFleet) -> None:
    known = hash_key("known")
    directory = Directory(current, local_only=frozenset({known}))
    assert not directory.local_only
    changed = replace(FLEET.tenants["a"], key_hashes=frozenset({known}))
    current.replace(replace(FLEET, tenants=FLEET.tenants | {"a": changed}))
    assert directory.local_only and directory.is_local_only("known")


def test_the_budgets_of_keys_are_one_object_until_one_of_them_changes(directory: Directory) -> None:
    assert directory.key_budgets() == {}
    limited = replace(made_key("fresh"), limits=KeyLimits(monthly_tokens=5))
    directory.put_key(limited)
    budgets = directory.key_budgets()
    assert budgets == {"id": Budget(5)} and directory.key_budgets() is budgets
    directory.put_key(replace(made_key("other"), id="other"))
    assert directory.key_budgets() is budgets
    found = directory.identify("fresh", NOW_S)
    assert found is not None and (found.key, found.limits) == ("id", limited.limits)
    directory.put_key(replace(limited, revoked_s=NOW_S))
    assert directory.key_budgets() == {} and directory.identify("fresh", NOW_S) is None
    directory.put_key(limited)
    assert directory.key_budgets() == budgets
    directory.drop_key(limited)
    assert directory.key_budgets() == {}, "without waiting for another change"


def test_a_declared_keys_limits_come_and_go_with_the_fleet() -> None:
    digest, current = hash_key(key_of("a")), CurrentFleet(FLEET)
    directory = Directory(current)
    limited = replace(FLEET.tenants["a"], key_limits={digest: KeyLimits(max_queued=0, monthly_tokens=9)})
    current.replace(replace(FLEET, tenants={**FLEET.tenants, "a": limited}))
    found = directory.identify(key_of("a"), NOW_S)
    assert found is not None and found.limits == KeyLimits(max_queued=0, monthly_tokens=9)
    assert found.key == digest[:FINGERPRINT_CHARS]
    assert directory.key_budgets() == {digest[:FINGERPRINT_CHARS]: Budget(9)}
    current.replace(FLEET)
    assert directory.key_budgets() == {}
