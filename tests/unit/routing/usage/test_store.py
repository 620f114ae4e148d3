"""Does every row count once, whatever is tried twice? On SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import make_url

from routing.errors import StateUnavailable
from routing.state import database
from routing.types import Outcome
from routing.usage.query import MAX_ROWS, UsageLine, read_query
from routing.usage.store import CHUNK, UsageStore
from tests.unit.routing.usage.made import NOON_S, TODAY, days_ago, record, rows


def sums(store: UsageStore, tenant: str | None = None, **fields: str) -> list[UsageLine]:
    return store.sums(read_query(fields, now_s=NOON_S, tenant=tenant))


def total(store: UsageStore, **fields: str) -> UsageLine:
    (line,) = sums(store, **fields)
    return line


def test_what_is_written_is_added_up_in_every_measure(store: UsageStore) -> None:
    assert store.write(rows(record(), record(estimated=True, prompt_tokens=1, switch_s=2.5))) == 2
    assert total(store) == {
        "requests": 2, "estimated_requests": 1,
        "prompt_tokens": 11, "completion_tokens": 10, "cached_tokens": 8,
        "queue_s": 1.0, "run_s": 3.0, "slot_s": 3.0, "engine_s": 1.5, "switch_s": 2.5,
        "priced_requests": 0, "cost": 0,
    }  # fmt: skip


def test_rows_that_are_written_again_count_once(store: UsageStore) -> None:
    first, second = rows(record(), record())
    assert store.write([first]) == 1
    assert store.write([first, second]) == 1
    assert store.write([first, second]) == 0
    assert total(store)["requests"] == 2


def test_a_row_that_is_twice_in_a_batch_counts_once(store: UsageStore) -> None:
    first, second = rows(record(), record())
    assert store.write([first, second, first]) == 2
    assert store.write([first, second, first]) == 0
    assert total(store)["requests"] == 2


def test_an_unclear_end_of_a_transaction_is_cleared_up_by_writing_again(
    store: UsageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.engine.default import DefaultDialect
    from sqlalchemy.exc import OperationalError

    commit: Any = DefaultDialect.do_commit

    def commit_and_break(self: Any, connection: Any) -> None:
        commit(self, connection)
        raise OperationalError("COMMIT", None, ConnectionError("the answer was lost"))

    batch = rows(record(), record())
    with monkeypatch.context() as patched:
        patched.setattr(DefaultDialect, "do_commit", commit_and_break)
        with pytest.raises(StateUnavailable):
            store.write(batch)
    assert store.write(batch) == 0
    assert total(store)["requests"] == 2


def test_lines_are_split_by_what_is_asked_for_and_are_in_order(store: UsageStore) -> None:
    store.write(rows(record("b"), record("a", "sales"), record("a"), record("a", adapter=False)))
    store.write(rows(record("a", outcome=Outcome.CANCELLED), at_s=days_ago(1)))
    found = sums(store, group_by="outcome,tenant,day,adapter")
    assert [(n["day"], n["tenant"], n["adapter"], n["outcome"], n["requests"]) for n in found] == [
        ("2026-01-08", "a", "a-support", "cancelled", 1),
        (TODAY, "a", None, "completed", 1),
        (TODAY, "a", "a-sales", "completed", 1),
        (TODAY, "a", "a-support", "completed", 1),
        (TODAY, "b", "b-support", "completed", 1),
    ]


def test_days_are_included_from_the_first_to_the_last_and_tenants_are_kept_apart(store: UsageStore) -> None:
    for days in (0, 1, 2, 3):
        store.write(rows(record("a"), record("b"), at_s=days_ago(days), start=f"{days:012}"))
    asked = {"from": "2026-01-07", "to": "2026-01-08"}
    assert total(store, **asked)["requests"] == 4
    assert [line["requests"] for line in sums(store, "a", **asked)] == [2]
    assert sums(store, "a", group_by="tenant", **asked)[0]["tenant"] == "a"
    assert sums(store, "nobody", group_by="day", **asked) == []


def test_a_months_tokens_are_those_of_its_days_alone(store: UsageStore) -> None:
    store.write(rows(record("a"), record("b"), record("c")))
    store.write(rows(record("a"), at_s=days_ago(9)))
    assert store.used(["a", "b", "nobody"], "2026-01-01", "2026-02-01") == {"a": (15, 0), "b": (15, 0)}


def test_old_records_are_deleted_their_sums_stay_and_go_later(store: UsageStore) -> None:
    store.write(rows(*[record()] * (CHUNK + 1), at_s=days_ago(40), start="a" * 12))
    store.write(rows(record()))
    horizon = days_ago(30)
    assert store.prune(horizon, "2020-01-01") == CHUNK
    assert store.prune(horizon, "2020-01-01") == 1
    assert store.prune(horizon, "2020-01-01") == 0
    assert total(store, **{"from": "2025-01-01"})["requests"] == CHUNK + 2
    assert store.prune(horizon, "2026-01-01") == 1
    assert total(store, **{"from": "2025-01-01"})["requests"] == 1


def test_at_most_one_line_more_than_may_be_shown_is_read(store: UsageStore) -> None:
    store.write(rows(*(record(model=f"m{number}") for number in range(MAX_ROWS + 5))))
    assert len(sums(store, group_by="model")) == MAX_ROWS + 1


def test_several_gateways_may_write_and_replay_the_same_at_once(url: str) -> None:
    """Each writes rows of its own, and rows that all have, as after a start in which a journal is shared."""
    shared = rows(*(record(f"t{number % 5}") for number in range(50)), start="f" * 12)
    failures: list[Exception] = []

    def write(number: int) -> None:
        store = UsageStore(url, lock_wait_s=30)
        try:
            store.open()
            for turn in range(4):
                mine = rows(*(record(f"t{n % 5}") for n in range(25)), start=f"{number}{turn}".zfill(12))
                patiently(store, [*shared, *mine] if turn % 2 else [*mine, *shared])
        except Exception as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    store = UsageStore(url)
    store.open()
    assert total(store)["requests"] == 50 + 3 * 4 * 25
    store.close()


def patiently(store: UsageStore, batch: list[Any]) -> None:
    """Write as the ledger does, again where somebody else is writing the same rows."""
    for _ in range(20):
        try:
            store.write(batch)
        except StateUnavailable:
            continue
        return
    raise AssertionError("never written")


def test_a_store_that_is_not_open_says_so() -> None:
    with pytest.raises(StateUnavailable, match="not open"):
        UsageStore("sqlite:////nowhere/state.db").write(rows(record()))


def test_a_batch_that_fails_leaves_nothing_behind(store: UsageStore, url: str) -> None:
    engine = database.connect(make_url(url), wait_s=1)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE usage_days RENAME TO elsewhere")
    with pytest.raises(StateUnavailable):
        store.write(rows(record()))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO usage_days")
    engine.dispose()
    assert store.write(rows(record())) == 1, "neither half was there"
    assert total(store)["requests"] == 1


def test_costs_are_added_up_exactly_and_requests_without_one_are_told_apart(store: UsageStore) -> None:
    store.write(rows(record(cost=1), record(cost=2**40), record()))
    store.write(rows(record(cost=2), record("b"), start="abcdefabcdef"))
    found = {
        line["tenant"]: (line["priced_requests"], line["cost"]) for line in sums(store, group_by="tenant")
    }
    assert found == {"a": (3, 2**40 + 3), "b": (0, 0)}
    assert store.used(["a", "b"], "2026-01-01", "2026-02-01") == {"a": (60, 2**40 + 3), "b": (15, 0)}
