"""May a dedicated tenant ever meet a request of another?"""

from __future__ import annotations

from dataclasses import replace

from fleet.isolation import why_shared
from fleet.types import Fleet, Isolation
from tests.fakes import small_fleet

FLEET = small_fleet()  # a and b share a pool, c is dedicated


def fleet(dedicated: str, shared: tuple[str, ...], alone: tuple[str, ...]) -> Fleet:
    """A fleet with these dedicated tenants in these places."""
    tenants = {
        name: replace(tenant, isolation=Isolation.DEDICATED if name in dedicated else Isolation.SHARED)
        for name, tenant in FLEET.tenants.items()
    }
    places = {"shared": shared, "alone": alone}
    pools = {name: replace(pool, tenants=places[name]) for name, pool in FLEET.pools.items()}
    return replace(FLEET, tenants=tenants, pools=pools)


def test_a_change_that_moves_nobody_is_no_matter() -> None:
    assert why_shared(FLEET, FLEET, {"shared": {"a", "b"}, "alone": {"c"}}) == []


def test_a_pool_that_others_still_use_becomes_nobodys_own() -> None:
    after = fleet("bc", ("b",), ("c",))
    assert why_shared(FLEET, after, {"shared": {"b"}}) == [], "its own requests may run"
    (reason,) = why_shared(FLEET, after, {"shared": {"a", "b"}})
    assert reason.startswith("pool shared: tenant b is dedicated, and requests of a would run beside")


def test_nobody_joins_what_runs_of_a_dedicated_tenant() -> None:
    after = fleet("", ("a",), ("b", "c"))
    assert why_shared(FLEET, after, {"shared": {"b"}}) == []
    assert why_shared(FLEET, after, {"alone": {"c"}}), "its requests began alone"


def test_a_dedicated_tenant_leaves_nothing_behind_that_others_meet() -> None:
    after = fleet("c", ("c",), ("a", "b"))
    assert why_shared(FLEET, after, {}) == []
    assert len(why_shared(FLEET, after, {"shared": {"a"}, "alone": {"c"}})) == 2
