"""Costs from served requests: those of an engine that is known come out, noise and stalls notwithstanding."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from planning.catalogue import BY_KIND
from planning.costs import cost_of, roofline
from planning.fitting import as_cost, fitted, measured_by, nonnegative
from planning.served import Served
from planning.values import Kind, Model, Source

BASE, SEQUENCE, ADAPTER, PREFILL = 0.02, 0.001, 0.004, 2e-4


def served(
    rate: float, *, adapters: int = 6, count: int = 1500, first: bool = True, adapter_token_s: float = 0.0
) -> Served:
    """An engine that batches continuously, with requests by chance at a rate that goes up and down."""
    chance = np.random.default_rng(1)
    at = np.cumsum(chance.exponential(1 / rate, count) * (1 + 0.8 * np.sin(np.arange(count) / 100)))
    prompt, tokens = chance.integers(20, 600, count), chance.integers(5, 80, count)
    adapter = [f"a{number}" if number else "" for number in chance.integers(0, max(1, adapters), count)]
    found, running, coming, now = Served(), list[list[float]](), deque(range(count)), 0.0
    while running or coming:
        if not running:
            now = max(now, at[coming[0]])
        new = [coming.popleft() for _ in range(sum(at[i] <= now for i in list(coming)[:50]))]
        names = {adapter[int(one[0])] for one in running} | {adapter[i] for i in new}
        now += BASE + SEQUENCE * len(running) + ADAPTER * len(names - {""}) + PREFILL * sum(prompt[new])
        now += adapter_token_s * sum(prompt[i] for i in new if adapter[i])
        for one in running:
            one[1] -= 1
        running += [[i, tokens[i] - 1, now] for i in new]
        for index, _, first_at in [one for one in running if one[1] <= 0]:
            i = int(index)
            found.add(
                "replica-0",
                adapter[i] or "base",
                adapter[i],
                granted_s=at[i],
                run_s=now - at[i],
                tokens=(float(prompt[i]), float(tokens[i])),
                first_s=first_at - at[i] if first else float("nan"),
            )
        running = [one for one in running if one[1] > 0]
    return found


BASES = {f"a{number}": "base" for number in range(10)}


@pytest.mark.parametrize("first", [True, False], ids=["first tokens known", "only ends known"])
def test_the_costs_of_an_engine_come_out_of_what_it_served(first: bool) -> None:
    fit = fitted(served(3.0, first=first), BASES)["base"]
    assert fit.values["base_s"] == pytest.approx(BASE, rel=0.15)
    assert fit.values["sequence_s"] == pytest.approx(SEQUENCE, rel=0.35)
    assert fit.values["adapter_s"] == pytest.approx(ADAPTER, rel=0.25)
    assert fit.values["prefill_token_s"] == pytest.approx(PREFILL, rel=0.35)
    assert fit.error < 0.15


@pytest.mark.parametrize("more_s", [0.0, PREFILL, 3 * PREFILL])
def test_what_a_prompt_costs_more_for_an_adapter_is_told_apart(more_s: float) -> None:
    fit = fitted(served(2.0, adapter_token_s=more_s), BASES)["base"]
    assert fit.values["prefill_token_s"] == pytest.approx(PREFILL, rel=0.5)
    assert fit.values["adapter_token_s"] == pytest.approx(more_s, rel=0.35, abs=0.3 * PREFILL)


def test_where_all_ask_adapters_it_is_in_what_each_token_costs() -> None:
    all_ask = served(2.0, adapter_token_s=PREFILL)
    kept = [index for index, name in enumerate(all_ask.adapter) if name]
    only = Served()
    for index in kept:
        only.add(
            "replica-0",
            all_ask.model[index],
            all_ask.adapter[index],
            granted_s=all_ask.granted_s[index],
            run_s=all_ask.run_s[index],
            tokens=(all_ask.fresh[index], all_ask.completion[index]),
            first_s=all_ask.first_s[index],
        )
    fit = fitted(only, BASES)["base"]
    assert "adapter_token_s" not in fit.values
    assert fit.values["prefill_token_s"] == pytest.approx(2 * PREFILL, rel=0.35)


def test_stalls_do_not_count() -> None:
    found = served(2.0)
    for index in range(0, len(found), 40):
        found.run_s[index] *= 30
    fit = fitted(found, BASES)["base"]
    assert fit.values["base_s"] == pytest.approx(BASE, rel=0.3)


def test_what_does_not_vary_is_not_told() -> None:
    alone = Served()
    for number in range(200):
        alone.add(
            "r",
            "base",
            "",
            granted_s=number * 10.0,
            run_s=0.02 * (5 + number % 9),
            tokens=(0.0, 5.0 + number % 9),
        )
    fit = fitted(alone, {})["base"]
    assert "adapter_s" not in fit.values
    assert fit.values["base_s"] == pytest.approx(0.02, rel=0.01)


def test_too_few_requests_tell_nothing() -> None:
    assert fitted(served(2.0, count=20), BASES) == {}
    assert fitted(Served(), BASES) == {}


def test_requests_that_cannot_be_are_not_taken() -> None:
    found = Served()
    for run_s, tokens in (
        (0.0, (1.0, 1.0)),
        (1.0, (-1.0, 1.0)),
        (1.0, (1.0, 0.0)),
        (float("nan"), (1.0, 1.0)),
    ):
        found.add("r", "m", "", granted_s=0.0, run_s=run_s, tokens=tokens)
    assert len(found) == 0


def test_fitted_figures_take_the_place_of_computed_ones_and_say_how_good_they_are() -> None:
    model = Model("base", Kind.WHOLE, "", "", "", 10**9, parameters=5 * 10**8)
    cost = as_cost(fitted(served(3.0), BASES)["base"], roofline(model, BY_KIND["l4"]), "ledger")
    assert cost.base_s.source is Source.MEASURED
    assert cost.base_s.detail.startswith("ledger, 3000 requests, off by")
    assert cost.slot_s.source is Source.GIVEN


def test_a_fleet_that_served_has_measured_the_models_that_it_served_enough() -> None:
    base = Model("base", Kind.WHOLE, "", "", "shape", 10**9, parameters=5 * 10**8)
    idle = replace(base, name="idle")
    adapters = [Model(f"a{number}", Kind.ADAPTER, "base", "", "shape", 10**6) for number in range(6)]
    (one,) = measured_by(served(3.0), [base, idle, *adapters], BY_KIND["l4"], "ledger")
    assert (one.cost.model, one.shape, one.device) == ("base", "shape", BY_KIND["l4"])
    assert one.cost.base_s.value == pytest.approx(BASE, rel=0.15)
    assert cost_of(idle, BY_KIND["l4"], [one]).base_s.value == one.cost.base_s.value


def test_no_coefficient_is_below_nothing() -> None:
    chance = np.random.default_rng(4)
    terms = chance.random((100, 3)) + 0.1
    found = nonnegative(terms, terms @ np.array([1.0, 0.0, 2.0]) - 0.05 * terms[:, 1])
    assert found.min() >= 0
    assert found == pytest.approx([1.0, 0.0, 2.0], abs=0.1)
