"""Which versions should engines be able to serve, in which order, and which may go?"""

from __future__ import annotations

from dataclasses import replace

from adapters.states import VersionState
from routing.catalog.entries import AdapterKey, Rollout
from routing.lifecycle.placement import Wanted, desired_adapters, kept_digests, surplus_versions
from tests.fakes import adapter_id, entry_of, version_of

KEY = AdapterKey(None, "a-support")


def wanted(
    *, on_trial: set[int] | None = None, in_use: set[str] | None = None, used: dict[str, float] | None = None
) -> Wanted:
    return Wanted(on_trial or set(), lambda name: name in (in_use or set()), used or {})


def test_ready_versions_are_served_by_their_content() -> None:
    (adapter,) = desired_adapters([entry_of("a-support")], wanted())
    assert adapter.id == adapter_id("a-support")
    version = version_of(KEY)
    assert (adapter.digest, adapter.size_bytes) == (version.digest, version.size_bytes)


def test_a_version_is_served_before_it_is_ready_only_while_it_is_tried() -> None:
    version = version_of(KEY, 1, VersionState.VERIFYING)
    entry = entry_of("a-support", versions=[version], live=None)
    assert not desired_adapters([entry], wanted())
    assert [a.id for a in desired_adapters([entry], wanted(on_trial={version.id}))] == [version.engine_id]


def test_a_retired_version_stays_until_its_last_request_has_ended() -> None:
    version = version_of(KEY, 1, VersionState.RETIRED)
    entry = entry_of("a-support", versions=[version], live=None)
    assert desired_adapters([entry], wanted(in_use={version.engine_id}))
    assert not desired_adapters([entry], wanted())


def test_pinned_comes_first_then_what_was_used_last_then_what_is_live() -> None:
    names = ("idle", "used", "old", "pinned")
    entries = [entry_of(name) for name in names]
    entries[2] = replace(entries[2], live=None)
    entries[3] = replace(entries[3], pinned=True)
    ranked = desired_adapters(entries, wanted(used={adapter_id("used"): 50.0}))
    assert [a.id for a in ranked] == [adapter_id(name) for name in ("pinned", "used", "idle", "old")]
    assert [a.pinned for a in ranked] == [True, False, False, False]


def test_only_the_live_version_of_a_pinned_adapter_is_pinned() -> None:
    entry = replace(
        entry_of("a-support", versions=[version_of(KEY, 1), version_of(KEY, 2)], live=2), pinned=True
    )
    assert {a.id: a.pinned for a in desired_adapters([entry], wanted())} == {
        adapter_id("a-support", 1): False,
        adapter_id("a-support", 2): True,
    }


def test_the_same_content_under_two_numbers_is_one_adapter_to_engines() -> None:
    first = version_of(KEY, 1)
    entry = entry_of("a-support", versions=[first, replace(first, id=2, number=2)], live=2)
    assert len(desired_adapters([entry], wanted())) == 1


def test_versions_that_nothing_leads_to_are_surplus_beyond_those_kept() -> None:
    versions = [version_of(KEY, number) for number in range(1, 7)]
    entry = replace(entry_of("a-support", versions=versions, live=5), previous=4, rollout=Rollout(6))
    assert [v.number for v in surplus_versions(entry, 2)] == [1]
    assert [v.number for v in surplus_versions(entry, 0)] == [1, 2, 3]
    assert surplus_versions(entry, 3) == []


def test_files_stay_while_any_version_needs_their_content() -> None:
    retired, ready = version_of(KEY, 1, VersionState.RETIRED), version_of(KEY, 2)
    other = replace(version_of(AdapterKey("b", "same"), 1), digest=retired.digest)
    mine = entry_of("a-support", versions=[retired, ready])
    theirs = entry_of("same", tenant="b", versions=[other])
    assert kept_digests([mine]) == {ready.digest}
    assert kept_digests([mine, theirs]) == {ready.digest, retired.digest}
