"""Which routes a tenant's key opens, and that none of their answers names another tenant."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.types import Caps, Tenant
from routing.catalog.entries import ApiKey, DeclaredKey, KeyRole
from routing.usage.query import UsageQuery
from tests.unit.routing.admin.fakes import Desk, error_of
from tests.unit.routing.admin.plans import LOOK, PLAN
from tests.unit.routing.admin.test_gate import ROUTES

FOR_OPERATORS = {
    ("GET", "/admin/v1/replicas"),
    ("POST", "/admin/v1/replicas/shared-0/drain"),
    ("POST", "/admin/v1/replicas/shared-0/resume"),
    ("GET", "/admin/v1/models"),
    ("POST", "/admin/v1/models/one/wake"),
    ("POST", "/admin/v1/models/one/sleep"),
    ("POST", "/admin/v1/models/one/pin"),
    ("DELETE", "/admin/v1/models/one/pin"),
    ("POST", "/admin/v1/models"),
    ("GET", "/admin/v1/models/one"),
    ("DELETE", "/admin/v1/models/one"),
    ("POST", "/admin/v1/models/one/versions"),
    ("DELETE", "/admin/v1/models/one/versions/1"),
    ("POST", "/admin/v1/models/one/versions/1/verify"),
    ("POST", "/admin/v1/models/one/promote"),
    ("POST", "/admin/v1/models/one/rollback"),
    ("GET", "/admin/v1/pools/shared/restart"),
    ("POST", "/admin/v1/pools/shared/restart"),
    ("GET", "/admin/v1/plan"),
    ("PUT", "/admin/v1/plan"),
    ("PUT", "/admin/v1/plan/look"),
    ("GET", "/admin/v1/scheduler"),
    ("GET", "/admin/v1/live"),
    ("GET", "/admin/v1/live/stream"),
    ("POST", "/admin/v1/tenants"),
    ("GET", "/admin/v1/tenants/a"),
    ("PATCH", "/admin/v1/tenants/a"),
    ("DELETE", "/admin/v1/tenants/a"),
    ("POST", "/admin/v1/tenants/a/suspend"),
    ("POST", "/admin/v1/tenants/a/resume"),
    ("GET", "/admin/v1/export"),
    ("GET", "/admin/v1/fleet"),
    ("POST", "/admin/v1/fleet"),
    ("POST", "/admin/v1/keys"),
    ("PATCH", "/admin/v1/keys/id1"),
    ("DELETE", "/admin/v1/keys/id1"),
}
READ_BY_TENANTS = [
    *("/admin/v1/tenants", "/admin/v1/usage", "/admin/v1/keys", "/admin/v1/adapters", "/admin/v1/batches"),
]
MEASURED = (2, 1, 10, 20, 5, 0.25, 1.0, 0.5, 0.1, 2.5, 2, 1_500_000_000)
BODIES = {
    "/admin/v1/keys": {"role": "inference", "tenant": "acme"},
    "/admin/v1/tenants": {"name": "initech", "models": {"chat": "base"}},
    "/admin/v1/tenants/a": {"weight": 2},
    "/admin/v1/aliases/chat": {"model": "acme-own"},
    "/admin/v1/plan": PLAN,
    "/admin/v1/plan/look": LOOK,
}
WITH_BODY = ("POST", "PUT", "PATCH")


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Two tenants, each with a key of fleet.yaml, one made at run time, and an adapter."""
    management = desk.management
    for number, name in enumerate(("acme", "globex")):
        models = {f"{name}-model": f"{name}-adapter"}
        management.known_tenants.append(
            Tenant(name, frozenset({f"{number}" * 64}), models, None, caps=Caps())
        )
        management.made_keys.append(ApiKey(f"id{number}", f"tnt_{name}", "5" * 64, KeyRole.ADAPTERS, name))
        management.file_keys.append(DeclaredKey(f"{number}" * 8, KeyRole.INFERENCE, name))
        management.put(f"{name}-own", name)
    management.file_keys.append(DeclaredKey("9f86d081", KeyRole.OPERATOR, None))
    desk.book.values = [MEASURED]
    return desk


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_tenants_key_opens_what_is_its_tenants_and_nothing_else(
    desk: Desk, method: str, path: str
) -> None:
    answer = await desk.ask(method, path, BODIES.get(path) if method in WITH_BODY else None)
    assert (answer.status_code == 403) is ((method, path) in FOR_OPERATORS)
    if answer.status_code == 403:
        assert error_of(answer)["code"] == "forbidden"
        assert desk.management.calls == []
    assert "globex" not in answer.text


@pytest.mark.parametrize(
    ("key", "role", "tenant"), [("operator-key", "operator", None), ("acme-key", "adapters", "acme")]
)
async def test_a_key_is_told_whose_it_is(desk: Desk, key: str, role: str, tenant: str | None) -> None:
    answer = await desk.ask("GET", "/admin/v1/whoami", key=key)
    assert answer.json() == {"object": "caller", "role": role, "tenant": tenant, "user": None}


async def test_a_tenant_sees_itself_among_the_tenants_and_an_operator_all(desk: Desk) -> None:
    async def names(key: str) -> list[str]:
        return [t["name"] for t in (await desk.ask("GET", "/admin/v1/tenants", key=key)).json()["data"]]

    assert await names("acme-key") == ["acme"]
    assert await names("globex-key") == ["globex"]
    assert await names("operator-key") == ["acme", "globex"]


async def test_a_tenant_sees_its_own_keys_and_no_operators(desk: Desk) -> None:
    for query in ("", "?tenant=acme"):
        told: dict[str, Any] = (await desk.ask("GET", f"/admin/v1/keys{query}")).json()
        assert [key["prefix"] for key in told["data"]] == ["tnt_acme"]
        assert [key["fingerprint"] for key in told["declared"]] == ["00000000"]


async def test_a_tenant_sees_its_own_usage_and_budget(desk: Desk) -> None:
    desk.book.values = [("2026-01-01", *MEASURED)]
    for key, tenant, budgets in (("acme-key", "acme", ["acme"]), ("globex-key", "globex", [])):
        answer = await desk.ask("GET", "/admin/v1/usage?group_by=day", key=key)
        assert answer.status_code == 200
        assert isinstance(desk.book.asked[-1], UsageQuery) and desk.book.asked[-1].tenant == tenant
        assert [budget["tenant"] for budget in answer.json()["budgets"]] == budgets


@pytest.mark.parametrize("dimension", ["tenant", "pool"])
async def test_a_tenants_usage_is_not_split_by_what_is_not_its_business(desk: Desk, dimension: str) -> None:
    answer = await desk.ask("GET", f"/admin/v1/usage?group_by={dimension}")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "group_by")
    assert desk.book.asked == []


async def test_one_query_of_a_tenants_usage_runs_at_a_time(desk: Desk) -> None:
    queries = desk.app.state.services.usage_queries
    async with queries.running("acme"):
        answer = await desk.ask("GET", "/admin/v1/usage")
        assert (answer.status_code, error_of(answer)["code"]) == (429, "usage_query_running")
        for key in ("globex-key", "operator-key"):
            assert (await desk.ask("GET", "/admin/v1/usage", key=key)).status_code == 200
    assert (await desk.ask("GET", "/admin/v1/usage")).status_code == 200


@pytest.mark.parametrize("named", ["globex", "nobody"])
@pytest.mark.parametrize("path", ["/admin/v1/usage", "/admin/v1/keys", "/admin/v1/adapters"])
async def test_another_tenant_is_as_unknown_as_nobody(desk: Desk, path: str, named: str) -> None:
    answer = await desk.ask("GET", f"{path}?tenant={named}")
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (404, "tenant_not_found")
    assert error["message"] == f"There is no tenant `{named}`."


@pytest.mark.parametrize("path", READ_BY_TENANTS)
async def test_what_a_tenant_reads_is_the_same_whether_others_exist(desk: Desk, path: str) -> None:
    before = (await desk.ask("GET", path)).content
    desk.management.known_tenants.pop()
    desk.management.made_keys.pop()
    del desk.management.file_keys[1:]
    desk.management.entries.popitem()
    assert (await desk.ask("GET", path)).content == before


@pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if route[0] in (*WITH_BODY, "DELETE")]
)
async def test_a_suspended_tenants_key_changes_nothing(desk: Desk, method: str, path: str) -> None:
    desk.management.tenancy.suspended.add("acme")
    answer = await desk.ask(method, path, BODIES.get(path) if method in WITH_BODY else None)
    assert (answer.status_code, error_of(answer)["code"]) == (403, "account_suspended")
    assert desk.management.calls == []


@pytest.mark.parametrize("path", READ_BY_TENANTS)
async def test_a_suspended_tenants_key_reads_on(desk: Desk, path: str) -> None:
    desk.management.tenancy.suspended.add("acme")
    assert (await desk.ask("GET", path)).status_code == 200
