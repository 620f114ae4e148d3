"""Is the present fleet the declared document with what was changed in its place, comments and all?"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.changes import set_values, with_changes
from fleet.loader import read_fleet
from fleet.present import present_file
from fleet.tenant_change import TenantChange
from fleet.types import Fleet, StateSettings
from fleet.writer import write_fleet
from tests.fakes import small_fleet
from tests.unit.fleet.test_changes import CHANGES, change

ROOT = Path(__file__).parents[3]
FLEET = small_fleet()
_ENTRIES = re.compile(r"^( *)(a|b|c|shared|weight|caps):(.*)$", re.MULTILINE)
TEXT = _ENTRIES.sub(r"\1# about \2\n\1\2:\3  # \2", write_fleet(FLEET, key_variables={}))
ENV = {
    f"{name}_KEY": f"the-key-of-{name}" for name in ("HELIOS_API", "ORCHID_API", "BASTION_API", "OPERATOR")
}
ENV["HELIOS_API_KEY_NEXT"] = "another-key"
SHIPPED = ("fleet.yaml", "demo/turns.yaml", "docs/examples/llama-3-8b-h100.yaml")


def load(raw: bytes, path: Path = ROOT / "none.yaml") -> Fleet:
    return read_fleet(path, env=ENV, raw=raw).fleet


def present_of(changes: list[TenantChange], text: str = TEXT) -> tuple[str, Fleet]:
    """The file of a document's fleet under changes, and that fleet."""
    declared = load(text.encode())
    present = with_changes(declared, {each.tenant: each for each in changes}).fleet
    return present_file(text, declared, present, load), present


def with_an_anchor(text: str) -> str:
    """The text with one tenant's caps standing for all of them."""
    parts = re.split(r"    caps:  # caps\n(?:      .*\n)+", text)
    caps = ["    caps: &same {max_queued: 5}\n", *["    caps: *same\n"] * (len(parts) - 2), ""]
    return "".join(part + each for part, each in zip(parts, caps, strict=True))


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("name", SHIPPED)
def test_an_unchanged_fleet_is_its_file_byte_by_byte(name: str) -> None:
    text = (ROOT / name).read_text()
    assert present_of([], text)[0] == text


@pytest.mark.parametrize("name", SHIPPED)
def test_a_changed_cap_leaves_every_comment_and_every_other_line(name: str) -> None:
    text = (ROOT / name).read_text()
    tenant = next(iter(load(text.encode()).tenants))
    changes = [change(tenant, caps__requests_per_minute=7, weight=2.0)]
    found, present = present_of(changes, text)
    assert comments(found) == comments(text)
    assert len(set(found.splitlines()) - set(text.splitlines())) <= 3
    assert load(found.encode()).tenants == present.tenants


@given(CHANGES)
@settings(deadline=None, max_examples=100)
def test_whatever_was_changed_the_file_is_the_present_fleet_and_stays_so_once_it_is_declared(
    changes: list[TenantChange],
) -> None:
    text, present = present_of(changes)
    again = load(text.encode())
    assert replace(again, tenants=present.tenants) == replace(present, pools=again.pools)
    assert again.tenants == present.tenants
    assert {n: {*p.tenants} for n, p in again.pools.items()} == {
        n: {*p.tenants} for n, p in present.pools.items()
    }
    assert set(comments(text)) <= set(comments(TEXT))
    kept = [name for name in FLEET.tenants if name in present.tenants]
    assert all(f"# about {name}" in text for name in (*kept, "shared")), "its comments are still there"
    assert present_of(changes, text)[0] == text, "once it is declared, nothing differs any more"


@pytest.mark.parametrize(
    "values",
    [
        {"models.draft": "base"},  # beside the one that is the default unsaid
        {"models.support": None, "models.sales": None, "default_model": None},  # one is left, and no default
        {"models.support": None, "models.sales": None, "models.plain": None, "default_model": None},
    ],
)
@pytest.mark.parametrize("tenant", ["a", "b"])
def test_a_default_that_was_left_out_stays_what_it_is_and_so_do_the_comments(
    tenant: str, values: dict[str, Any]
) -> None:
    text = re.sub(r" +default_model: .*\n", "", TEXT)
    have = load(text.encode()).tenants[tenant].models
    values = {path: value for path, value in values.items() if value or path.partition(".")[2] in {*have, ""}}
    found, present = present_of([set_values(TenantChange(tenant, revision=1), values, 1.0, "k")], text)
    assert load(found.encode()).tenants == present.tenants
    assert comments(found) == comments(text)


def test_a_tenant_that_was_admitted_is_written_with_what_is_no_default() -> None:
    admitted = set_values(
        TenantChange("d", revision=1, admitted=True), {"models.chat": "base", "pools": ["shared"]}, 1.0, "k"
    )
    text, _ = present_of([admitted])
    assert "  d:\n    api_keys: []\n    models: {chat: base}\n    default_model: chat\n" in text
    assert yaml.safe_load(text)["pools"]["shared"]["tenants"] == ["a", "b", "d"]


def test_a_tenant_that_was_admitted_anew_has_nothing_of_the_declared_one() -> None:
    anew = TenantChange("a", revision=2, generation=1, admitted=True, apart=True)
    text, _ = present_of([set_values(anew, {"models.chat": "base", "pools": ["shared"]}, 1.0, "k")])
    entry = yaml.safe_load(text)["tenants"]["a"]
    assert entry == {"api_keys": [], "models": {"chat": "base"}, "default_model": "chat"}


def test_keys_and_folders_stay_as_they_are_written() -> None:
    text = (ROOT / SHIPPED[-1]).read_text()
    found, _ = present_of([change("helios", weight=2.0)], text)
    assert "api_keys: [{env: HELIOS_API_KEY}, {env: HELIOS_API_KEY_NEXT}]" in found
    assert "${ADAPTERS:-/srv/adapters}/helios-support" in found
    assert all(key not in found for key in ENV.values())


@pytest.mark.parametrize("commented", [True, False])
def test_a_database_s_password_becomes_a_variable_and_the_rest_of_the_file_stays(commented: bool) -> None:
    url = "postgresql+psycopg://me:secret@host/name"
    text = f"{TEXT.partition('state:')[0]}state:\n  database: {url}  # ours\n" if commented else ""
    declared = load(text.encode()) if commented else replace(FLEET, state=StateSettings(database=url))
    found = present_file(text, declared, declared, load)
    assert "secret" not in found
    assert yaml.safe_load(found)["state"]["database"] == {"env": "TENANTRY_DATABASE"}
    assert ("# ours" in found) == commented


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: yaml.safe_dump(yaml.safe_load(text), default_flow_style=True),
        with_an_anchor,
        lambda text: "",
        lambda text: "tenants: [",
        lambda text: "tenants: {a: 5}",
        lambda text: "5",
    ],
)
def test_a_document_that_cannot_be_edited_is_written_anew(spoil: Any) -> None:
    text = spoil(TEXT)
    declared = load(text.encode()) if "pools" in text else FLEET
    present = with_changes(declared, {"a": change("a", caps__requests_per_minute=7)}).fleet
    found = present_file(text, declared, present, load)
    assert load(found.encode()).tenants == present.tenants


def test_a_document_that_is_not_that_of_the_declared_fleet_is_written_anew() -> None:
    other = with_changes(FLEET, {"a": change("a", weight=9.0)}).fleet
    assert load(present_file(TEXT, other, other, load).encode()).tenants == other.tenants


@given(st.lists(st.sampled_from(["a", "b", "c"]), unique=True))
@settings(deadline=None, max_examples=10)
def test_tenants_that_were_removed_take_their_comments_along(names: list[str]) -> None:
    text, _ = present_of([TenantChange(name, revision=1, removed=True) for name in names])
    assert all((f"# about {name}\n" in text) == (name not in names) for name in "abc")
