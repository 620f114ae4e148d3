"""What is kept of a request?"""

from __future__ import annotations

from routing.types import Outcome
from routing.usage.entries import COLUMNS, COST, FIRST_COLUMNS, Entries, day_of, id_at, tokens_of, whole
from tests.unit.routing.usage.made import NOON_S, TODAY, days_ago, record, rows


def as_mapping(row: tuple[object, ...]) -> dict[str, object]:
    return dict(zip(COLUMNS, row, strict=True))


def test_a_row_says_whose_request_it_was_how_it_ended_and_what_it_used() -> None:
    (row,) = rows(record(estimated=True))
    found = as_mapping(row)
    assert found.pop("id") == f"{id_at(NOON_S)}0123456789ab00000000"
    assert found == {
        "at_s": NOON_S, "day": TODAY, "request_id": "x",
        "tenant": "a", "model": "support", "adapter": "a-support", "version": 3,
        "pool": "shared", "replica": "shared-0", "outcome": "completed", "reason": "",
        "prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4, "estimated": True,
        "queue_s": 0.5, "run_s": 1.5, "slot_s": 1.5, "engine_s": 0.75, "cost": None, "fallback_of": None,
        "key": "k1", "switch_s": None, "first_s": None,
    }  # fmt: skip
    assert tokens_of(row) == 15


def test_only_a_stream_tells_when_its_answer_began() -> None:
    stream, whole = rows(record(stream=True, first_byte_s=0.7), record(first_byte_s=1.9))
    assert (as_mapping(stream)["first_s"], as_mapping(whole)["first_s"]) == (0.7, None)


def test_what_never_ran_waited_all_of_its_time() -> None:
    (row,) = rows(record(outcome=Outcome.EXPIRED, queue_s=None, total_s=30.0, replica=None))
    assert (as_mapping(row)["queue_s"], as_mapping(row)["run_s"]) == (30.0, 0.0)
    assert as_mapping(row)["replica"] == ""


def test_the_base_model_has_no_adapter_and_no_version() -> None:
    (row,) = rows(record(adapter=False))
    assert (as_mapping(row)["adapter"], as_mapping(row)["version"]) == ("", 0)


def test_ids_are_in_the_order_of_time_and_none_comes_twice() -> None:
    entries = Entries("0123456789ab")
    ids = [entries.row(record(ended_at_s=NOON_S + second // 4))[0] for second in range(100)]
    assert ids == sorted(set(ids), key=str)
    assert str(ids[0]) < id_at(NOON_S + 1) < str(ids[-1])


def test_the_day_is_that_of_the_end_in_utc() -> None:
    entries = Entries("0123456789ab")
    midnight = NOON_S + 12 * 3600
    days = [
        entries.row(record(ended_at_s=at_s))[2] for at_s in (midnight - 0.001, midnight, midnight - 0.001)
    ]
    assert days == ["2026-01-09", "2026-01-10", "2026-01-09"], "a clock may be set back"
    assert day_of(days_ago(9)) == "2025-12-31"


def test_a_row_has_what_its_request_cost() -> None:
    (row,) = rows(record(cost=1_250))
    assert row[COST] == 1_250


def test_a_row_of_an_earlier_release_has_no_cost_and_half_a_row_is_none() -> None:
    (row,) = rows(record(cost=1_250))
    assert whole(row) == row
    assert whole(row[:FIRST_COLUMNS]) == (*row[:FIRST_COLUMNS], *[None] * (len(COLUMNS) - FIRST_COLUMNS))
    assert whole(row[: FIRST_COLUMNS - 1]) is None
    assert whole((*row, 1)) is None
