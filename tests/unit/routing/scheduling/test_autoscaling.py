"""How many replicas does a pool want, from what it has to do?"""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from routing.scheduling.autoscaling import KEEP_S, NO_NEED, SETTLE_S, START_S, Autoscaler, Desired, Load, Room

ROOM = Room(sequences=10.0, slots=4.0, tokens=1000.0)  # eight sequences and 800 tokens fill a replica
STEP_S = 0.25


class Pool:
    """An autoscaler that is asked four times a second."""

    def __init__(self, least: int = 1, most: int = 8, *, warm: bool = True) -> None:
        self.policy = Autoscaler(least, most)
        self.now_s = 0.0
        self.seen: list[tuple[float, Desired]] = []
        if warm:
            self.run(Load(), START_S + KEEP_S + 1.0)

    def run(self, load: Load, time_s: float, there: int = 1) -> Desired:
        """Let a load last so long, and return what is wanted then."""
        desired = self.try_run(load, time_s, there)
        assert desired is not None
        return desired

    def try_run(self, load: Load, time_s: float, there: int) -> Desired | None:
        """The same, where no number may be known."""
        desired = None
        for _ in range(max(1, round(time_s / STEP_S))):
            self.now_s += STEP_S
            desired = self.sample(load, there)
        return desired

    def sample(self, load: Load, there: int) -> Desired | None:
        """Ask once."""
        desired = self.policy.sample(self.now_s, load, ROOM, there)
        if desired is not None:
            self.seen.append((self.now_s, desired))
        return desired


def sequences(count: int) -> Load:
    return Load(count, anything=count > 0)


def test_the_need_is_what_fills_replicas_to_four_fifths() -> None:
    assert Pool().run(sequences(8), 120).replicas == 1
    assert Pool().run(sequences(16), 120).replicas == 2
    assert Pool().run(sequences(20), 120).replicas == 3


def test_the_largest_of_sequences_adapters_and_tokens_counts_and_is_named() -> None:
    wanted = [
        Pool().run(load, 120)
        for load in (
            Load(32, 4, 800, anything=True),
            Load(8, 20, 800, anything=True),
            Load(8, 4, 4800, anything=True),
        )
    ]
    assert [desired.replicas for desired in wanted] == [4, 5, 6]
    assert [desired.reason for desired in wanted] == [
        "need 4.0: 32 sequences run or wait, and a replica takes 8",
        "need 5.0: 20 adapters run or wait, and a replica takes 4",
        "need 6.0: 4800 tokens run or wait, and a replica takes 800",
    ]


def test_replicas_that_take_no_adapters_or_have_not_said_what_they_hold_need_neither() -> None:
    policy, found = Autoscaler(1, 8), None
    for quarter in range(4 * 600):
        found = policy.sample(quarter / 4, Load(8, 9, 9999, anything=True), Room(10.0, 0.0, 0.0), 1)
    assert found is not None and found.replicas == 1


def test_replicas_that_load_do_not_add_to_the_need() -> None:
    pool = Pool()
    first = pool.run(sequences(32), 60, there=1)
    for there in (1, 2, 3, 4):
        assert pool.run(sequences(32), 60, there=there).replicas == first.replicas == 4


def test_work_refused_for_an_objective_counts_beside_what_waits() -> None:
    desired = Pool().run(Load(16, refused=1.5, anything=True), 120)
    assert desired.replicas == 4
    assert (
        desired.reason == "need 3.5: 16 sequences run or wait, and a replica takes 8; work for 1.5 is refused"
    )


def test_it_rises_at_once_and_falls_to_the_most_of_five_minutes() -> None:
    pool = Pool()
    pool.run(sequences(32), 60)
    assert pool.run(sequences(32), STEP_S).replicas == 4
    desired = pool.run(sequences(8), KEEP_S - 10)
    assert (desired.replicas, desired.reason) == (
        4,
        "need 3.1: 24 sequences run or wait, and a replica takes 8 (289 s ago)",
    )
    assert pool.run(sequences(8), 100).replicas == 1


def test_a_burst_of_a_tenth_of_a_second_counts_for_nothing() -> None:
    pool = Pool(most=1024)
    pool.run(sequences(8), 60)
    pool.run(sequences(100_000), STEP_S)
    assert pool.run(sequences(8), 60).replicas == 1


def test_it_does_not_flap_at_a_border() -> None:
    pool = Pool()
    for _ in range(60):
        pool.run(sequences(14), 40)
        pool.run(sequences(18), 40)
    numbers = [desired.replicas for _, desired in pool.seen]
    assert numbers[-1] == 3
    assert sum(a != b for a, b in itertools.pairwise(numbers)) <= 3, "up to two, then to three, and it stays"


def test_the_first_replica_comes_at_once_and_goes_when_nobody_has_asked_for_five_minutes() -> None:
    pool = Pool(least=0)
    assert pool.run(Load(), STEP_S) == Desired(0, NO_NEED)
    desired = pool.run(Load(1, anything=True), STEP_S)
    assert (desired.replicas, desired.reason) == (1, "something runs, waits or was asked for")
    assert pool.run(Load(), KEEP_S - 1).replicas == 1
    assert pool.run(Load(), 10).replicas == 0


def test_what_was_only_asked_for_is_one_replica_and_no_more() -> None:
    assert Pool(least=0).run(Load(anything=True), 600).replicas == 1


def test_a_gateway_that_has_just_begun_leaves_the_replicas_that_are_there() -> None:
    pool = Pool(warm=False)
    desired = pool.run(Load(), 10, there=5)
    assert (desired.replicas, desired.reason) == (5, "the gateway has just begun, with 5 there")
    assert pool.run(Load(), KEEP_S, there=5).replicas == 5, "it remembers them as long as any other need"
    assert pool.run(Load(), START_S + 1, there=5).replicas == 1


def test_it_says_no_number_before_it_may_have_found_what_is_there() -> None:
    for there in (0, 3, 8):
        for load in (Load(), sequences(100)):
            assert Pool(warm=False).try_run(load, SETTLE_S, there) is None
    for there in (3, 8):
        assert Pool(warm=False).run(Load(), SETTLE_S + STEP_S, there).replicas == there


def test_while_it_has_found_nothing_it_waits_longer_unless_one_is_asked_for_that_need_not_be_there() -> None:
    pool = Pool(least=0, warm=False)
    assert pool.try_run(Load(), START_S, there=0) is None
    assert pool.run(Load(), 2 * STEP_S, there=0) == Desired(0, NO_NEED)
    assert Pool(least=0, warm=False).run(Load(anything=True), SETTLE_S + STEP_S, there=0).replicas == 1
    assert Pool(least=1, warm=False).try_run(sequences(9), START_S, there=0) is None


def test_the_range_is_said_where_it_bounds_and_may_change() -> None:
    pool = Pool(least=2, most=3)
    few = pool.run(sequences(1), 60)
    assert (few.replicas, few.reason.rpartition("; ")[2]) == (2, "no fewer than 2")
    many = pool.run(sequences(800), 120)
    assert (many.replicas, many.reason.rpartition("; ")[2]) == (3, "no more than 3")
    pool.policy.most = 6
    assert pool.run(sequences(800), 120).replicas == 6


def test_what_could_not_be_had_is_not_remembered() -> None:
    pool = Pool(most=4)
    pool.run(sequences(100_000), 60)
    assert pool.run(sequences(8), KEEP_S + 75).replicas == 1


LOADS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 40), st.integers(0, 20_000), st.integers(1, 400)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=50)
@given(LOADS, st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))
def test_it_stays_in_its_range_and_never_falls_below_what_was_needed_lately(
    loads: list[tuple[int, int, int, int]], least: int, more: int, there: int
) -> None:
    most = max(1, least + more)
    pool = Pool(least, most, warm=False)
    for count, adapters, tokens, time_s in loads:
        load = Load(count, adapters, tokens, anything=bool(count))
        for _ in range(time_s):
            pool.now_s += 1.0
            pool.sample(load, there)
    numbers = [desired.replicas for _, desired in pool.seen]
    assert all(least <= number <= most for number in numbers)
    rises = [index for index in range(1, len(numbers)) if numbers[index] > numbers[index - 1]]
    for index in rises:
        assert min(numbers[index : index + int(KEEP_S)]) >= numbers[index]
    assert all(desired.reason for _, desired in pool.seen)
