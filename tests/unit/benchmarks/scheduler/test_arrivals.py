"""Arrivals are the same for everybody, and as popular as was asked."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from statistics import mean, pstdev

import pytest

from benchmarks.scheduler.arrivals import Demand, Prompts, merged
from benchmarks.scheduler.fleet import Shape

SHAPE = Shape(adapters=12, tenants=4)
DEMAND = Demand(SHAPE)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    first, second = (DEMAND.steady(random.Random(1), 50.0, 5.0) for _ in range(2))
    assert first == second
    assert first != DEMAND.steady(random.Random(2), 50.0, 5.0)


def test_arrivals_come_in_order_within_the_time_and_about_as_often_as_asked() -> None:
    found = DEMAND.steady(random.Random(1), 50.0, 100.0)
    assert [a.at_s for a in found] == sorted(a.at_s for a in found)
    assert 0 <= found[0].at_s < found[-1].at_s < 100.0
    assert len(found) == pytest.approx(5000, rel=0.05)
    assert not any(a.flood for a in found)


def test_every_adapter_is_asked_for_by_its_owner_as_often_as_it_is_popular() -> None:
    found = DEMAND.steady(random.Random(1), 100.0, 200.0)
    assert all(SHAPE.owner(a.adapter) == a.tenant for a in found)
    counts = Counter(a.adapter for a in found)
    assert counts[0] / counts[1] == pytest.approx(2.0, rel=0.1)
    assert counts[0] / counts[11] == pytest.approx(12.0, rel=0.3)


def test_shares_of_all_tenants_are_everything() -> None:
    assert sum(DEMAND.share(tenant) for tenant in range(SHAPE.tenants)) == pytest.approx(1.0)
    assert DEMAND.share(0) > DEMAND.share(3)


def test_gaps_are_those_of_a_poisson_process() -> None:
    times = [a.at_s for a in Demand(Shape(adapters=1, tenants=1)).steady(random.Random(1), 100.0, 300.0)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert pstdev(gaps) / mean(gaps) == pytest.approx(1.0, rel=0.1)


def test_a_flood_is_one_tenants_and_is_marked() -> None:
    found = DEMAND.flood(random.Random(1), 2, 50.0, 10.0)
    assert {(a.tenant, a.flood) for a in found} == {(2, True)}
    assert {a.adapter for a in found} == {2, 6, 10}


def test_merged_lists_are_one_by_time() -> None:
    steady, flood = DEMAND.steady(random.Random(1), 20.0, 5.0), DEMAND.flood(random.Random(1), 2, 50.0, 5.0)
    both = merged(steady, flood)
    assert [a for a in both if not a.flood] == steady
    assert len(both) == len(steady) + len(flood)
    assert [a.at_s for a in both] == sorted(a.at_s for a in both)


def test_prompts_have_the_same_words_in_ever_another_order() -> None:
    prompts = Prompts("a")
    found = [prompts.next() for _ in range(500)]
    assert len(set(found)) == 500
    assert len({tuple(sorted(prompt.split())) for prompt in found}) == 1
    assert not set(found) & {Prompts("b").next() for _ in range(1)}
    assert Prompts("a").next() == found[0]
