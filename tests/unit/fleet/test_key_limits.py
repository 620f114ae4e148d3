"""Names and limits of declared keys: read, written back, and refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.diff import Needs, differences
from fleet.loader import load_fleet
from fleet.problems import FleetError
from fleet.types import KeyLimits
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, digest, write

LIMITS = ("max_concurrency", "max_queued", "requests_per_minute", "tokens_per_minute", "monthly_tokens")


def with_key(**settings: Any) -> dict[str, Any]:
    keys = [{"sha256": digest("beta"), **settings}, {"sha256": digest("second")}]
    return changed("tenants/beta/api_keys", keys)


def test_a_key_may_have_a_name_and_limits_and_is_written_back_with_them(tmp_path: Path) -> None:
    path = write(tmp_path, with_key(name="ci", max_concurrency=4, max_queued=0, monthly_tokens=10**6))
    fleet = load_fleet(path)
    beta = fleet.tenants["beta"]
    assert beta.key_limits == {
        digest("beta"): KeyLimits(max_concurrency=4, max_queued=0, monthly_tokens=10**6)
    }
    assert beta.key_names == {digest("beta"): "ci"} and len(beta.key_hashes) == 2
    path.write_text(write_fleet(fleet, key_variables={}))
    assert load_fleet(path).tenants["beta"] == beta


def test_a_changed_limit_of_a_key_is_told_in_words_and_needs_no_restart(tmp_path: Path) -> None:
    before = load_fleet(write(tmp_path, with_key(name="ci", max_concurrency=4)))
    after = load_fleet(write(tmp_path, with_key(name="batch", monthly_tokens=100)))
    changes = differences(before, after)
    key = f"tenant beta: key {digest('beta')[:16]}..."
    assert sorted(map(str, changes)) == sorted(
        [
            f"{key} name ci -> batch",
            f"{key} max_concurrency 4 -> none",
            f"{key} monthly_tokens none -> 100",
        ]
    )
    assert {change.needs for change in changes} == {Needs.NOTHING}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [-1, "4", True, 1.5, [1], 10**15 + 1])
def test_a_limit_that_is_none_is_refused_by_name_and_no_key_is_shown(
    tmp_path: Path, name: str, value: Any
) -> None:
    with pytest.raises(FleetError) as refused:
        load_fleet(write(tmp_path, with_key(**{name: value})))
    assert name in str(refused.value) and digest("beta") not in str(refused.value)
    assert "not an API key entry" not in str(refused.value) and "must be" in str(refused.value)


def test_a_mistyped_limit_is_told_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="did you mean `requests_per_minute`"):
        load_fleet(write(tmp_path, with_key(request_per_minute=4)))


def test_an_operators_key_has_no_limits(tmp_path: Path) -> None:
    keys = [{"sha256": digest("operator"), "max_concurrency": 4}]
    with pytest.raises(FleetError, match="max_concurrency"):
        load_fleet(write(tmp_path, changed("gateway/operator_keys", keys)))
