"""API keys: hashes of what the file or the environment holds, each of one owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import FleetError, read_fleet
from fleet.api_keys import KEY_PREFIX, new_key
from tests.unit.fleet.files import changed, declared, digest, problems, the_problem, warnings, write

KEY = "a-key-long-enough-for-anybody"


def test_a_new_key_is_long_random_and_marked() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith(KEY_PREFIX) and len(key) == len(KEY_PREFIX) + 43 for key in keys)


def test_a_key_in_the_environment_is_hashed(tmp_path: Path) -> None:
    path = write(tmp_path, changed("gateway/operator_keys", [{"env": "OPS"}]))
    assert read_fleet(path, env={"OPS": KEY}).fleet.gateway.operator_key_hashes == {digest(KEY)}


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "the environment variable BETA_KEY is not set"),
        ({"BETA_KEY": ""}, "the environment variable BETA_KEY is empty"),
        ({"BETA_KEY": f"{KEY}\n"}, "holds white space or characters no HTTP header can carry"),
        ({"BETA_KEY": f" {KEY}"}, "holds white space or characters no HTTP header can carry"),
        ({"BETA_KEY": f"{KEY}é"}, "holds white space or characters no HTTP header can carry"),
    ],
)
def test_a_variable_without_a_usable_key_is_an_error_that_names_it(
    tmp_path: Path, env: dict[str, str], message: str
) -> None:
    problem = the_problem(tmp_path, changed("tenants/beta/api_keys", [{"env": "BETA_KEY"}]), env)
    assert problem.path == "tenants.beta.api_keys[0]"
    assert message in problem.message
    assert KEY not in str(problem)


def test_where_nobody_is_served_a_missing_key_is_made_up(tmp_path: Path) -> None:
    data = changed("tenants/beta/api_keys", [{"env": "BETA_KEY"}, {"env": "SECOND_KEY"}])
    loaded = read_fleet(write(tmp_path, data), env={"SECOND_KEY": KEY}, keys_needed=False)
    assert set(loaded.key_variables.values()) == {"BETA_KEY", "SECOND_KEY"}
    assert loaded.fleet.tenants["beta"].key_hashes == set(loaded.key_variables)
    assert digest(KEY) in loaded.key_variables


def test_one_variable_for_two_owners_is_an_error_whether_it_is_set_or_not(tmp_path: Path) -> None:
    data = changed(
        "tenants/beta/api_keys", [{"env": "KEY"}], changed("gateway/operator_keys", [{"env": "KEY"}])
    )
    with pytest.raises(FleetError, match="the same key as a key of tenant `beta`"):
        read_fleet(write(tmp_path, data), env={}, keys_needed=False)


def test_a_short_key_is_a_warning_that_does_not_show_it(tmp_path: Path) -> None:
    found = warnings(
        tmp_path, changed("tenants/beta/api_keys", [{"env": "BETA_KEY"}]), {"BETA_KEY": "hunter2"}
    )
    assert [p.message for p in found] == [
        "the key in BETA_KEY has fewer than 20 characters and can be guessed"
    ]
    assert "hunter2" not in str(found[0])


@pytest.mark.parametrize(
    ("path", "entry", "at", "owner"),
    [
        (
            "tenants/beta/api_keys",
            {"sha256": digest("alpha")},
            "tenants.beta.api_keys[0]",
            "a key of tenant `alpha`",
        ),
        (
            "tenants/beta/api_keys",
            {"sha256": digest("alpha").upper()},
            "tenants.beta.api_keys[0]",
            "a key of tenant",
        ),
        ("tenants/beta/api_keys", {"env": "ALPHA"}, "tenants.beta.api_keys[0]", "a key of tenant `alpha`"),
        (
            "gateway/operator_keys",
            {"sha256": digest("beta")},
            "gateway.operator_keys[0]",
            "a key of tenant `beta`",
        ),
    ],
)
def test_a_key_belongs_to_one_owner(
    tmp_path: Path, path: str, entry: dict[str, str], at: str, owner: str
) -> None:
    problem = the_problem(tmp_path, changed(path, [entry]), {"ALPHA": "alpha"})
    assert problem.path == at
    assert problem.message.startswith(f"the same key as {owner}")


def test_a_key_twice_for_one_tenant_is_an_error_too(tmp_path: Path) -> None:
    twice = [{"sha256": digest("x")}, {"sha256": digest("x")}]
    assert problems(tmp_path, changed("tenants/beta/api_keys", twice))[0].path == "tenants.beta.api_keys[1]"
    assert (
        problems(tmp_path, changed("gateway/operator_keys", twice))[0].message
        == "the same key as an operator key"
    )


def test_a_tenant_may_have_several_keys(tmp_path: Path) -> None:
    data = declared()
    data["tenants"]["beta"]["api_keys"] += [{"sha256": digest("new")}]
    assert len(read_fleet(write(tmp_path, data)).fleet.tenants["beta"].key_hashes) == 2
