"""Is every difference said in the same words, wherever it comes from, and without secrets?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.changes import values_of
from fleet.diff import differences
from fleet.entries import differences as differences_of
from fleet.types import Budget, Caps, Fleet
from fleet.wording import in_words, words_of
from tests.fakes import small_fleet

FLEET = small_fleet()


@pytest.mark.parametrize(
    ("path", "was", "now", "words"),
    [
        ("weight", 1.0, 2.5, ["weight 1 -> 2.5"]),
        ("caps.requests_per_minute", None, 60, ["requests_per_minute none -> 60"]),
        ("caps", {"max_queued": 1}, {"max_queued": 2}, ["max_queued 1 -> 2"]),
        ("budget.monthly_cost", 1234567.25, 12345678.5, ["monthly_cost 1234567.25 -> 12345678.5"]),
        ("budget", {"monthly_tokens": 5}, None, ["monthly_tokens 5 -> none"]),
        ("suspended", None, True, ["suspended none -> yes"]),
        ("log_requests", True, False, ["log_requests yes -> no"]),
        ("pools", ["a", "b"], [], ["pools a, b -> none"]),
        ("tenants", ["a", "b"], ["b", "c"], ["tenant a leaves", "tenant c joins"]),
        ("replicas", None, ["p-0"], ["replica p-0 joins"]),
        ("models.source", "base", None, ["alias source base -> none"]),
        ("aliases.latest", "v1", "v2", ["alias latest v1 -> v2"]),
        (
            "models",
            {"x": "y"},
            {"x": {"model": "y", "fallback": "z"}},
            ["alias x y -> model y, fallback z"],
        ),
        ("note", {}, {"x": {}}, ["x none -> none"]),
        ("source", "https://user:password@a/", "https://user:password@b/", ["source changed"]),
        ("adapter_sources", [], ["https://user:password@a/"], ["adapter_sources changed"]),
        ("adapter_sources", None, [], []),
        ("tracing.endpoint", "http://a", None, ["endpoint changed"]),
    ],
)
def test_a_difference_is_said_in_the_words_of_the_file(
    path: str, was: Any, now: Any, words: list[str]
) -> None:
    assert list(words_of(path, was, now)) == words


def test_a_key_is_shown_by_the_beginning_of_its_hash() -> None:
    was = [{"sha256": "a" * 64}, {"sha256": "b" * 64, "name": "ci"}]
    now = [{"sha256": "b" * 64, "name": "batch"}, {"sha256": "c" * 64}]
    assert list(words_of("api_keys", was, now)) == [
        f"key {'a' * 16}... removed",
        f"key {'c' * 16}... added",
        f"key {'b' * 16}... name ci -> batch",
    ]


def test_a_long_value_is_cut() -> None:
    (text,) = words_of("models.x", "y" * 300, None)
    assert len(text) < 130 and text.endswith("... -> none")


@pytest.mark.parametrize(
    "changes",
    [
        {"caps": Caps(requests_per_minute=120)},
        {"budget": Budget(1000)},
        {"weight": 2.5, "suspended": True},
        {"models": FLEET.tenants["a"].models | {"plain": "a-sales"}},
        {"adapter_sources": ("https://user:password@host/",)},
    ],
)
def test_a_tenant_changed_at_run_time_is_told_as_one_changed_in_the_file(changes: dict[str, Any]) -> None:
    after: Fleet = replace(FLEET, tenants=FLEET.tenants | {"a": replace(FLEET.tenants["a"], **changes)})
    at_run_time = in_words(differences_of(values_of(FLEET, "a"), values_of(after, "a")))
    assert sorted(at_run_time) == sorted(change.text for change in differences(FLEET, after))
