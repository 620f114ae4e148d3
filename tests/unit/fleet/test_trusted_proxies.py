"""Which lists of proxies and users a fleet file may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet.files import changed, problems, the_problem

WHERE = "gateway/trusted_proxies"
GOOD: dict[str, Any] = {"addresses": ["10.0.0.7"], "user_header": "X-User", "operators": ["ada"]}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"addresses": ["10.0.0.0/8", "::1", "fd00::/8"]},
        {"tenants": {"alpha": ["bob"], "beta": []}},
        {"groups_header": "X-Groups", "operators": ["group:platform"]},
        {"operators": [], "tenants": {"alpha": ["bob@example.com"]}},
    ],
)
def test_a_good_list_is_taken(tmp_path: Path, values: dict[str, Any]) -> None:
    assert problems(tmp_path, changed(WHERE, {**GOOD, **values})) == []


@pytest.mark.parametrize(
    ("values", "at", "message"),
    [
        ({"addresses": ["proxy"]}, "addresses[0]", "is neither an IP address nor a network"),
        ({"addresses": ["10.0.0.7/8"]}, "addresses[0]", "is neither an IP address nor a network"),
        ({"addresses": ["0.0.0.0/0"]}, "addresses[0]", "would believe everybody"),
        ({"addresses": ["::/0"]}, "addresses[0]", "would believe everybody"),
        ({"addresses": []}, "addresses", "must not be empty"),
        ({"user_header": "X User"}, "user_header", "a header's name is"),
        ({"user_header": ""}, "user_header", "a header's name is"),
        ({"operators": ["ada, bob"]}, "operators[0]", "has no commas"),
        ({"operators": [" ada"]}, "operators[0]", "no spaces around it"),
        ({"operators": ["ada", "ada"]}, "operators[1]", "`ada` is listed twice"),
        ({"tenants": {"alpha": ["ada"]}}, "tenants.alpha[0]", "`ada` is listed twice"),
        ({"operators": ["group:x"]}, "operators[0]", "`group:x` is a group, and none are read"),
        ({"tenants": {"alfa": ["bob"]}}, "tenants.alfa", "no tenant is called `alfa`"),
        ({"operators": []}, "", "nobody is listed"),
        ({"header": "x"}, "header", "unknown key `header`"),
    ],
)
def test_a_bad_list_is_refused_where_it_is_bad(
    tmp_path: Path, values: dict[str, Any], at: str, message: str
) -> None:
    problem = the_problem(tmp_path, changed(WHERE, {**GOOD, **values}))
    assert problem.path == f"gateway.trusted_proxies{at and '.'}{at}"
    assert message in problem.message


@pytest.mark.parametrize("key", ["addresses", "user_header"])
def test_what_is_needed_is_named(tmp_path: Path, key: str) -> None:
    values = {name: value for name, value in GOOD.items() if name != key}
    assert f"`{key}` is missing" in the_problem(tmp_path, changed(WHERE, values)).message
