"""Rules are off one at a time and back afterwards, and only what is beyond the spread of seeds counts."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import ablation
from benchmarks.ablation import BY_NAME, NOTHING, all_scenarios, moved, table, to_do
from benchmarks.ablation_rules import PLACEBO, RULES, Rule

SCENARIO = "fleet"


def figures(p99_s: float, tokens_per_s: float = 100.0) -> dict[str, Any]:
    return {
        "ttft_p99_s": p99_s,
        "neighbours_p99_s": float("nan"),
        "goodput_per_s": 5.0,
        "tokens_per_s": tokens_per_s,
    }


def runs(name: str, *p99_s: float, **others: float) -> dict[tuple[str, str, int], dict[str, Any]]:
    return {(name, SCENARIO, seed + 1): figures(value, **others) for seed, value in enumerate(p99_s)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_that_is_off_is_back_afterwards(rule: Rule) -> None:
    before = [getattr(owner, name) for owner, name, _ in rule.changes]
    with pytest.raises(ZeroDivisionError), rule.switched_off():
        assert all(
            getattr(owner, name) is not old
            for (owner, name, _), old in zip(rule.changes, before, strict=True)
        )
        raise ZeroDivisionError
    assert [getattr(owner, name) for owner, name, _ in rule.changes] == before
    assert bool(rule.changes) != bool(rule.settings)


def test_a_run_without_a_rule_comes_to_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ablation.OTHER_SECONDS, "two-engines", 4.0)
    found = {name: ablation.simulate((name, "two-engines flood", 1))[1] for name in (NOTHING, "floods")}
    assert found["floods"]["neighbours_p99_s"] > found[NOTHING]["neighbours_p99_s"]
    assert ablation.simulate((NOTHING, "two-engines flood", 1))[1] == found[NOTHING]


def test_what_moves_alike_with_every_seed_counts_and_what_the_seeds_scatter_does_not() -> None:
    base = runs(NOTHING, 1.0, 2.0, 3.0)
    assert moved(base | runs("floods", 1.3, 2.8, 3.9), "floods")[0][1].startswith("`fleet` p99 +33 %")
    assert not moved(base | runs("floods", 1.5, 1.5, 3.9), "floods")
    assert not moved(base | runs("floods", 1.01, 2.02, 3.03), "floods")


def test_less_throughput_is_worse_and_a_shorter_wait_is_better() -> None:
    done = runs(NOTHING, 1.0, 1.0) | runs("floods", 0.8, 0.8, tokens_per_s=90.0)
    line = list(table(done, ["floods"]))[-1]
    assert line == "| floods | 2 | `fleet` tokens/s -10 % (-10..-10) | `fleet` p99 -20 % (-20..-20) |"


def test_a_rule_that_changed_nothing_with_the_first_seed_is_not_run_with_the_others() -> None:
    seeds = 3
    done = runs(NOTHING, 1.0, 2.0, 3.0) | runs(PLACEBO.name, 1.0) | runs("floods", 1.5)
    left = {
        (name, seed)
        for name, where, seed in to_do(done, [PLACEBO.name, "floods"], seeds)
        if where == SCENARIO
    }
    assert left == {("floods", 2), ("floods", 3)}


def test_every_scenario_of_ours_is_simulated_and_every_rule_has_its_own_name() -> None:
    assert {"noisy", "overload", "starved 2 s promised", "two-engines flood"} <= set(all_scenarios())
    assert len(BY_NAME) == len(RULES) + 1
