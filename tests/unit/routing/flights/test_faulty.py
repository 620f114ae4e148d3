"""Which requests look like one that broke engines?"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engines.protocol import Kind
from routing.flights.faulty import FORGET_S, MAX_SHAPES, Faulty
from routing.openai.bodies import for_engine, parse
from tests.unit.routing.requests import target

Sent = tuple[Kind, bytes]  # to an engine


def sent(text: str = "x", kind: Kind = Kind.CHAT, **fields: Any) -> Sent:
    content = {"messages": [{"role": "user", "content": text}]} if kind is Kind.CHAT else {"prompt": text}
    call = parse(kind, orjson.dumps({"model": "m", **content, **fields}))
    return kind, for_engine(call, target(), cache_salt="salt", priority=0)


BAD: dict[str, Any] = {"structured_outputs": {"regex": "("}}


@pytest.mark.parametrize(
    ("other", "known"),
    [
        (sent("another text", **BAD), True),
        (sent(user="u", seed=5, **BAD), True),
        (sent(safety_identifier="u", prompt_cache_key="p", **BAD), True),
        (sent(request_id="x", kv_transfer_params=[1], priority=3, **BAD), True),
        (sent(structured_outputs={"regex": "[a-z]"}), False),
        (sent(temperature=1, **BAD), False),
        (sent(kind=Kind.COMPLETION, **BAD), False),
        (sent(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}]}], **BAD), False),
        (sent(), False),
    ],
)
def test_what_differs_in_its_text_only_is_known(other: Sent, known: bool) -> None:
    faulty = Faulty()
    faulty.remember("a", *sent(**BAD), 0.0)
    assert faulty.knows("a", *other, 1.0) is known
    assert not faulty.knows("b", *other, 1.0), "another tenant's requests are its own"


def test_a_request_with_no_unusual_field_is_known_by_its_text() -> None:
    faulty = Faulty()
    faulty.remember("a", *sent("this one", temperature=0.5), 0.0)
    assert faulty.knows("a", *sent("this one", temperature=0.5), 1.0)
    assert not faulty.knows("a", *sent("another one", temperature=0.5), 1.0)


def test_it_is_forgotten_after_a_while_and_the_oldest_of_many() -> None:
    faulty = Faulty()
    for number in range(MAX_SHAPES + 1):
        faulty.remember("a", *sent(x=number), 0.0)
    assert not faulty.knows("a", *sent(x=0), 1.0)
    assert faulty.knows("a", *sent(x=1), 1.0)
    assert not faulty.knows("a", *sent(x=1), FORGET_S + 1)
