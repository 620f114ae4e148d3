"""Findings: where they are, how they read, and what a wrong name may have been meant to be."""

from __future__ import annotations

import pytest

from fleet.problems import Findings, FleetError, Problem, did_you_mean, dotted


def test_a_problem_reads_as_place_path_message_and_remedy() -> None:
    assert (
        str(Problem("f.yaml", 3, "pools.a", "is wrong", "repair it"))
        == "f.yaml:3: pools.a: is wrong; repair it"
    )
    assert str(Problem("f.yaml", None, "", "is empty")) == "f.yaml: is empty"


def test_a_path_is_written_as_people_do() -> None:
    assert dotted(()) == ""
    assert dotted(("pools", "a", "tenants", 2)) == "pools.a.tenants[2]"
    assert dotted(("tenants", "a", "api_keys", 0, "env")) == "tenants.a.api_keys[0].env"


def test_a_finding_is_on_the_line_of_the_nearest_key_around_it() -> None:
    findings = Findings("f.yaml", {("a",): 1, ("a", "b"): 2})
    findings.error(("a", "b"), "x")
    findings.error(("a", "c", "d"), "x")
    findings.error(("z",), "x")
    assert [problem.line for problem in findings.errors] == [2, 1, None]


def test_all_errors_are_raised_in_the_order_of_their_lines() -> None:
    findings = Findings("f.yaml", {("a",): 9, ("b",): 2})
    findings.error(("a",), "later")
    findings.error(("b",), "sooner")
    findings.warn(("b",), "not an error")
    with pytest.raises(FleetError) as raised:
        findings.raise_errors()
    assert str(raised.value) == "f.yaml:2: b: sooner\nf.yaml:9: a: later"
    assert [problem.message for problem in findings.warnings] == ["not an error"]


def test_nothing_is_raised_where_nothing_is_wrong() -> None:
    Findings("f.yaml").raise_errors()


@pytest.mark.parametrize(
    ("wrong", "known", "hint"),
    [
        ("max_lora", ["max_loras", "source"], "did you mean `max_loras`?"),
        ("zzz", ["b", "a", "a"], "known: a, b"),
        ("zzz", [], ""),
        ("zzz", [f"n{i}" for i in range(13)], ""),
    ],
)
def test_a_close_name_is_suggested_and_a_few_are_listed(wrong: str, known: list[str], hint: str) -> None:
    assert did_you_mean(wrong, known) == hint
