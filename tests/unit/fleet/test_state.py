"""The section `state`, and where adapters may come from: what is taken, refused, and never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fleet import Problem, read_fleet, schema
from fleet.state import STAND_IN_DATABASE
from fleet.types import StateSettings
from tests.unit.fleet.files import changed, declared, problems, the_problem, warnings, write

URL = "postgresql+psycopg://user@host/name"


def state_of(folder: Path, env: dict[str, str] | None = None, /, **section: Any) -> StateSettings:
    return read_fleet(write(folder, changed("state", section)), env=env or {}).fleet.state


@pytest.mark.parametrize(
    ("folder", "env", "resolved"),
    [
        ("kept", {}, "{here}/kept"),
        ("../kept", {}, "{above}/kept"),
        ("/var/lib/kept/", {}, "/var/lib/kept"),
        ("${WHERE}", {"WHERE": "/x"}, "/x"),
        ("${WHERE:-a/b}", {}, "{here}/a/b"),
        ("org/name", {}, "{here}/org/name"),
    ],
)
def test_the_folder_is_relative_to_the_fleet_file(
    tmp_path: Path, folder: str, env: dict[str, str], resolved: str
) -> None:
    expected = resolved.format(here=tmp_path, above=tmp_path.parent)
    assert state_of(tmp_path, env, folder=folder).folder == expected


def test_the_folder_may_be_given_by_the_environment_alone(tmp_path: Path) -> None:
    env = {"TENANTRY_STATE": "/state"}
    assert read_fleet(write(tmp_path, declared()), env=env).fleet.state.folder == "/state"


def test_without_a_database_it_is_sqlite_in_the_folder(tmp_path: Path) -> None:
    state = state_of(tmp_path, folder="/a b/x?y#z%20")
    assert state.database_url == "sqlite:////a%20b/x%3Fy%23z%2520/state.db"
    assert state.database is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgres+psycopg"])
def test_every_spelling_of_postgresql_uses_the_driver_that_is_installed(tmp_path: Path, scheme: str) -> None:
    assert state_of(tmp_path, database=f"{scheme}://user@host/name").database_url == URL
    env = {"DB": f"{scheme}://user@host/name"}
    assert state_of(tmp_path, env, database={"env": "DB"}).database_url == URL


@pytest.mark.parametrize(
    ("section", "at", "message"),
    [
        ({"folder": "s3://bucket/x"}, "state.folder", "is a URL"),
        ({"folder": "${NOT_SET}"}, "state.folder", "the environment variable NOT_SET is not set"),
        ({"folder": "a\0b"}, "state.folder", "holds a NUL character"),
        ({"folder": ""}, "state.folder", "must not be empty"),
        ({"database": {"env": "NOT_SET"}}, "state.database", "the environment variable NOT_SET is not set"),
        ({"database": {"env": "EMPTY"}}, "state.database", "the environment variable EMPTY is empty"),
        ({"store_gib": 0}, "state.store_gib", "must be greater than 0"),
        ({"max_adapter_mib": -1}, "state.max_adapter_mib", "must be greater than 0"),
        ({"keep_versions": -1}, "state.keep_versions", "must be greater than or equal to 0"),
        ({"keep_versions": 1.5}, "state.keep_versions", "must be a whole number"),
        ({"keep_version": 1}, "state.keep_version", "unknown key `keep_version`"),
        (
            {"store_gib": 1, "max_adapter_mib": 1025},
            "state.max_adapter_mib",
            "one adapter of 1025 MiB is more than the whole store takes (1 GiB)",
        ),
    ],
)
def test_a_wrong_setting_is_told_where_it_stands(
    tmp_path: Path, section: dict[str, Any], at: str, message: str
) -> None:
    problem = the_problem(tmp_path, changed("state", section), {"EMPTY": ""})
    assert (problem.path, problem.message) == (at, message)


HOLDS_A_SECRET = [
    "mysql://user:hunter2@host/db",
    "hunter2",
    "",
    "postgresql://user:${hunter2}@host/db",
    "postgresql+asyncpg://user:hunter2@host/db",
    "postgresql://user:hunter2@host/db trailing",
    "postgresql://user:hunter2@host/db\n",
    "sqlite:///hunter2",
]


@pytest.mark.parametrize("url", HOLDS_A_SECRET)
def test_a_url_that_is_refused_is_not_shown(tmp_path: Path, url: str) -> None:
    for value, env in ((url, {}), ({"env": "DB"}, {"DB": url})):
        (problem,) = problems(tmp_path, changed("state", {"database": value}), env)
        assert problem.path == "state.database"
        assert "hunter2" not in str(problem)
        assert "URL" in str(problem)


@pytest.mark.parametrize(
    "value", [7, ["hunter2"], {"env": "X", "url": "hunter2"}, {"url": "hunter2"}, {"env": "hunter 2"}, {}]
)
def test_a_database_that_is_neither_text_nor_a_variable_is_not_shown_either(
    tmp_path: Path, value: Any
) -> None:
    problem = the_problem(tmp_path, changed("state", {"database": value}))
    assert problem.message == "is either a URL or {env: NAME}"
    assert "hunter2" not in str(problem)
    assert not jsonschema.Draft202012Validator(schema.json_schema()).is_valid(
        changed("state", {"database": value})
    )


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@host/db", "postgresql://host/db?password=hunter2"])
def test_a_password_in_the_file_is_a_warning_without_it(tmp_path: Path, url: str) -> None:
    (warning,) = warnings(tmp_path, changed("state", {"database": url}))
    assert (warning.path, warning.message) == ("state.database", "holds a password")
    assert "hunter2" not in str(warning)
    assert not warnings(tmp_path, changed("state", {"database": {"env": "DB"}}), {"DB": url})
    assert "hunter2" not in repr(state_of(tmp_path, database=url))


def test_where_nobody_is_served_a_database_need_not_be_known(tmp_path: Path) -> None:
    path = write(tmp_path, changed("state", {"database": {"env": "DB"}}))
    assert read_fleet(path, env={}, keys_needed=False).fleet.state.database == STAND_IN_DATABASE
    assert read_fleet(path, env={"DB": URL}, keys_needed=False).fleet.state.database == URL


def test_a_refused_state_section_does_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    data = changed("state", {"keep_versions": -1}, changed("tenants/beta/models/support", "nothing"))
    assert {problem.path for problem in problems(tmp_path, data)} == {
        "state.keep_versions",
        "tenants.beta.models.support",
    }


@pytest.mark.parametrize(
    "source",
    [
        "hf://org/name", "hf://org/name@v1", "s3://bucket/path", "gs://bucket/path", "https://host/a.tar.gz",
        "bento://acme-support:v3",
    ],
)  # fmt: skip
def test_an_adapter_may_come_from_a_url(tmp_path: Path, source: str) -> None:
    data = changed("adapters/a-support/source", source)
    assert read_fleet(write(tmp_path, data), env={}).fleet.adapters["a-support"].source == source


def problem_with_source(folder: Path, source: str) -> Problem:
    return the_problem(folder, changed("adapters/a-support/source", source))


def test_a_hub_id_without_its_scheme_is_told_what_to_write(tmp_path: Path) -> None:
    problem = problem_with_source(tmp_path, "acme/support")
    assert problem.message == "`acme/support` is neither a folder nor a URL"
    assert problem.remedy == "write hf://acme/support"


def test_a_source_has_one_spelling(tmp_path: Path) -> None:
    for text, spelling in (("file:///srv/a", "/srv/a"), ("S3://bucket/path/", "s3://bucket/path")):
        data = changed("adapters/a-support/source", text)
        assert read_fleet(write(tmp_path, data), env={}).fleet.adapters["a-support"].source == spelling


@pytest.mark.parametrize(
    "source",
    [
        "ftp://host/x",
        "http://host/x.tar.gz",
        "https://host/x",
        "s3://",
        "s3://bucket/../x",
        "hf://org",
        "hf://a/b/c",
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused(tmp_path: Path, source: str) -> None:
    assert problem_with_source(tmp_path, source).path == "adapters.a-support.source"


def test_a_password_in_a_source_is_not_shown(tmp_path: Path) -> None:
    problem = problem_with_source(tmp_path, "https://user:hunter2@host/x.tar.gz")
    assert "hunter2" not in str(problem)


def test_a_base_model_comes_from_a_url_only_where_it_takes_turns(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("base_models/base/source", "s3://bucket/base"))
    assert problem.message.startswith("the gateway fetches models of strategy model-mesh and swap only")


@pytest.mark.parametrize(
    ("prefix", "spelling"),
    [
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        ("hf://org", "hf://org"),
        ("hf://org/repo@v1", "hf://org/repo@v1"),
        ("https://host:8443/x/", "https://host:8443/x"),
        ("/srv/adapters/acme", "/srv/adapters/acme"),
    ],
)
def test_a_tenants_sources_are_cut_off_after_a_name(tmp_path: Path, prefix: str, spelling: str) -> None:
    data = changed("tenants/beta/adapter_sources", [prefix])
    assert read_fleet(write(tmp_path, data), env={}).fleet.tenants["beta"].adapter_sources == (spelling,)
    assert jsonschema.Draft202012Validator(schema.json_schema()).is_valid(data)


@pytest.mark.parametrize(
    "prefix",
    [
        "s3://", "s3:///", "s3://bucket/../", "s3://bucket//x", "http://host/", "https://user:hunter2@host/",
        "*", "s3://*/", "adapters", "", "https://", "/srv/../etc",
    ],
)  # fmt: skip
def test_what_could_let_in_more_than_it_says_is_refused(tmp_path: Path, prefix: str) -> None:
    problem = the_problem(tmp_path, changed("tenants/beta/adapter_sources", [prefix]))
    assert problem.path == "tenants.beta.adapter_sources[0]"
    assert "hunter2" not in str(problem)
