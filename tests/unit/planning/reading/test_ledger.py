"""The ledger: what its records say of demand and of engines, and what it is not brought to do."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from planning.reading.ledger import naming_of, read_added, read_ledger, read_observed, read_switches
from planning.reading.request_log import plain_name
from planning.requests import DemandError
from planning.served import Added, Came
from routing.catalog.entries import AdapterKey, Alias
from routing.catalog.sources import Upload
from routing.state import Note, StateStore, TurnsStore
from routing.types import Outcome
from routing.usage.store import UsageStore
from tests.unit.routing.usage.made import NOON_S, record, rows


def test_records_tell_requests_and_what_engines_did(store: UsageStore, url: str) -> None:
    store.write(rows(record(), record("b", adapter=False), record(outcome=Outcome.REJECTED)))
    asked, served = read_ledger(url, plain_name)
    assert asked.model == ["a/a-support", "b/support", "a/a-support"]
    assert asked.tenant == ["a", "b", "a"]
    assert all(ended - took < NOON_S + 1 for ended, took in zip(asked.time_s, asked.took_s, strict=True))
    assert len(served) == 2
    assert served.adapter == ["a/a-support", ""]
    assert served.run_s[0] > 0


def test_first_tokens_of_streams_are_told_from_the_grant_on(store: UsageStore, url: str) -> None:
    whole = record(first_byte_s=1.9)
    store.write(rows(record(stream=True, first_byte_s=0.9), whole, record(stream=True)))
    served = read_ledger(url, plain_name)[1]
    assert served.first_s[0] == pytest.approx(0.4)
    assert [math.isnan(first_s) for first_s in served.first_s] == [False, True, True]


def test_what_was_measured_is_told_by_model_and_by_pool(store: UsageStore, url: str) -> None:
    stream = record(stream=True, first_byte_s=0.9, engine_s=0.5, switch_s=0.25)
    late = record(outcome=Outcome.EXPIRED, replica=None, queue_s=None)
    untold = record(prompt_tokens=0, completion_tokens=0, engine_s=0.0)
    store.write(rows(stream, record("b", adapter=False), late, untold))
    seen = read_observed(url, plain_name, {"shared": 2}, since_s=0.0, now_s=NOON_S + 60)
    assert seen.models["a/a-support"].requests == 2
    assert seen.models["a/a-support"].first_s == [0.9, math.inf]
    assert (seen.models["b/support"].requests, seen.models["b/support"].first_s) == (1, [])
    (hour,) = seen.pools["shared"].switch_s
    assert (seen.pools["shared"].hosts, seen.pools["shared"].switch_s[hour]) == (2, 0.25)
    assert hour == NOON_S // 3600


def test_a_ledger_that_is_younger_than_asked_for_counts_from_its_beginning(
    store: UsageStore, url: str
) -> None:
    assert read_observed(url, plain_name, {}, since_s=0.0, now_s=NOON_S).length_s == 1.0
    store.write(rows(record()))
    assert read_observed(url, plain_name, {}, since_s=0.0, now_s=NOON_S + 60).from_s == NOON_S
    later = read_observed(url, plain_name, {}, since_s=NOON_S + 30, now_s=NOON_S + 60)
    assert (later.from_s, dict(later.models)) == (NOON_S + 30, {})


def test_how_models_came_is_told_by_way(store: UsageStore, url: str) -> None:
    assert read_switches(url) == []
    kept = StateStore(url)
    kept.open()
    TurnsStore(kept).keep_cost("mesh-0", "even", "odd", 8.0, "fork")
    kept.close()
    assert read_switches(url) == [Came("even", "fork", 8.0)]


def with_adapters(url: str, *keys: AdapterKey, declared: bool = False) -> None:
    """Adapters of rank 8 that answer."""
    kept = StateStore(url)
    kept.open()
    for key in keys:
        kept.add_adapter(key, "base", declared=declared)
        version = kept.add_version(key, source=Upload("x"), sha256=None)
        kept.describe(version, digest="d", rank=8, size_bytes=2**20)
        kept.route(key, live=version.number, previous=None, rollout=None)
    kept.close()


def test_adapters_that_were_added_at_run_time_are_told(store: UsageStore, url: str) -> None:
    assert read_added(url) == []
    with_adapters(url, AdapterKey("a", "tone"), AdapterKey(None, "all"))
    with_adapters(url, AdapterKey(None, "declared"), declared=True)
    assert sorted(read_added(url), key=lambda one: one.name) == [
        Added("", "all", "base", 8, 2**20),
        Added("a", "tone", "base", 8, 2**20),
    ]


def test_names_that_tenants_were_given_at_run_time_are_known(store: UsageStore, url: str) -> None:
    kept = StateStore(url)
    kept.open()
    kept.set_alias(Alias("a", "chat", "base", NOON_S, "x"), Note("x", "tenant a", "alias"))
    kept.close()
    named = naming_of(url, plain_name)
    assert [named("a#1", "chat", ""), named("a", "chat", "tone"), named("b", "chat", "")] == [
        "base",
        "a/tone",
        "b/chat",
    ]


def test_the_ledger_of_a_gateway_that_runs_is_read_beside_it(store: UsageStore, url: str) -> None:
    store.write(rows(record()))
    read_ledger(url, plain_name)
    store.write(rows(record(), start="another"))
    assert len(read_ledger(url, plain_name)[0]) == 2
    store.close()
    assert len(read_ledger(url, plain_name)[0]) == 2


def test_only_the_time_that_is_asked_for_counts(store: UsageStore, url: str) -> None:
    store.write(rows(record()))
    with pytest.raises(DemandError, match="no request yet"):
        read_ledger(url, plain_name, since_s=NOON_S + 1e6)


def test_an_empty_ledger_says_what_to_do(store: UsageStore, url: str) -> None:
    with pytest.raises(DemandError, match="serve for some days, or give a table or a trace"):
        read_ledger(url, plain_name)


def test_a_ledger_in_a_folder_with_a_space_is_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a%20folder/state.db"
    made = UsageStore(url)
    made.open()
    made.write(rows(record()))
    made.close()
    assert len(read_ledger(url, plain_name)[0]) == 1


def test_a_missing_ledger_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DemandError, match="cannot be opened: has the fleet served on this machine"):
        read_ledger(f"sqlite:///{tmp_path}/state.db", plain_name)
    assert not list(tmp_path.iterdir())


def test_a_database_of_another_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE usage_records (id TEXT, at_s REAL)")
    with pytest.raises(DemandError, match="no such column"):
        read_ledger(f"sqlite:///{path}", plain_name)
    path.write_bytes(b"no database at all, but long enough to be looked at as one, header and all" * 20)
    with pytest.raises(DemandError, match="not a database"):
        read_ledger(f"sqlite:///{path}", plain_name)
