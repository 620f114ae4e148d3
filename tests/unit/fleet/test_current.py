"""Is the fleet replaced whole, and do all that follow it learn of it?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.current import CurrentFleet
from fleet.types import Fleet
from tests.fakes import small_fleet

ONE = small_fleet()
OTHER = replace(ONE, tenants={"a": ONE.tenants["a"]})


def test_a_replacement_is_seen_through_every_table_before_anybody_is_told() -> None:
    current, seen = CurrentFleet(ONE), []
    names = current.derive(lambda fleet: sorted(fleet.tenants))

    def told(fleet: Fleet) -> None:
        seen.append((fleet is OTHER, current.now is OTHER, names.now))

    current.follow(told)
    assert names.now == ["a", "b", "c"]
    current.replace(OTHER, 7)
    assert seen == [(True, True, ["a"])]
    assert current.revision == 7


def test_a_table_that_cannot_be_made_leaves_all_as_it_was() -> None:
    current, told = CurrentFleet(ONE), list[Fleet]()
    first = current.derive(lambda fleet: len(fleet.tenants))
    second = current.derive(lambda fleet: fleet.tenants["b"].name)
    current.follow(told.append)
    with pytest.raises(KeyError):
        current.replace(OTHER, 1)
    assert (current.now, current.revision, first.now, second.now, told) == (ONE, 0, 3, "b", [])


def test_a_table_is_not_made_anew_when_it_is_read() -> None:
    made: list[Fleet] = []

    def make(fleet: Fleet) -> int:
        made.append(fleet)
        return len(made)

    table = CurrentFleet(ONE).derive(make)
    assert [table.now for _ in range(5)] == [1] * 5
