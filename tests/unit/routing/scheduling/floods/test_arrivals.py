"""How much has each tenant sent lately?"""

from __future__ import annotations

import math

import pytest

from routing.scheduling.floods.arrivals import LATELY_S, REMEMBERED_S, Arrivals


def test_a_request_counts_less_the_older_it_is() -> None:
    arrivals = Arrivals()
    arrivals.count("a", 100.0)
    assert arrivals.lately("a", 100.0) == 1.0
    assert arrivals.lately("a", 100.0 + LATELY_S) == pytest.approx(math.exp(-1))
    arrivals.count("a", 100.0 + LATELY_S)
    assert arrivals.lately("a", 100.0 + LATELY_S) == pytest.approx(1 + math.exp(-1))


def test_a_steady_stream_counts_as_its_rate_times_how_long_is_lately() -> None:
    arrivals = Arrivals()
    for number in range(2000):
        arrivals.count("a", number / 100)
    assert arrivals.lately("a", 20.0) == pytest.approx(100 * LATELY_S, rel=0.01)


def test_a_tenant_is_remembered_for_a_while_after_its_last_request() -> None:
    arrivals = Arrivals()
    arrivals.count("a", 100.0)
    arrivals.count("a", 104.0)
    assert arrivals.tenants(103.9 + REMEMBERED_S) == {"a"}
    assert not arrivals.tenants(104.0 + REMEMBERED_S)
    assert arrivals.lately("a", 104.0 + REMEMBERED_S) == 0.0


def test_who_never_sent_anything_has_sent_nothing() -> None:
    assert Arrivals().lately("a", 1.0) == 0.0
