"""Who waits, and in what order?"""

from __future__ import annotations

from routing.backlog import Backlog
from routing.types import Request
from tests.unit.routing.requests import request

EQUAL = {"a": 0.0, "b": 0.0}.__getitem__


def backlog(band_rank: dict[str, int] | None = None) -> Backlog[Request]:
    return Backlog(lambda entry: entry, band_rank or {"a": 1, "b": 1})


def test_one_flow_is_first_come_first_served() -> None:
    waiting = backlog()
    first, second = request(arrived_s=1.0), request(arrived_s=2.0)
    waiting.push(first)
    waiting.push(second)
    assert waiting.heads(EQUAL) == [first]
    waiting.remove(first)
    assert waiting.heads(EQUAL) == [second]


def test_who_comes_back_from_a_broken_replica_keeps_its_age_and_holds_nobody_up() -> None:
    waiting = backlog()
    later, returned = request(arrived_s=2.0), request(arrived_s=1.0, failed_on=frozenset({"shared-0"}))
    waiting.push(later)
    waiting.push(returned)
    assert waiting.heads(EQUAL) == [returned, later]


def test_a_higher_band_comes_first_then_the_least_served_then_the_oldest() -> None:
    waiting = backlog({"a": 2, "b": 1})
    low, high = request("a", arrived_s=1.0), request("b", arrived_s=2.0)
    waiting.push(low)
    waiting.push(high)
    assert waiting.heads({"a": 0.0, "b": 9.0}.__getitem__) == [high, low]

    waiting = backlog()
    waiting.push(low)
    waiting.push(high)
    assert waiting.heads({"a": 9.0, "b": 0.0}.__getitem__) == [high, low]
    assert waiting.heads(EQUAL) == [low, high]


def test_an_entry_is_removed_from_anywhere_and_only_once() -> None:
    waiting = backlog()
    entries = [request(arrived_s=float(i)) for i in range(3)]
    for entry in entries:
        waiting.push(entry)
    assert waiting.remove(entries[1])
    assert not waiting.remove(entries[1])
    assert list(waiting) == [entries[0], entries[2]]
    assert len(waiting) == 2 and waiting.tenants == {"a"}


def test_an_empty_backlog_is_false_and_keeps_no_flow() -> None:
    waiting = backlog()
    waiting.push(request())
    assert waiting
    waiting.remove(request())
    assert not waiting and len(waiting) == 0 and waiting.tenants == set()
