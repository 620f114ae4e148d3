"""Things that are done for several at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from routing.observing.batch import Batch


def test_items_wait_for_the_next_flush_and_come_in_order() -> None:
    handled: list[list[int]] = []
    batch: Batch[int] = Batch(10, lambda items: handled.append(list(items)))
    for number in range(3):
        batch.add(number)
    assert handled == []
    batch.flush()
    batch.flush()
    assert handled == [[0, 1, 2]]


def test_a_full_batch_does_not_wait() -> None:
    handled: list[int] = []
    batch: Batch[int] = Batch(10, lambda items: handled.append(len(items)))
    for number in range(11):
        batch.add(number)
    assert handled == [10]
    batch.flush()
    assert handled == [10, 1]


def test_what_comes_while_a_batch_is_handled_is_in_the_next_one() -> None:
    handled: list[list[str]] = []

    def handle(items: Sequence[str]) -> None:
        handled.append(list(items))
        if len(handled) == 1:
            batch.add("later")

    batch = Batch(2, handle)
    batch.add("one")
    batch.add("two")
    batch.flush()
    assert handled == [["one", "two"], ["later"]]


def test_what_could_not_be_handled_is_not_handed_over_again() -> None:
    calls: list[int] = []

    def fail(items: Sequence[int]) -> None:
        calls.extend(items)
        raise OSError("the disk is full")

    batch = Batch(2, fail)
    batch.add(1)
    with pytest.raises(OSError, match="full"):
        batch.add(2)
    batch.flush()
    assert calls == [1, 2]
