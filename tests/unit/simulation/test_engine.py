"""The model of vLLM's scheduler, step by step."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from simulation.costs import StepCosts
from simulation.engine import IDLE, Engine, Sequence
from tests.unit.simulation.fakes import Heard, an_engine, run_out

NO_LOADS = StepCosts(10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def sequence(key: int, adapter: str | None = None, *, prompt: int = 10, completion: int = 3) -> Sequence:
    return Sequence(key, adapter, prompt, completion)


def test_the_first_step_prefills_and_brings_a_token_and_each_further_one_brings_one() -> None:
    heard = Heard()
    engine = an_engine(heard)
    engine.submit(sequence(0, completion=3), 0.0)
    assert run_out(engine) == pytest.approx(0.03)
    assert heard.events == [("first", 0, 0.01), ("finished", 0, 0.03)]
    assert heard.gaps == [(0.01, 2)]
    assert engine.kv_used == 0 and engine.in_flight == 0 and engine.due_s == IDLE


def test_an_adapter_that_holds_no_slot_is_skipped_and_later_ones_go_on() -> None:
    heard = Heard()
    engine = an_engine(heard, costs=NO_LOADS, slots=1)
    for key, adapter in enumerate(["a", "b", "a", None]):
        engine.submit(sequence(key, adapter), 0.0)
    run_out(engine)
    first = heard.when("first")
    assert first[0] == first[2] == first[3] == 0.01
    assert first[1] == 0.04


def test_a_busy_adapter_starves_another_for_as_long_as_its_requests_come() -> None:
    heard = Heard()
    engine = an_engine(heard, costs=NO_LOADS, slots=1)
    engine.submit(sequence(0, "a", completion=5), 0.0)
    engine.submit(sequence(1, "b"), 0.0)
    for key in range(2, 20):
        now = run_out(engine, until_s=0.02 * (key - 1))
        engine.submit(sequence(key, "a", completion=5), max(now, 0.02 * (key - 1)))
    run_out(engine)
    assert heard.when("first")[1] > heard.when("first")[19]


def test_what_arrives_during_a_step_begins_with_the_next_one() -> None:
    heard = Heard()
    engine = an_engine(heard)
    engine.submit(sequence(0, completion=100), 0.0)
    engine.advance(engine.due_s)
    engine.advance(engine.due_s)  # now many alike steps are under way, until 1.0
    engine.submit(sequence(1, completion=2), 0.035)
    run_out(engine)
    assert heard.when("first")[1] == pytest.approx(0.05)
    assert heard.when("finished")[0] == pytest.approx(1.0)


def test_no_more_sequences_run_than_max_num_seqs() -> None:
    heard = Heard()
    engine = an_engine(heard, max_sequences=2)
    for key in range(3):
        engine.submit(sequence(key), 0.0)
    run_out(engine)
    assert heard.when("first") == {0: 0.01, 1: 0.01, 2: 0.04}


def test_a_long_prompt_takes_several_steps_within_the_token_budget() -> None:
    heard = Heard()
    engine = an_engine(heard, step_tokens=100)
    engine.submit(sequence(0, prompt=250), 0.0)
    engine.submit(sequence(1, prompt=30), 0.0)
    run_out(engine)
    assert heard.when("first") == {0: 0.03, 1: 0.03}


def test_a_prompt_for_an_adapter_takes_longer_than_one_for_the_base_model() -> None:
    first = []
    for adapter in (None, "a"):
        heard = Heard()
        engine = an_engine(heard, costs=replace(NO_LOADS, adapter_token_ms=0.5), slots=1)
        engine.submit(sequence(0, adapter, prompt=100, completion=1), 0.0)
        run_out(engine)
        first.append(round(heard.when("first")[0], 3))
    assert first == [0.01, 0.06]


def test_adapters_are_read_from_disk_once_and_moved_into_a_slot_when_they_have_lost_it() -> None:
    heard = Heard()
    engine = an_engine(heard, slots=1)
    now = 0.0
    for key, adapter in enumerate(["a", "b", "a", "a"]):
        engine.submit(sequence(key, adapter, completion=1), now)
        now = run_out(engine)
    first = heard.when("first")
    taken = [round(first[0], 3), *(round(first[key] - first[key - 1], 3) for key in (1, 2, 3))]
    assert taken == [1.11, 1.11, 0.11, 0.01]
    assert (engine.totals.gpu_loads, engine.totals.disk_loads) == (3, 2)


def test_the_adapter_that_was_used_longest_ago_loses_its_place_in_memory() -> None:
    heard = Heard()
    engine = an_engine(heard, slots=1, host_places=2)
    now = 0.0
    for key, adapter in enumerate(["a", "b", "a", "c", "a", "b"]):
        engine.submit(sequence(key, adapter, completion=1), now)
        now = run_out(engine)
    assert engine.totals.disk_loads == 4  # a, b, c, and b again; a stayed


def test_a_full_kv_cache_preempts_the_newest_which_is_computed_again() -> None:
    heard = Heard()
    engine = an_engine(heard, kv_tokens=64)
    engine.submit(sequence(0, prompt=20, completion=20), 0.0)
    engine.submit(sequence(1, prompt=20, completion=20), 0.0)
    run_out(engine)
    assert engine.totals.preemptions > 0
    assert heard.when("finished")[0] < heard.when("finished")[1]
    assert engine.kv_used == 0
    assert sum(tokens for _, tokens in heard.gaps) == 2 * 19
    assert max(gap_s for gap_s, _ in heard.gaps) > 0.01


def test_a_prompt_larger_than_the_kv_cache_runs_alone() -> None:
    heard = Heard()
    engine = an_engine(heard, kv_tokens=15)
    engine.submit(sequence(0, prompt=50), 0.0)
    engine.submit(sequence(1, prompt=5), 0.0)
    run_out(engine)
    assert set(heard.when("finished")) == {0, 1}


def stepped(engine: Engine) -> None:
    """Let an engine take its next steps one by one, never several at once."""
    span = engine._span
    if span is not None and span.count > 1:
        span.count = 1
        engine.due_s = span.start_s + span.step_s


@pytest.mark.parametrize("seed", range(5))
def test_steps_taken_together_give_what_they_give_one_by_one(seed: int) -> None:
    heard = [Heard(), Heard()]
    for one_by_one, listener in enumerate(heard):
        chance = random.Random(seed)
        engine = an_engine(listener, costs=StepCosts(), slots=2, kv_tokens=600, max_sequences=6)
        now = 0.0
        for key in range(60):
            now += chance.expovariate(20.0)
            while engine.due_s <= now:
                engine.advance(engine.due_s)
                if one_by_one:
                    stepped(engine)
            adapter = chance.choice(["a", "b", "c", "d"])
            engine.submit(
                sequence(key, adapter, prompt=chance.randint(1, 90), completion=chance.randint(1, 40)), now
            )
        while engine.due_s < IDLE:
            engine.advance(engine.due_s)
            if one_by_one:
                stepped(engine)
        assert engine.kv_used == 0
    together, apart = (sorted((key, kind, at_s) for kind, key, at_s in h.events) for h in heard)
    assert [event[:2] for event in together] == [event[:2] for event in apart]
    assert [event[2] for event in together] == pytest.approx([event[2] for event in apart], abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_more_adapters_run_than_there_are_slots(seed: int) -> None:
    chance = random.Random(seed)
    engine = an_engine(Heard(), slots=3)
    for key in range(80):
        adapter = f"a{chance.randrange(9)}"
        engine.submit(sequence(key, adapter, completion=chance.randint(1, 30)), 0.0)
    while engine.due_s < IDLE:
        assert len(engine.active) <= 3
        engine.advance(engine.due_s)
