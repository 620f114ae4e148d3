"""Which cap says no, and when may one try again?"""

from __future__ import annotations

import pytest

from routing.admission import Cap, Rejection, Usage, admit
from routing.types import Caps


@pytest.mark.parametrize(
    ("case", "caps", "usage", "sequences", "must_wait", "cap"),
    [
        ("nothing used", Caps(max_concurrency=2), Usage(), 1, False, None),
        ("the last place", Caps(max_concurrency=2), Usage(sequences=1), 1, False, None),
        ("one too many", Caps(max_concurrency=2), Usage(sequences=2), 1, False, Cap.CONCURRENCY),
        ("two where one fits", Caps(max_concurrency=2), Usage(sequences=1), 2, False, Cap.CONCURRENCY),
        (
            "the model's own cap",
            Caps(max_concurrency_per_model=1),
            Usage(sequences=1, sequences_by_model={"m": 1}),
            1,
            False,
            Cap.MODEL_CONCURRENCY,
        ),
        (
            "another model's places do not count",
            Caps(max_concurrency_per_model=1),
            Usage(sequences=1, sequences_by_model={"other": 1}),
            1,
            False,
            None,
        ),
        ("a full queue", Caps(max_queued=1), Usage(sequences=1, queued=1), 1, True, Cap.QUEUED),
        ("a full queue that is not needed", Caps(max_queued=1), Usage(sequences=1, queued=1), 1, False, None),
        ("no queue at all", Caps(max_queued=0), Usage(), 1, True, Cap.QUEUED),
    ],
)
def test_the_first_cap_that_is_reached_says_no(
    case: str, caps: Caps, usage: Usage, sequences: int, must_wait: bool, cap: Cap | None
) -> None:
    rejection = admit(caps, usage, model="m", sequences=sequences, must_wait=must_wait)
    assert (rejection.cap if rejection else None) == cap, case


def test_a_request_wider_than_its_cap_is_told_that_retrying_cannot_help() -> None:
    rejection = admit(Caps(max_concurrency=2), Usage(), model="m", sequences=3, must_wait=False)
    assert rejection == Rejection(Cap.CONCURRENCY, 2, None)


@pytest.mark.parametrize(
    ("mean_s", "running", "wait_s"), [(8.0, 4, 2.0), (0.01, 4, 0.1), (10_000.0, 4, 60.0)]
)
def test_the_wait_is_the_expected_time_to_the_next_finish_within_bounds(
    mean_s: float, running: int, wait_s: float
) -> None:
    usage = Usage(sequences=running, mean_request_s=mean_s)
    rejection = admit(Caps(max_concurrency=running), usage, model="m", sequences=1, must_wait=False)
    assert rejection is not None
    assert rejection.retry_after_s == wait_s


def test_admission_changes_nothing() -> None:
    usage = Usage(sequences=1, sequences_by_model={"m": 1}, queued=1)
    admit(Caps(), usage, model="m", sequences=1, must_wait=True)
    assert usage == Usage(sequences=1, sequences_by_model={"m": 1}, queued=1)
