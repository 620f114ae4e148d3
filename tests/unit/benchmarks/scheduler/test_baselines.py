"""The other schedulers choose as theirs do, and engines' slots are kept account of."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.scheduler.baselines import (
    BASELINES,
    EngineLedger,
    HashAffinity,
    LeastOutstanding,
    LoraAffinity,
    RoundRobin,
)


def engines(*in_flight: str, slots: int = 2) -> list[EngineLedger]:
    """One engine for each text; every letter of it is an adapter with a request in flight."""
    made = [EngineLedger(str(number), slots) for number in range(len(in_flight))]
    for ledger, letters in zip(made, in_flight, strict=True):
        for letter in letters:
            ledger.begin(letter)
    return made


def test_round_robin_goes_in_turn() -> None:
    policy, both = RoundRobin(), engines("aaa", "")
    assert [policy.choose("a", both).name for _ in range(4)] == ["0", "1", "0", "1"]


def test_least_outstanding_takes_the_idlest_and_equals_in_turn() -> None:
    policy = LeastOutstanding()
    assert policy.choose("a", engines("aa", "b")).name == "1"
    assert {policy.choose("a", engines("", "")).name for _ in range(2)} == {"0", "1"}


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


def test_nothing_is_left_when_all_have_ended_but_the_most_there_were() -> None:
    (ledger,) = engines("abcab")
    for letter in "bacba":
        ledger.end(letter)
    assert (ledger.in_flight, ledger.by_adapter, ledger.active, list(ledger.waiting)) == (0, {}, set(), [])
    assert ledger.most_adapters == 3


def test_four_baselines_are_compared() -> None:
    assert len(BASELINES) == 4
    for new in BASELINES.values():
        assert new().choose("a", engines("", "")).name in ("0", "1")
