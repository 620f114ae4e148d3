"""When is a model green, slow or failing, and what is said of it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from routing.observing.live.figures import Figures1m
from routing.observing.live.verdict import Limit, LimitSource, Verdict, Waiting, judge, limit, usual_limit_s
from routing.scheduling.filters import WaitReason

WELL = Figures1m(
    span_s=60.0,
    requests=100,
    failed=0,
    late=0,
    capped=0,
    prompt_tokens=100,
    completion_tokens=100,
    first_token_p50_s=0.2,
    first_token_p99_s=0.4,
    queue_p99_s=0.1,
    third_first_token_s=0.3,
    third_queue_s=0.1,
    answer_p50_s=1.0,
    answer_p99_s=2.0,
    fault=None,
    waits_for=None,
    usual_s=0.2,
)
TWO_S = Limit(2.0, LimitSource.OBJECTIVE)


@pytest.mark.parametrize(
    ("changes", "waiting", "verdict", "reason"),
    [
        ({}, Waiting(), Verdict.GREEN, ""),
        ({"requests": 0, "first_token_p99_s": None, "queue_p99_s": None}, Waiting(), Verdict.GREEN, ""),
        ({"capped": 90}, Waiting(), Verdict.GREEN, ""),
        ({}, Waiting(3, 1.9, WaitReason.NO_SLOT), Verdict.GREEN, ""),
        (
            {"first_token_p99_s": 4.2, "third_first_token_s": 2.1, "queue_p99_s": 0.3},
            Waiting(),
            Verdict.SLOW,
            "p99 first token 4.2 s, 300 ms of it in the queue; its objective is 2.0 s",
        ),
        (
            {
                "first_token_p99_s": 4.2,
                "queue_p99_s": 3.9,
                "third_queue_s": 3.0,
                "waits_for": WaitReason.NO_SLOT,
            },
            Waiting(),
            Verdict.SLOW,
            "p99 wait for a replica 3.9 s since every slot is held by other adapters; its objective is 2.0 s",
        ),
        (
            {"first_token_p99_s": 4.2, "third_first_token_s": 1.9, "queue_p99_s": 3.9, "third_queue_s": 0.1},
            Waiting(),
            Verdict.GREEN,
            "",
        ),
        ({"first_token_p99_s": 4.2, "third_first_token_s": None}, Waiting(), Verdict.GREEN, ""),
        (
            {"first_token_p99_s": None, "queue_p99_s": 3.0, "third_queue_s": 3.0},
            Waiting(),
            Verdict.SLOW,
            "p99 wait for a replica 3.0 s; its objective is 2.0 s",
        ),
        (
            {},
            Waiting(41, 9.0, WaitReason.NO_ROOM),
            Verdict.SLOW,
            "41 requests wait, the oldest for 9.0 s since its replicas are full; its objective is 2.0 s",
        ),
        (
            {},
            Waiting(1, 9.0),
            Verdict.SLOW,
            "1 request waits, the oldest for 9.0 s; its objective is 2.0 s",
        ),
        (
            {"late": 5, "fault": "overloaded"},
            Waiting(),
            Verdict.SLOW,
            "5 % of its requests were refused or expired since too much waits (overloaded)",
        ),
        ({"late": 4, "fault": "overloaded"}, Waiting(), Verdict.GREEN, ""),
        (
            {"failed": 12, "fault": "engine_failed"},
            Waiting(9, 9.0),
            Verdict.FAILING,
            "12 % of its requests fail (engine_failed)",
        ),
        ({"failed": 2, "requests": 4, "fault": "engine_failed"}, Waiting(), Verdict.GREEN, ""),
        ({"failed": 3, "requests": 100, "fault": "engine_failed"}, Waiting(), Verdict.GREEN, ""),
    ],
)
def test_the_worst_that_is_true_counts_and_says_why(
    changes: dict[str, Any], waiting: Waiting, verdict: Verdict, reason: str
) -> None:
    said = judge(replace(WELL, **changes), TWO_S, waiting)
    assert (said.verdict, said.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("objective_s", "usual_s", "expected"),
    [
        (2.0, 0.1, Limit(2.0, LimitSource.OBJECTIVE)),
        (None, 0.5, Limit(2.5, LimitSource.USUAL)),
        (None, 0.01, Limit(1.0, LimitSource.USUAL)),
        (None, None, Limit(10.0, LimitSource.DEFAULT)),
    ],
)
def test_the_limit_is_the_objective_or_else_the_past(
    objective_s: float | None, usual_s: float | None, expected: Limit
) -> None:
    assert limit(objective_s, usual_s) == expected
    assert objective_s is not None or usual_limit_s(usual_s) == expected.seconds


def test_the_reason_names_whose_measure_it_is() -> None:
    slow = replace(WELL, first_token_p99_s=12.0, third_first_token_s=12.0)
    assert judge(slow, limit(None, 0.5), Waiting()).reason.endswith("usual is below 2.5 s")
    assert judge(slow, limit(None, None), Waiting()).reason.endswith("allowed is 10.0 s")


@pytest.mark.parametrize("hold", WaitReason)
def test_every_reason_to_wait_has_words(hold: WaitReason) -> None:
    assert " since " in judge(WELL, TWO_S, Waiting(1, 9.0, hold)).reason
