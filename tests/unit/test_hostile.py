"""Do the tools of the hostile tests see what they are for? A check that passes everything is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.audit import Counted, counted_by_vllm, differences
from tests.hostile.bodies import attack
from tests.hostile.client import Answer
from tests.hostile.judge import Judge
from tests.hostile.request import Attack
from tests.hostile.worlds import SMALL

ASKED = Attack(0, "POST", "/v1/chat/completions", [], b'{"model":"support"}')
ERROR = b'{"error":{"message":"m","type":"t","param":null,"code":"c"}}'
EVENT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"


def answer(status: int, kind: str, body: bytes, **changes: Any) -> Answer:
    return Answer(body, status, {"content-type": kind}, body, **{"whole": True, **changes})


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (answer(200, "application/json", b"{}"), ""),
        (answer(400, "application/json", ERROR), ""),
        (answer(200, "text/event-stream; charset=utf-8", EVENT + DONE), ""),
        (answer(503, "application/json", ERROR.replace(b'"c"', b'"busy"')), ""),
        (answer(500, "application/json", ERROR), "status 500"),
        (answer(503, "application/json", ERROR), "status 503"),
        (answer(400, "text/plain", ERROR), "no shape"),
        (answer(400, "application/json", b'{"error":"x"}'), "no shape"),
        (answer(400, "application/json", ERROR.replace(b'"c"', b"400")), "no shape"),
        (answer(200, "application/json", b'{"x":NaN}'), "no JSON"),
        (answer(200, "text/html", b"<html>"), "text/html"),
        (answer(200, "text/event-stream", EVENT + DONE[:-1]), "mid-event"),
        (answer(200, "text/event-stream", b"data: {\n\n"), "no JSON"),
        (answer(200, "text/event-stream", b'data: {"error":{}}\n\n'), "no shape"),
        (answer(200, "application/json", b'{"x":"annas-weights"}'), "holds"),
        (answer(200, "application/json", b"{}", whole=False), "no end"),
        (answer(0, "", b"", whole=False), "without an answer"),
        (answer(0, "", b"", whole=False, late=True), "in time"),
        (answer(0, "", b"", whole=False, garbage="x"), "no HTTP"),
    ],
)
def test_an_answer_is_judged(given: Answer, wrong: str) -> None:
    found = Judge([b"annas-weights", b"support"], {(503, "busy")}).faults(ASKED, given)
    assert wrong in "; ".join(found) and bool(found) is bool(wrong)


def row(prompt: int, completion: int, outcome: str = "completed", estimated: bool = False) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "outcome": outcome,
        "estimated": estimated,
    }


@pytest.mark.parametrize(
    ("rows", "engine", "agree"),
    [
        ([row(7, 3), row(5, 2)], Counted(12, 5), True),
        ([row(7, 3)], Counted(8, 3), False),
        ([row(7, 3)], Counted(7, 4), False),
        ([row(7, 3)], Counted(6, 3), False),
        ([row(7, 3)], Counted(7, 2), False),
        ([row(7, 3), row(7, 1, "cancelled")], Counted(14, 6), True),
        ([row(7, 3), row(7, 1, "cancelled")], Counted(14, 7), False),
        ([row(7, 3), row(9, 4, estimated=True)], Counted(7, 3), True),
        ([row(7, 3), row(9, 4, estimated=True)], Counted(7, 2), False),
    ],
)
def test_a_ledger_is_held_against_the_engines_counters(
    rows: list[dict[str, Any]], engine: Counted, agree: bool
) -> None:
    found = differences(rows, engine, unread=Counted(7, 2), besides=Counted())
    assert bool(found) is not agree


def test_vllms_counters_are_read_from_its_page() -> None:
    page = (
        'vllm:prompt_tokens_total{engine="0",model_name="m"} 12.0\n'
        'vllm:prompt_tokens_by_source_total{engine="0"} 5.0\n'
        'vllm:generation_tokens_total{engine="0",model_name="m"} 3.0\n'
    )
    assert counted_by_vllm(page) == Counted(12, 3)


def test_a_request_follows_from_its_seed_and_number() -> None:
    made = [attack(5, number, SMALL) for number in range(200)]
    again = [attack(5, number, SMALL) for number in reversed(range(200))]
    assert [one.raw for one in made] == [one.raw for one in reversed(again)]
    assert {one.raw for one in made} != {attack(6, number, SMALL).raw for number in range(200)}
    assert sum(len(one.raw) for one in made) < 2**21
    ways = {way for one in made for way in one.how}
    assert {"key", "path", "leaves", "sent in part"} < ways and len(ways) > 100
