"""What the log line and the metrics make of one request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routing.observing.request_log import line_of, short_line_of
from routing.types import Outcome, Record
from tests.unit.routing.requests import target


def record(**changes: Any) -> Record:
    return Record("id-1", target("a", "support"), Outcome.COMPLETED, 200, **changes)


def test_a_log_line_is_one_line_of_json() -> None:
    line = line_of(record(explanation="two\nlines", total_s=0.1234567))
    assert "\n" not in line
    read = json.loads(line)
    assert (read["request_id"], read["tenant"], read["model"]) == ("id-1", "a", "support")
    assert (read["adapter"], read["version"], read["pool"]) == ("a-support", 1, "shared")
    assert read["total_s"] == 0.123457


def test_what_did_not_happen_is_null_and_not_empty() -> None:
    read = json.loads(line_of(record()))
    for field in ("replica", "reason", "queue_s", "first_byte_s", "waits_for", "picked", "explanation"):
        assert read[field] is None, field


@pytest.mark.parametrize(
    ("changes", "token_s"),
    [
        ({"stream": True, "first_byte_s": 1.0, "total_s": 3.0, "completion_tokens": 5}, 0.5),
        ({"stream": False, "first_byte_s": 1.0, "total_s": 3.0, "completion_tokens": 5}, None),
        ({"stream": True, "first_byte_s": 1.0, "total_s": 3.0, "completion_tokens": 1}, None),
        ({"stream": True, "total_s": 3.0, "completion_tokens": 5}, None),
    ],
    ids=["stream", "whole answer", "one token", "no byte"],
)
def test_time_per_token_is_known_of_streams_alone(changes: dict[str, Any], token_s: float | None) -> None:
    assert record(**changes).token_s == token_s


@pytest.mark.parametrize(
    ("at_s", "time"),
    [
        (1_772_443_800.1239, "2026-03-02T09:30:00.123+00:00"),
        (1_772_443_800.0, "2026-03-02T09:30:00.000+00:00"),
        (1_772_443_800.9996, "2026-03-02T09:30:00.999+00:00"),
    ],
)
def test_the_time_is_utc_with_milliseconds(at_s: float, time: str) -> None:
    assert json.loads(line_of(record(ended_at_s=at_s)))["time"] == time


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"total_s": 1.9, "prompt_tokens": 5, "completion_tokens": 5, "replica": "chat-0"},
            "a support 200 1.90s 5+5 tok chat-0",
        ),
        ({"status": 429, "reason": "max_concurrency"}, "a support 429 0.00s max_concurrency"),
        (
            {
                "status": 502,
                "reason": "engine_failed",
                "total_s": 12.345,
                "replica": "chat-0",
                "prompt_tokens": 7,
            },
            "a support 502 12.35s 7+0 tok chat-0 engine_failed",
        ),
    ],
    ids=["completed", "refused", "failed"],
)
def test_the_line_for_people_is_short(changes: dict[str, Any], line: str) -> None:
    ended = record()
    for name, value in changes.items():
        setattr(ended, name, value)
    assert short_line_of(ended) == line
