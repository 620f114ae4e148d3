"""Which requests look like one that broke engines?"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engines.protocol import Kind
from routing.flights.faulty import FORGET_S, MAX_SHAPES, Faulty
from routing.openai.bodies import Call, parse


def call(text: str = "x", kind: Kind = Kind.CHAT, **fields: Any) -> Call:
    content = {"messages": [{"role": "user", "content": text}]} if kind is Kind.CHAT else {"prompt": text}
    return parse(kind, orjson.dumps({"model": "m", **content, **fields}))


BAD: dict[str, Any] = {"structured_outputs": {"regex": "("}}


@pytest.mark.parametrize(
    ("other", "known"),
    [
        (call("another text", **BAD), True),
        (call(user="u", seed=5, **BAD), True),
        (call(safety_identifier="u", prompt_cache_key="p", **BAD), True),
        (call(request_id="x", kv_transfer_params=[1], priority=3, **BAD), True),
        (call(structured_outputs={"regex": "[a-z]"}), False),
        (call(temperature=1, **BAD), False),
        (call(kind=Kind.COMPLETION, **BAD), False),
        (call(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}]}], **BAD), False),
        (call(), False),
    ],
)
def test_what_differs_in_its_text_only_is_known(other: Call, known: bool) -> None:
    faulty = Faulty()
    faulty.remember("a", call(**BAD), 0.0)
    assert faulty.knows("a", other, 1.0) is known
    assert not faulty.knows("b", other, 1.0), "another tenant's requests are its own"


def test_a_request_with_no_unusual_field_is_known_by_its_text() -> None:
    faulty = Faulty()
    faulty.remember("a", call("this one", temperature=0.5), 0.0)
    assert faulty.knows("a", call("this one", temperature=0.5), 1.0)
    assert not faulty.knows("a", call("another one", temperature=0.5), 1.0)


def test_it_is_forgotten_after_a_while_and_the_oldest_of_many() -> None:
    faulty = Faulty()
    for number in range(MAX_SHAPES + 1):
        faulty.remember("a", call(x=number), 0.0)
    assert not faulty.knows("a", call(x=0), 1.0)
    assert faulty.knows("a", call(x=1), 1.0)
    assert not faulty.knows("a", call(x=1), FORGET_S + 1)
