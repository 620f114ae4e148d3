"""Observers of ended requests: told at once, or of several together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from routing.observing.ended import EndedRequests
from routing.types import Record
from tests.unit.routing.observing.metrics.scrapes import ended

RECORDS = [ended(number) for number in range(11)]


def test_records_wait_for_the_next_flush_and_come_in_order() -> None:
    told: list[list[Record]] = []
    requests = EndedRequests([], [lambda records: told.append(list(records))], size=10)
    for record in RECORDS[:3]:
        requests.add(record)
    assert told == []
    requests.flush()
    requests.flush()
    assert told == [RECORDS[:3]]


def test_who_is_told_at_once_does_not_wait_for_a_flush() -> None:
    told: list[tuple[str, Record]] = []
    requests = EndedRequests(
        [lambda record: told.append(("first", record)), lambda record: told.append(("second", record))],
        [lambda records: told.append(("batched", records[0]))],
    )
    requests.add(RECORDS[0])
    assert told == [("first", RECORDS[0]), ("second", RECORDS[0])]


def test_a_full_batch_does_not_wait_and_goes_to_every_observer() -> None:
    told: list[tuple[str, int]] = []
    requests = EndedRequests(
        [],
        [
            lambda records: told.append(("first", len(records))),
            lambda records: told.append(("second", len(records))),
        ],
        size=10,
    )
    for record in RECORDS:
        requests.add(record)
    assert told == [("first", 10), ("second", 10)]
    requests.flush()
    assert told[2:] == [("first", 1), ("second", 1)]


def test_what_ends_while_observers_are_told_is_in_the_next_batch() -> None:
    told: list[list[Record]] = []

    def observe(records: Sequence[Record]) -> None:
        told.append(list(records))
        if len(told) == 1:
            requests.add(RECORDS[2])

    requests = EndedRequests([], [observe], size=2)
    requests.add(RECORDS[0])
    requests.add(RECORDS[1])
    requests.flush()
    assert told == [RECORDS[:2], RECORDS[2:3]]


def test_what_an_observer_fails_on_is_not_told_again() -> None:
    told: list[Record] = []

    def fail(records: Sequence[Record]) -> None:
        told.extend(records)
        raise OSError("the disk is full")

    requests = EndedRequests([], [fail], size=2)
    requests.add(RECORDS[0])
    with pytest.raises(OSError, match="full"):
        requests.add(RECORDS[1])
    requests.flush()
    assert told == RECORDS[:2]
