"""The other schedulers choose as theirs do, and engines' slots are kept account of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from benchmarks.baselines import (
    BASELINES,
    EngineLedger,
    HashAffinity,
    LeastOutstanding,
    LlmdAffinity,
    LoraAffinity,
    Policy,
    RoundRobin,
    SglangCacheAware,
)


def engines(*in_flight: str, slots: int = 2) -> list[EngineLedger]:
    """One engine for each text; every letter of it is an adapter with a request in flight."""
    made = [EngineLedger(str(number), slots) for number in range(len(in_flight))]
    for ledger, letters in zip(made, in_flight, strict=True):
        for letter in letters:
            ledger.begin(letter)
    return made


@dataclass
class Metrics:
    """What an idle engine says."""

    waiting: int = 0
    kv_usage: float = 0.0


def placed(policy: Policy, ledgers: list[EngineLedger], letters: str) -> list[str]:
    """Where a request for each letter's adapter goes, all at once."""
    names = []
    for letter in letters:
        ledger = policy.choose(letter, ledgers)
        ledger.begin(letter)
        names.append(ledger.name)
    return names


def test_round_robin_goes_in_turn() -> None:
    policy, both = RoundRobin(), engines("aaa", "")
    assert [policy.choose("a", both).name for _ in range(4)] == ["0", "1", "0", "1"]


def test_least_outstanding_takes_the_idlest_and_evens_out() -> None:
    assert LeastOutstanding().choose("a", engines("aa", "b")).name == "1"
    assert sorted(placed(LeastOutstanding(), engines("", "", ""), "aaa")) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("in_flight", "score"),
    [("a", 1.0), ("", 0.8), ("b", 0.8), ("bc", 0.0), ("bca", 0.6), ("bcd", 0.0)],
)
def test_lora_affinity_scores_active_then_room_then_waiting(in_flight: str, score: float) -> None:
    assert LoraAffinity.score("a", engines(in_flight)[0]) == score


def test_lora_affinity_takes_the_best_score_and_then_the_idlest() -> None:
    policy = LoraAffinity()
    assert policy.choose("a", engines("", "aaaaaaaa")).name == "1"
    assert policy.choose("a", engines("aaa", "a")).name == "1"
    assert policy.choose("a", engines("bcbcbc", "bc")).name == "1"


def test_hash_affinity_keeps_an_adapter_at_home_and_spreads_adapters() -> None:
    policy, both = HashAffinity(), engines("", "")
    homes = {f"adapter-{n}": policy.choose(f"adapter-{n}", both).name for n in range(200)}
    assert all(policy.choose(name, both[::-1]).name == home for name, home in homes.items())
    assert min(Counter(homes.values()).values()) > 60


def test_hash_affinity_moves_only_what_has_lost_its_home() -> None:
    policy, three = HashAffinity(), engines("", "", "")
    for name in map(str, range(100)):
        home = policy.choose(name, three)
        if home is not three[2]:
            assert policy.choose(name, three[:2]) is home


def test_a_slot_that_comes_free_goes_to_who_has_waited_longest() -> None:
    (ledger,) = engines("abcd")
    assert (ledger.active, list(ledger.waiting)) == ({"a", "b"}, ["c", "d"])
    ledger.end("b")
    assert (ledger.active, list(ledger.waiting)) == ({"a", "c"}, ["d"])


def test_a_running_adapter_keeps_its_slot_while_it_has_requests() -> None:
    (ledger,) = engines("aabc")
    ledger.end("a")
    assert (ledger.active, list(ledger.waiting)) == ({"a", "b"}, ["c"])


def test_whoever_leaves_while_waiting_gets_no_slot() -> None:
    (ledger,) = engines("abcd")
    ledger.end("c")
    ledger.end("a")
    assert (ledger.active, list(ledger.waiting)) == ({"b", "d"}, [])


def test_nothing_is_left_when_all_have_ended() -> None:
    (ledger,) = engines("abcab")
    for letter in "bacba":
        ledger.end(letter)
    assert (ledger.in_flight, ledger.by_adapter, ledger.active, list(ledger.waiting)) == (0, {}, set(), [])


def test_cache_aware_follows_an_adapter_until_loads_are_out_of_balance() -> None:
    names = placed(SglangCacheAware(1), engines("", ""), "a" * 66)
    assert len(set(names[:65])) == 1
    assert names[65] != names[0]


def test_an_adapter_in_flight_counts_more_than_room_for_one() -> None:
    policy = LlmdAffinity()
    policy.scrape([Metrics()] * 2, engines("a", "", slots=4))
    assert [policy.affinity("a", 0), policy.affinity("a", 1), policy.affinity("b", 0)] == [1.0, 0.8, 0.8]


def test_vllms_labels_count_every_adapter_twice_so_that_half_the_slots_look_like_all() -> None:
    policy = LlmdAffinity()
    policy.scrape([Metrics()], engines("a", slots=2))
    assert policy.affinity("b", 0) == 0.0


def test_metrics_are_as_old_as_the_last_scrape() -> None:
    policy, ledgers = LlmdAffinity(), engines("", slots=4)
    policy.scrape([Metrics()], ledgers)
    ledgers[0].begin("a")
    assert policy.affinity("a", 0) == 0.8
    policy.scrape([Metrics()], ledgers)
    assert policy.affinity("a", 0) == 1.0


def test_a_queue_and_a_full_cache_count_against_an_engine() -> None:
    policy, ledgers = LlmdAffinity(), engines("", "")
    for busy in (Metrics(waiting=3), Metrics(kv_usage=0.9)):
        policy.scrape([busy, Metrics()], ledgers)
        assert policy.choose("a", ledgers).name == "1"


def test_four_baselines_are_compared() -> None:
    assert len(BASELINES) == 4
    for new in BASELINES.values():
        assert new().choose("a", engines("", "")).name in ("0", "1")
