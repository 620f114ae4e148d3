"""Which cap says no, and when may one try again?"""

from __future__ import annotations

import pytest

from fleet.types import Caps
from routing.scheduling.admission import Cap, Demand, Rejection, Usage, admit

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
