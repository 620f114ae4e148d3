"""Names in a fleet file: each leads somewhere, and to one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet import project, read_fleet
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, declared, problems, removed, the_problem, warnings, write


def test_the_fleet_these_tests_change_is_right(tmp_path: Path) -> None:
    assert not problems(tmp_path, declared())
    assert not warnings(tmp_path, declared())


@pytest.mark.parametrize(
    ("path", "value", "at", "message", "remedy"),
    [
        (
            "adapters/a-support/base_model", "bass", "adapters.a-support.base_model",
            "no base model is called `bass`", "did you mean `base`?",
        ),
        (
            "tenants/beta/models/support", "b-suport", "tenants.beta.models.support",
            "no adapter or base model is called `b-suport`", "did you mean `b-support`?",
        ),
        (
            "tenants/beta/default_model", "suport", "tenants.beta.default_model",
            "`suport` is not one of this tenant's models", "did you mean `support`?",
        ),
        (
            "pools/shared/tenants/1", "betta", "pools.shared.tenants[1]",
            "no tenant is called `betta`", "did you mean `beta`?",
        ),
        (
            "pools/shared/base_models/0", "bas", "pools.shared.base_models[0]",
            "no base model is called `bas`", "did you mean `base`?",
        ),
    ],
)  # fmt: skip
def test_a_name_that_leads_nowhere(
    tmp_path: Path, path: str, value: Any, at: str, message: str, remedy: str
) -> None:
    found = [p for p in problems(tmp_path, changed(path, value)) if p.path == at]
    assert [(p.message, p.remedy) for p in found] == [(message, remedy)]


def test_a_name_is_a_base_model_or_an_adapter_but_not_both(tmp_path: Path) -> None:
    data = changed("adapters/plain", {"source": "./x", "base_model": "base"})
    assert any(p.message.startswith("`plain` is a base model as well") for p in problems(tmp_path, data))


def test_an_adapter_needs_a_base_model_with_slots(tmp_path: Path) -> None:
    data = changed("adapters/p-support", {"source": "./p", "base_model": "plain"})
    problem = the_problem(tmp_path, data)
    assert problem.message == "base model `plain` has no adapter slots"
    assert problem.remedy == "set base_models.plain.max_loras to 1 or more"


def test_a_tenant_on_no_pool(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("pools/shared/tenants", ["alpha"]))
    assert problem.path == "tenants.beta.models.support"
    assert problem.message == "tenant `beta` is on no pool"


def test_a_model_that_none_of_the_tenants_pools_holds(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("tenants/beta/models/raw", "plain"))
    assert problem.path == "tenants.beta.models.raw"
    assert problem.message == "no pool of tenant `beta` holds base model `plain` (its pools: shared)"
    assert problem.remedy == "add `beta` to `tenants` of a pool that holds `plain`"


def test_a_model_that_two_pools_would_serve(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("pools/second", {"base_models": ["base"], "tenants": ["beta"]}))
    assert problem.path == "tenants.beta.models.support"
    assert problem.message == "pools `shared` and `second` both serve `b-support` to this tenant"


def test_the_same_base_model_may_be_on_two_pools_for_two_tenants(tmp_path: Path) -> None:
    data = changed("pools/shared/tenants", ["alpha"])
    data["pools"]["second"] = {"base_models": ["base"], "tenants": ["beta"]}
    assert not problems(tmp_path, data)


def test_an_adapter_on_a_pool_that_serves_none(tmp_path: Path) -> None:
    found = problems(tmp_path, changed("pools/alone/strategy", "replica-per-model"))
    assert [p.message for p in found] == [
        "`c-support` is an adapter, and pool `alone` serves none (strategy replica-per-model)"
    ]


def test_an_adapter_may_be_used_by_two_tenants(tmp_path: Path) -> None:
    data = changed("tenants/beta/models/theirs", "a-support")
    assert not problems(tmp_path, data)


def test_an_alias_may_not_be_the_name_of_another_of_the_tenants_models(tmp_path: Path) -> None:
    data = changed("tenants/alpha/models", {"a-support": "base", "other": "a-support", "raw": "plain"})
    assert "the alias `a-support` is also the name" in the_problem(tmp_path, data).message
    same = {"a-support": "a-support", "plain": "plain"}
    assert not problems(tmp_path, changed("tenants/alpha/models", same))


def test_a_tenant_with_nothing_on_a_pool_that_lists_it(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("pools/whole/tenants", ["alpha", "beta"]))
    assert problem.path == "pools.whole.tenants[1]"
    assert problem.message == "tenant `beta` has no model on this pool"


@pytest.mark.parametrize(
    ("key", "twice"), [("tenants", ["alpha", "beta", "alpha"]), ("base_models", ["base", "base"])]
)
def test_a_name_listed_twice(tmp_path: Path, key: str, twice: list[str]) -> None:
    found = problems(tmp_path, changed(f"pools/shared/{key}", twice))
    assert f"`{twice[0]}` is listed twice" in [p.message for p in found]


@pytest.mark.parametrize(
    ("data", "at", "message"),
    [
        (
            changed("adapters/idle", {"source": "./i", "base_model": "base"}),
            "adapters.idle",
            "no tenant uses this adapter",
        ),
        (
            changed("base_models/idle", {"source": "org/i"}),
            "base_models.idle",
            "no pool holds this base model",
        ),
        (
            changed(
                "pools/whole/base_models", ["plain", "idle"], changed("base_models/idle", {"source": "org/i"})
            ),
            "pools.whole.base_models[1]",
            "no tenant of this pool uses `idle`",
        ),
    ],
)
def test_what_nobody_uses_is_a_warning(tmp_path: Path, data: dict[str, Any], at: str, message: str) -> None:
    assert not problems(tmp_path, data)
    assert [(p.path, p.message) for p in warnings(tmp_path, data)] == [(at, message)]


def test_a_refused_part_does_not_make_its_name_unknown(tmp_path: Path) -> None:
    for path in (
        "base_models/base/max_loras",
        "adapters/a-support/sourc",
        "tenants/beta/weight",
        "pools/alone/x",
    ):
        found = problems(tmp_path, changed(path, -1))
        assert not [str(p) for p in found if "is called" in p.message]


def test_a_missing_pool_section_leaves_tenants_without_a_pool(tmp_path: Path) -> None:
    assert [p.message for p in problems(tmp_path, removed("pools"))] == ["`pools` is missing"]


def with_fallbacks(**fallbacks: str) -> dict[str, Any]:
    """The fleet where alpha calls three models, of which these have fallbacks."""
    meanings = {"support": "a-support", "raw": "plain", "base": "base"}
    models = {
        alias: {"model": model, "fallback": fallbacks[alias]} if alias in fallbacks else model
        for alias, model in meanings.items()
    }
    return changed("tenants/alpha/models", models)


@pytest.mark.parametrize("other", ["base", "raw", "plain"])
def test_a_fallback_is_another_model_of_the_tenant_by_any_of_its_names(tmp_path: Path, other: str) -> None:
    data = with_fallbacks(support=other)
    assert not problems(tmp_path, data) and not warnings(tmp_path, data)
    fleet = read_fleet(write(tmp_path, data)).fleet
    tenant = fleet.tenants["alpha"]
    assert tenant.models == {"support": "a-support", "raw": "plain", "base": "base"}
    assert tenant.fallbacks == {"support": other}
    assert read_fleet(write(tmp_path, write_fleet(fleet, key_variables={}))).fleet == fleet
    kept = {"support": other} if other == "base" else {}
    assert project(fleet, "shared").tenants["alpha"].fallbacks == kept, "the other pool's Bento lacks it"


@pytest.mark.parametrize(
    ("fallbacks", "alias", "message"),
    [
        ({"support": "bsae"}, "support", "`bsae` is not one of this tenant's models"),
        ({"support": "b-support"}, "support", "`b-support` is not one of this tenant's models"),
        ({"support": "support"}, "support", "`support` is its own fallback"),
        ({"support": "a-support"}, "support", "`support` is its own fallback"),
        ({"support": "raw", "raw": "base"}, "support", "`raw` has a fallback itself"),
        ({"support": "plain", "raw": "base"}, "support", "`plain` has a fallback itself"),
    ],
)
def test_a_fallback_that_leads_nowhere_or_further_is_refused(
    tmp_path: Path, fallbacks: dict[str, str], alias: str, message: str
) -> None:
    problem = the_problem(tmp_path, with_fallbacks(**fallbacks))
    assert problem.path == f"tenants.alpha.models.{alias}.fallback"
    assert problem.message.startswith(message)


def test_two_fallbacks_in_a_circle_are_refused_both(tmp_path: Path) -> None:
    found = problems(tmp_path, with_fallbacks(support="base", base="support"))
    assert [problem.path for problem in found] == [
        "tenants.alpha.models.support.fallback",
        "tenants.alpha.models.base.fallback",
    ]


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        (7, "tenants.beta.models.support", "is neither a name nor {model: NAME, fallback: NAME}"),
        (["b-support"], "tenants.beta.models.support", "is neither a name nor"),
        ("UPPER", "tenants.beta.models.support", "a name is 1 to 63"),
        ({"fallback": "x"}, "tenants.beta.models.support", "`model` is missing"),
        ({"model": "b-support", "other": 1}, "tenants.beta.models.support.other", "unknown key `other`"),
        ({"model": "b-support", "fallback": ["x"]}, "tenants.beta.models.support.fallback", "must be text"),
    ],
)
def test_a_model_that_is_written_in_neither_way_is_refused(
    tmp_path: Path, value: Any, path: str, message: str
) -> None:
    problem = the_problem(tmp_path, changed("tenants/beta/models/support", value))
    assert problem.path == path
    assert message in problem.message


def test_a_dedicated_tenant_has_no_shared_pool_to_fall_back_to(tmp_path: Path) -> None:
    models = {"support": {"model": "c-support", "fallback": "raw"}, "raw": "plain"}
    found = problems(tmp_path, changed("tenants/gamma/models", models))
    assert [problem.path for problem in found] == ["tenants.gamma.models.raw"]
    data = changed("pools/whole/tenants", ["alpha", "gamma"], changed("tenants/gamma/models", models))
    (problem,) = problems(tmp_path, data)
    assert "tenant `gamma` is dedicated and shares this pool" in problem.message
