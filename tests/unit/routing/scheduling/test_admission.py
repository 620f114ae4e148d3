"""Which cap says no, and when may one try again?"""

from __future__ import annotations

import heapq
import random

import pytest

from fleet.types import Caps
from routing.errors import spread
from routing.scheduling.admission import MOST_EXPECTED, Cap, Demand, Rejection, Usage, admit

BUSY = Usage(sequences=1, sequences_by_model={"m": 1}, queued=1, queued_tokens=100)


def demand(
    sequences: int = 1,
    *,
    tokens: int = 10,
    must_wait: bool = False,
    adapter: tuple[int, int] | None = None,
) -> Demand:
    """A request for the model `m`; `adapter` is the adapter's cap and what it has to do already."""
    limit, used = adapter or (None, 0)
    return Demand("m", sequences, tokens, must_wait, limit, used)


@pytest.mark.parametrize(
    ("case", "caps", "usage", "asked", "cap"),
    [
        ("nothing used", Caps(max_concurrency=2), Usage(), demand(), None),
        ("the last place", Caps(max_concurrency=2), BUSY, demand(), None),
        ("one too many", Caps(max_concurrency=1), BUSY, demand(), Cap.CONCURRENCY),
        ("two where one fits", Caps(max_concurrency=2), BUSY, demand(2), Cap.CONCURRENCY),
        ("the model's own cap", Caps(max_concurrency_per_model=1), BUSY, demand(), Cap.MODEL_CONCURRENCY),
        (
            "another model's places do not count",
            Caps(max_concurrency_per_model=1),
            Usage(sequences=1, sequences_by_model={"other": 1}),
            demand(),
            None,
        ),
        ("an adapter's last place", Caps(), Usage(), demand(adapter=(3, 2)), None),
        ("an adapter busy for others", Caps(), Usage(), demand(adapter=(3, 3)), Cap.ADAPTER_CONCURRENCY),
        ("an adapter without a cap", Caps(), Usage(), demand(), None),
        ("a full queue", Caps(max_queued=1), BUSY, demand(must_wait=True), Cap.QUEUED),
        ("a full queue that is not needed", Caps(max_queued=1), BUSY, demand(), None),
        ("no queue at all", Caps(max_queued=0), Usage(), demand(must_wait=True), Cap.QUEUED),
        ("the last tokens", Caps(max_queued_tokens=110), BUSY, demand(must_wait=True), None),
        ("a token too many", Caps(max_queued_tokens=109), BUSY, demand(must_wait=True), Cap.QUEUED_TOKENS),
        ("tokens that do not wait", Caps(max_queued_tokens=109), BUSY, demand(), None),
        (
            "a full queue and full concurrency",
            Caps(max_concurrency=1, max_queued=1),
            BUSY,
            demand(must_wait=True),
            Cap.CONCURRENCY,
        ),
    ],
)
def test_the_first_cap_that_is_reached_says_no(
    case: str, caps: Caps, usage: Usage, asked: Demand, cap: Cap | None
) -> None:
    rejection = admit(caps, usage, asked)
    assert (rejection.cap if rejection else None) == cap, case


@pytest.mark.parametrize(
    ("caps", "asked", "cap"),
    [
        (Caps(max_concurrency=2), demand(3), Cap.CONCURRENCY),
        (Caps(max_concurrency_per_model=2), demand(3), Cap.MODEL_CONCURRENCY),
        (Caps(), demand(3, adapter=(2, 0)), Cap.ADAPTER_CONCURRENCY),
    ],
)
def test_a_request_wider_than_its_cap_is_told_that_retrying_cannot_help(
    caps: Caps, asked: Demand, cap: Cap
) -> None:
    assert admit(caps, Usage(), asked) == Rejection(cap, 2, None)


@pytest.mark.parametrize("caps", [Caps(max_queued=0), Caps(max_queued_tokens=5)])
def test_a_request_that_may_never_wait_is_told_to_come_when_what_runs_has_ended(caps: Caps) -> None:
    rejection = admit(caps, Usage(sequences=9, mean_request_s=7.0), demand(must_wait=True))
    assert rejection is not None
    assert rejection.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("mean_s", "running", "wait_s"), [(8.0, 4, 2.0), (0.01, 4, 0.1), (10_000.0, 4, 60.0)]
)
def test_the_wait_is_the_expected_time_to_the_next_finish_within_bounds(
    mean_s: float, running: int, wait_s: float
) -> None:
    usage = Usage(sequences=running, mean_request_s=mean_s)
    rejection = admit(Caps(max_concurrency=running), usage, demand())
    assert rejection is not None
    assert rejection.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("case", "caps", "usage", "asked", "wait_s"),
    [
        ("two of four", Caps(max_concurrency=4), Usage(sequences=4), demand(2), 4.0),
        ("one of ten of the adapter", Caps(), Usage(), demand(adapter=(10, 10)), 0.8),
        ("one of four waiting", Caps(max_queued=4), Usage(queued=4), demand(must_wait=True), 2.0),
        (
            "a quarter of the tokens waiting",
            Caps(max_queued_tokens=400),
            Usage(queued=1, queued_tokens=400),
            demand(must_wait=True, tokens=100),
            2.0,
        ),
    ],
)
def test_whoever_needs_more_room_waits_longer(
    case: str, caps: Caps, usage: Usage, asked: Demand, wait_s: float
) -> None:
    usage.mean_request_s = 8.0
    rejection = admit(caps, usage, asked)
    assert rejection is not None
    assert rejection.retry_after_s == pytest.approx(wait_s), case


def test_admission_changes_nothing() -> None:
    usage = Usage(1, {"m": 1}, 1, 5)
    admit(Caps(), usage, demand(must_wait=True))
    assert usage == Usage(1, {"m": 1}, 1, 5)


# -- those who come back -----------------------------------------------------------------------------------


def refused_at(usage: Usage, now_s: float) -> float:
    """Ask for a place where none is free, as the dispatcher does; returns the advised wait."""
    usage.forget_past(now_s)
    rejection = admit(Caps(max_concurrency=usage.sequences), usage, demand())
    assert rejection is not None and rejection.retry_after_s is not None
    usage.expect(rejection, now_s)
    return rejection.retry_after_s


@pytest.mark.parametrize("places", [1, 2, 5])
def test_refused_requests_are_told_to_come_one_place_after_the_other(places: int) -> None:
    usage = Usage(sequences=places, mean_request_s=10.0)
    waits = [refused_at(usage, 100.0) for _ in range(4)]
    assert waits == pytest.approx([10.0 * n / places for n in (1, 2, 3, 4)])


def test_nobody_is_expected_whose_time_has_come() -> None:
    usage = Usage(sequences=1, mean_request_s=2.0)
    assert [refused_at(usage, 0.0), refused_at(usage, 0.0)] == [2.0, 4.0]
    assert refused_at(usage, 2.5) == 4.0  # after the one that comes at 4 s
    assert refused_at(usage, 60.0) == 2.0
    usage.forget_past(1000.0)
    assert not usage.expected_s


def test_a_client_that_asks_without_pause_puts_off_its_tenants_others_by_a_bound() -> None:
    usage = Usage(sequences=1, mean_request_s=1.0)
    for _ in range(1000):
        refused_at(usage, 0.0)
    assert refused_at(usage, 0.0) == 1.0 + MOST_EXPECTED


def test_what_can_never_enter_is_not_expected() -> None:
    usage = Usage(sequences=1)
    rejection = admit(Caps(max_concurrency=2), usage, demand(3))
    assert rejection is not None
    usage.expect(rejection, 0.0)
    assert not usage.expected_s


@pytest.mark.parametrize(("clients", "places", "service_s"), [(6, 1, 2.0), (12, 2, 1.0), (20, 2, 1.0)])
def test_most_clients_with_two_retries_get_through(clients: int, places: int, service_s: float) -> None:
    """The official client retries twice (`max_retries`), each time after the advised wait."""
    served = [_served(clients, places, service_s, seed) for seed in range(50)]
    assert sum(served) >= 0.85 * clients * len(served)


def _served(clients: int, places: int, service_s: float, seed: int) -> int:
    """How many of clients that come at once are answered; each takes a place for about the service time."""
    chance = random.Random(seed)
    usage, done = Usage(mean_request_s=service_s), 0
    events = [(chance.random() * 0.01, number, 0) for number in range(clients)]
    heapq.heapify(events)
    while events:
        now_s, number, tries = heapq.heappop(events)
        if tries < 0:
            usage.sequences -= 1
            done += 1
        elif usage.sequences < places:
            usage.sequences += 1
            heapq.heappush(events, (now_s + service_s * chance.uniform(0.7, 1.3), number, -1))
        else:
            wait_s = spread(refused_at(usage, now_s), f"{seed}-{number}")
            if tries < 2:
                heapq.heappush(events, (now_s + wait_s, number, tries + 1))
    return done
