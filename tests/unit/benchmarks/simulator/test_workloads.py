"""What arrives, and that it is the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.simulator.workloads import (
    CONV,
    NOISY,
    Flood,
    Workload,
    poisson_arrivals,
    popularity,
    sharegpt,
)


def test_the_same_seed_gives_the_same_calls_and_another_one_others() -> None:
    workload = Workload(20, 5.0, CONV, duration_s=60.0)
    one, same, other = (workload.calls(seed) for seed in (1, 1, 2))
    assert [(c.at_s, c.adapter, c.prompt_tokens) for c in one] == [
        (c.at_s, c.adapter, c.prompt_tokens) for c in same
    ]
    assert [c.at_s for c in one] != [c.at_s for c in other]


def test_calls_come_in_order_at_the_rate_and_within_the_time() -> None:
    calls = Workload(50, 20.0, CONV, duration_s=200.0).calls(1)
    times = [call.at_s for call in calls]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 200.0
    assert len(calls) == pytest.approx(4000, rel=0.1)


def test_popularity_follows_zipfs_law_and_levels_take_its_place() -> None:
    assert popularity(3, 1.0) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert popularity(4, 0.0) == pytest.approx([0.25] * 4)
    assert Workload(3, 99.0, CONV, levels_per_s=(0.2, 0.1)).rates_per_s() == [0.2, 0.1, 0.2]


def test_gaps_are_those_of_a_poisson_process() -> None:
    gaps = np.diff(poisson_arrivals(np.random.default_rng(3), 10.0, 20_000.0))
    assert gaps.mean() == pytest.approx(0.1, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, rel=0.05)


def test_a_flood_comes_from_one_tenant_over_its_adapters() -> None:
    workload = Workload(10, 1.0, CONV, duration_s=100.0, flood=Flood(20.0, adapters=4))
    noisy = [call for call in workload.calls(1) if call.tenant == NOISY]
    assert len(noisy) == pytest.approx(2000, rel=0.1)
    assert set(Counter(call.adapter for call in noisy)) == set(workload.tenants()[NOISY])


def test_fits_have_about_the_means_of_their_traces() -> None:
    drawn = np.array(CONV.draw(np.random.default_rng(1), 50_000))
    assert drawn.mean(axis=0) == pytest.approx([1155, 211], rel=0.08)
    assert drawn.min() >= 1
    drawn = np.array(sharegpt(222.0, 195.0).draw(np.random.default_rng(1), 50_000))
    assert drawn.mean(axis=0) == pytest.approx([222, 195], rel=0.08)
