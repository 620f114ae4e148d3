"""What is kept and what is refused, on both kinds of database."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import IllegalTransition
from adapters.states import TRANSITIONS, VersionState
from fleet.types import KeyLimits
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    ApiKey,
    KeyRole,
    Rollout,
    RolloutPlan,
    Version,
)
from routing.catalog.sources import Folder, Remote, Upload
from routing.errors import Conflict, NotFound, StateUnavailable
from routing.state import StateStore

KEY = AdapterKey("acme", "support")
DIGEST = "d" * 64
PLAN = RolloutPlan(weight=0.25, min_requests=7, promote_after=99, max_latency_ratio=3.5)
_S = VersionState
PATHS = {  # how a version comes to each state
    _S.REGISTERED: (),
    _S.FETCHING: (_S.FETCHING,),
    _S.VERIFYING: (_S.FETCHING, _S.VERIFYING),
    _S.READY: (_S.FETCHING, _S.VERIFYING, _S.READY),
    _S.QUARANTINED: (_S.FETCHING, _S.QUARANTINED),
    _S.RETIRED: (_S.RETIRED,),
}


def reloaded(store: StateStore) -> tuple[list[AdapterEntry], list[ApiKey]]:
    """What another process finds."""
    other = StateStore(store._url.render_as_string(hide_password=False))
    other.open()
    try:
        return other.load()
    finally:
        other.close()


def registered(store: StateStore, key: AdapterKey = KEY, count: int = 1) -> Version:
    """An adapter of so many versions; the last one."""
    store.add_adapter(key, "base", declared=False)
    return [store.add_version(key, source=Remote("s3://acme/x"), sha256=None) for _ in range(count)][-1]


def brought_to(store: StateStore, version: Version, state: VersionState) -> Version:
    for step in PATHS[state]:
        version = store.move(version, step)
    return version


def api_key(**changes: Any) -> ApiKey:
    key = ApiKey("k1", "tnt_abcd", "a" * 64, KeyRole.ADAPTERS, "acme", "CI", 1000.25, 2000.5)
    return replace(key, **changes)


def test_a_new_database_is_empty(store: StateStore) -> None:
    assert store.load() == ([], [])
    assert store.events(10) == []


def test_everything_survives_to_the_next_process(store: StateStore) -> None:
    before_s = time.time()
    assert store.add_adapter(KEY, "base", declared=False) == AdapterEntry(KEY, "base", False)
    first = store.add_version(KEY, source=Remote("s3://acme/x"), sha256="b" * 64)
    assert before_s <= first.created_s <= time.time()
    assert first == Version(
        first.id, KEY, 1, Remote("s3://acme/x"), _S.REGISTERED, sha256="b" * 64, created_s=first.created_s
    )
    first = store.move(first, _S.FETCHING)
    first = store.move(first, _S.VERIFYING, digest=DIGEST, rank=8, size_bytes=2**40)
    first = store.move(first, _S.READY)
    second = store.add_version(KEY, source=Upload("sent"), sha256=None)
    entry = store.route(KEY, live=1, previous=None, rollout=Rollout(2, PLAN))
    assert store.set_pinned(KEY, True) == replace(entry, pinned=True)
    store.add_key(api_key())
    ((found,), (key,)) = reloaded(store)
    assert found == AdapterEntry(
        KEY, "base", False, pinned=True, live=1, rollout=Rollout(2, PLAN), versions=(first, second)
    )
    assert (first.digest, first.rank, first.size_bytes, first.state) == (DIGEST, 8, 2**40, _S.READY)
    assert key == api_key()


def test_adapters_come_in_the_order_of_their_keys_and_versions_of_their_numbers(store: StateStore) -> None:
    keys = [AdapterKey("b", "x"), AdapterKey(None, "x"), AdapterKey("a", "y"), AdapterKey("a", "x")]
    for key in keys:
        registered(store, key, count=3)
    entries, _ = store.load()
    assert [entry.key for entry in entries] == [keys[1], keys[3], keys[2], keys[0]]
    assert all([version.number for version in entry.versions] == [1, 2, 3] for entry in entries)
    assert all(version.adapter == entry.key for entry in entries for version in entry.versions)


def test_two_tenants_may_use_the_same_name_and_nobody_twice(store: StateStore) -> None:
    for key in (KEY, AdapterKey("globex", KEY.name), AdapterKey(None, KEY.name)):
        store.add_adapter(key, "base", declared=key.tenant is None)
        with pytest.raises(Conflict, match="`support` exists already"):
            store.add_adapter(key, "other", declared=False)
    entries, _ = store.load()
    assert [(entry.key.tenant, entry.base_model) for entry in entries] == [
        (None, "base"), ("acme", "base"), ("globex", "base"),
    ]  # fmt: skip


UNKNOWN = AdapterKey("acme", "nothing")
NOWHERE = Version(4711, UNKNOWN, 1, Folder(""), _S.REGISTERED)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add_version(UNKNOWN, source=Folder(""), sha256=None),
        lambda store: store.route(UNKNOWN, live=None, previous=None, rollout=None),
        lambda store: store.set_pinned(UNKNOWN, True),
        lambda store: store.set_base_model(UNKNOWN, "base"),
        lambda store: store.remove(UNKNOWN),
        lambda store: store.move(NOWHERE, _S.FETCHING),
        lambda store: store.note(NOWHERE, "x"),
        lambda store: store.describe(NOWHERE, digest=DIGEST, rank=1, size_bytes=1),
        lambda store: store.revoke_key("nothing", 1.0),
        lambda store: store.route(KEY, live=2, previous=None, rollout=None),
        lambda store: store.route(KEY, live=None, previous=2, rollout=None),
        lambda store: store.route(KEY, live=1, previous=None, rollout=Rollout(2)),
    ],
)
def test_what_is_not_there_cannot_be_changed(store: StateStore, call: Callable[[StateStore], object]) -> None:
    registered(store)
    before = store.load()
    with pytest.raises(NotFound):
        call(store)
    assert store.load() == before


# -- states ------------------------------------------------------------------------------------------------

_numbers = itertools.count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.sampled_from(VersionState), max_size=6))
def test_allowed_moves_are_kept_and_refused_ones_change_nothing(
    store: StateStore, wanted: list[VersionState]
) -> None:
    key = AdapterKey("acme", f"a{next(_numbers)}")
    version = registered(store, key)
    for number, state in enumerate(wanted):
        before = store.load()
        if state in TRANSITIONS[version.state]:
            version = store.move(version, state, reason=f"step {number}")
            assert (version.state, version.reason) == (state, f"step {number}")
        else:
            with pytest.raises(IllegalTransition):
                store.move(version, state, reason="refused", digest=DIGEST, rank=1, size_bytes=1)
            assert store.load() == before
    assert next(e for e in store.load()[0] if e.key == key).versions == (version,)


@pytest.mark.parametrize("state", PATHS)
def test_a_version_that_somebody_else_moved_is_not_moved_again(
    store: StateStore, state: VersionState
) -> None:
    version = registered(store)
    brought_to(store, version, _S.QUARANTINED if state is _S.REGISTERED else state)
    before = store.load()
    with pytest.raises(Conflict, match=r"Version 1 of `support` is \w+ by now, not registered"):
        store.move(version, _S.FETCHING)
    with pytest.raises(Conflict):
        store.note(version, "stale", strike=True)
    with pytest.raises(Conflict):
        store.describe(version, digest=DIGEST, rank=1, size_bytes=1)
    assert store.load() == before


def test_a_reason_is_gone_with_the_next_move_and_what_is_known_of_the_files_stays(store: StateStore) -> None:
    version = brought_to(store, registered(store), _S.FETCHING)
    version = store.describe(version, digest=DIGEST, rank=8, size_bytes=5)
    version = store.move(version, _S.REGISTERED, reason="the source does not answer")
    assert version.reason == "the source does not answer"
    version = store.move(version, _S.FETCHING)
    assert (version.reason, version.digest, version.rank, version.size_bytes) == ("", DIGEST, 8, 5)


def test_strikes_are_counted_and_forgiven_when_a_version_leaves_quarantine(store: StateStore) -> None:
    version = brought_to(store, registered(store), _S.VERIFYING)
    version = store.note(version, "an engine died", strike=True)
    version = store.note(version, "another", strike=True)
    assert (store.note(version, "a look").strikes, version.reason) == (2, "another")
    version = store.move(version, _S.QUARANTINED)
    assert version.strikes == 2
    assert store.move(version, _S.REGISTERED).strikes == 0


def test_a_version_becomes_ready_and_answers_in_one_step(store: StateStore) -> None:
    registered(store)
    version = brought_to(store, store.add_version(KEY, source=Upload("sent"), sha256=None), _S.VERIFYING)
    entry = store.make_ready(version, live=2, previous=1, rollout=Rollout(1, PLAN))
    assert (entry.live, entry.previous, entry.rollout) == (2, 1, Rollout(1, PLAN))
    assert entry.version(2) == replace(version, state=_S.READY)
    assert store.load()[0] == [entry]


@pytest.mark.parametrize("state", [state for state in PATHS if state is not _S.VERIFYING])
def test_a_version_that_may_not_become_ready_does_not_answer_either(
    store: StateStore, state: VersionState
) -> None:
    version = brought_to(store, registered(store), state)
    before = store.load()
    with pytest.raises(IllegalTransition):
        store.make_ready(version, live=1, previous=None, rollout=None)
    assert store.load() == before


def test_neither_is_done_where_one_cannot_be(store: StateStore) -> None:
    version = brought_to(store, registered(store), _S.VERIFYING)
    before = store.load()
    with pytest.raises(NotFound, match="has no version 7"):
        store.make_ready(version, live=7, previous=None, rollout=None)
    assert store.load() == before
    store.move(version, _S.QUARANTINED)
    before = store.load()
    with pytest.raises(Conflict):
        store.make_ready(version, live=1, previous=None, rollout=None)
    assert store.load() == before


def test_two_racing_registrations_get_two_numbers(store: StateStore) -> None:
    store.add_adapter(KEY, "base", declared=False)
    others = [StateStore(store._url.render_as_string(hide_password=False)) for _ in range(4)]
    for other in others:
        other.open()
    start = threading.Barrier(len(others))
    numbers: list[int] = []

    def register(other: StateStore) -> None:
        start.wait()
        for _ in range(10):
            numbers.append(other.add_version(KEY, source=Upload("sent"), sha256=None).number)

    threads = [threading.Thread(target=register, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert sorted(numbers) == list(range(1, 41))


def test_of_two_racing_moves_one_wins(store: StateStore) -> None:
    version = registered(store)
    start, won, lost = threading.Barrier(4), [], []

    def move(to: VersionState) -> None:
        start.wait()
        try:
            won.append(store.move(version, to))
        except Conflict as error:
            lost.append(error)

    states = [_S.FETCHING, _S.RETIRED] * 2
    threads = [threading.Thread(target=move, args=(state,)) for state in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 3)
    assert store.load()[0][0].versions == (won[0],)


# -- adapters ----------------------------------------------------------------------------------------------


def test_a_route_replaces_the_whole_alias(store: StateStore) -> None:
    registered(store, count=3)
    store.route(KEY, live=1, previous=None, rollout=Rollout(3, PLAN))
    entry = store.route(KEY, live=3, previous=1, rollout=None)
    assert (entry.live, entry.previous, entry.rollout) == (3, 1, None)
    assert store.load()[0] == [entry]


def test_a_plan_of_another_release_is_read_for_what_is_known(store: StateStore, url: str) -> None:
    registered(store)
    store.route(KEY, live=1, previous=None, rollout=Rollout(1, PLAN))
    with store._transaction() as session:
        session.connection().exec_driver_sql("""UPDATE adapters SET plan = '{"weight": 0.5, "new": 1}'""")
    ((entry,), _) = store.load()
    assert entry.rollout == Rollout(1, RolloutPlan(weight=0.5))


def test_an_adapter_in_use_keeps_its_base_model_and_its_place(store: StateStore) -> None:
    version = registered(store)
    before = store.load()
    with pytest.raises(Conflict, match="Version 1 of `support` is registered; it can be removed only once"):
        store.remove(KEY)
    with pytest.raises(Conflict, match="its base model can change only once all are retired"):
        store.set_base_model(KEY, "other")
    assert store.load() == before
    store.move(version, _S.RETIRED)
    assert store.set_base_model(KEY, "other").base_model == "other"
    store.remove(KEY)
    assert store.load() == ([], [])


def test_no_row_number_is_used_twice(store: StateStore) -> None:
    version = registered(store)
    store.move(version, _S.RETIRED)
    store.remove(KEY)
    again = registered(store)
    assert again.number == 1
    assert again.id != version.id
    with pytest.raises(NotFound):
        store.move(version, _S.FETCHING)


# -- keys and events ---------------------------------------------------------------------------------------


def test_a_key_is_there_once(store: StateStore) -> None:
    store.add_key(api_key())
    for twice in (api_key(sha256="c" * 64), api_key(id="k2")):
        with pytest.raises(Conflict):
            store.add_key(twice)
    assert store.load()[1] == [api_key()]


def test_an_operators_key_belongs_to_nobody_and_may_last_for_ever(store: StateStore) -> None:
    key = api_key(role=KeyRole.OPERATOR, tenant=None, expires_s=None)
    store.add_key(key)
    assert store.load()[1] == [key]


def test_a_key_is_revoked_once(store: StateStore) -> None:
    store.add_key(api_key())
    assert store.revoke_key("k1", 1500.5) == api_key(revoked_s=1500.5)
    assert store.revoke_key("k1", 1600.0).revoked_s == 1500.5
    assert store.load()[1] == [api_key(revoked_s=1500.5)]


def test_events_come_newest_first_page_by_page(store: StateStore) -> None:
    for number in range(5):
        store.record("operator", "acme/support", f"event {number}")
    newest = store.events(2)
    assert [event.text for event in newest] == ["event 4", "event 3"]
    older = store.events(10, before=newest[-1].id)
    assert [event.text for event in older] == ["event 2", "event 1", "event 0"]
    assert (older[0].actor, older[0].subject) == ("operator", "acme/support")
    assert newest[0].at_s >= older[-1].at_s
    assert store.events(10, before=older[-1].id) == []


def test_old_events_make_room(url: str) -> None:
    store = StateStore(url, kept_events=3)
    store.open()
    for number in range(10):
        store.record("a", "b", str(number))
    assert [event.text for event in store.events(100)] == ["9", "8", "7"]
    store.close()


HOSTILE = ["", "\0", "\ud800 lone", "😀 x'; DROP TABLE adapters; --", "%s %(x)s :x ?", "x" * 100_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_can_be_kept_or_looked_for(store: StateStore, text: str) -> None:
    version = brought_to(store, registered(store), _S.FETCHING)
    moved = store.move(version, _S.QUARANTINED, reason=text)
    store.note(moved, text)
    store.record(text, text, text)
    store.add_key(api_key(note=text))
    kept = store.events(1)[0].text
    assert kept == text.replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\ud800", "?")[:2000]
    assert store.load()[0][0].versions[0].reason == kept
    with pytest.raises(NotFound):
        store.revoke_key(text, 1.0)


def test_a_long_source_is_kept_whole(store: StateStore) -> None:
    store.add_adapter(KEY, "base", declared=False)
    source = Remote("https://host/" + "x" * 5000)
    assert store.add_version(KEY, source=source, sha256=None).source == source


# -- size and life -----------------------------------------------------------------------------------------


def test_a_thousand_adapters_take_seconds_of_cpu_to_load_at_most(sqlite_url: str) -> None:
    store = StateStore(sqlite_url)
    store.open()
    path = sqlite_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as direct:
        direct.executemany(
            "INSERT INTO adapters VALUES (?, ?, ?, 'base', 0, 0, 3, 2, NULL, NULL)",
            [(number, f"t{number % 50}", f"adapter-{number}") for number in range(1, 1001)],
        )
        direct.executemany(
            "INSERT INTO versions VALUES (NULL, ?, ?, 's3://x', 'ready', '', NULL, ?, 8, 9, 0, 1.5)",
            [(adapter, number, DIGEST) for adapter in range(1, 1001) for number in (1, 2, 3)],
        )
    direct.close()
    started_s = time.process_time()
    entries, _ = store.load()
    took_s = time.process_time() - started_s
    assert (len(entries), sum(len(entry.versions) for entry in entries)) == (1000, 3000)
    assert took_s < 3.0  # of a core that others share
    started_s = time.process_time()
    for number in range(1, 51):
        store.add_version(
            AdapterKey(f"t{number % 50}", f"adapter-{number}"), source=Upload("sent"), sha256=None
        )
    assert (time.process_time() - started_s) / 50 < 0.1
    store.close()


def test_a_store_that_is_not_open_says_so(sqlite_url: str, tmp_path: Path) -> None:
    store = StateStore(sqlite_url)
    with pytest.raises(StateUnavailable, match="not open yet") as caught:
        store.load()
    assert caught.value.retry_after_s
    store.open()
    store.add_adapter(KEY, "base", declared=False)
    store.close()
    store.close()
    with pytest.raises(StateUnavailable):
        store.load()
    store.open()
    assert len(store.load()[0]) == 1
    store.close()


def test_limits_of_a_key_are_kept_changed_one_by_one_and_taken_away(store: StateStore) -> None:
    store.add_key(api_key(role=KeyRole.INFERENCE, limits=KeyLimits(max_concurrency=4, monthly_tokens=10**15)))
    changed = store.set_key_limits("k1", {"max_queued": 0, "max_concurrency": None})
    assert changed.limits == KeyLimits(max_queued=0, monthly_tokens=10**15)
    assert store.load()[1] == [changed]
    assert store.set_key_limits("k1", {"max_queued": None, "monthly_tokens": None}).limits is None
    assert store.load()[1][0].limits is None


def test_only_a_key_that_calls_models_and_is_not_revoked_has_limits(store: StateStore) -> None:
    store.add_key(api_key(role=KeyRole.ADAPTERS))
    with pytest.raises(Conflict):
        store.set_key_limits("k1", {"max_queued": 1})
    with pytest.raises(NotFound):
        store.set_key_limits("nothing", {"max_queued": 1})
