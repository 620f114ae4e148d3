"""How much of a stream is held back? Until its text has been looked at, together with the end before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from fleet.content import Guard, OnFailure
from routing.asgi import HeaderList
from routing.errors import ContentFlagged
from routing.flights.guards import MAX_HELD_BYTES, Guards, HeldBack, Watch, flagged_in
from tests.fakes import chunk, sse

BAD = "bomb"
HELD = 8
GUARD = Guard(OnFailure.REFUSE, plugin="words", hold_back_chars=HELD)


class Out:
    """Where a stream goes."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def begin(self, status: int, headers: HeaderList) -> None:
        self.sent.append(b"head")

    async def send_body(self, data: bytes, *, more: bool) -> None:
        self.sent.append(data)

    @property
    def text(self) -> str:
        events = [
            line[6:] for line in b"".join(self.sent[1:]).decode().splitlines() if line.startswith("data: {")
        ]
        return "".join(
            c["delta"].get("content", "") for event in events for c in json.loads(event)["choices"]
        )


class Looks(Guards):
    """A guard that flags a word, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def ask(self, guard: Guard, found: Sequence[str], **_: Any) -> list[str]:
        self.seen += found
        return ["words"] if any(BAD in text for text in found) else []


def event(text: str, index: int = 0) -> bytes:
    told = chunk("m", {"content": text})
    told["choices"][0]["index"] = index
    return sse(told)


async def send(pieces: Sequence[bytes]) -> tuple[Out, Looks]:
    """Send a stream's events one by one. Raises `ContentFlagged`, with what was sent before in its `args`."""
    out, looks = Out(), Looks()
    held = HeldBack(out, Watch(looks, GUARD, "a"), "m")  # type: ignore[arg-type]
    await held.begin(200, [])
    try:
        for number, piece in enumerate(pieces, start=1):
            await held.send_body(piece, more=number < len(pieces))
    except ContentFlagged as error:
        error.args = (out,)
        raise
    return out, looks


async def test_everything_comes_in_order_and_no_more_is_held_than_said() -> None:
    pieces = [event(f"word{number:02d} ") for number in range(30)]
    out, looks = await send([*pieces, b"data: [DONE]\n\n"])
    assert out.sent[0] == b"head" and b"".join(out.sent[1:]) == b"".join(pieces) + b"data: [DONE]\n\n"
    assert len(out.sent) > 10, "it is sent as it comes"
    assert max(map(len, looks.seen)) <= 2 * HELD + len("word00 ")


@pytest.mark.parametrize("before", [0, 3, 5, 7, 8, 9, 40])
@pytest.mark.parametrize("cut", range(1, len(BAD)))
async def test_no_word_hides_between_two_looks(before: int, cut: int) -> None:
    with pytest.raises(ContentFlagged) as caught:
        await send([*(event("x") for _ in range(before)), event(BAD[:cut]), event(BAD[cut:]), event("!")])
    out = caught.value.args[0]
    assert BAD not in out.text and not out.text.endswith("!")


async def test_a_word_whose_letters_are_spread_over_events_is_found() -> None:
    with pytest.raises(ContentFlagged):
        await send([event("x" * 7), *map(event, BAD)])


async def test_choices_are_looked_at_apart() -> None:
    turns = [
        event(letter, index)
        for letters in zip(BAD, "good", strict=True)
        for index, letter in enumerate(letters)
    ]
    with pytest.raises(ContentFlagged):
        await send(turns)
    await send([event("bo", 0), event("mb", 1)])


async def test_events_without_text_are_held_within_a_bound() -> None:
    comment = b": " + b"x" * 4000 + b"\n\n"
    out, looks = await send([comment] * (MAX_HELD_BYTES // 4000 * 3))
    assert len(out.sent) >= 3 and looks.seen == []


@pytest.mark.parametrize(
    ("results", "names"),
    [
        ([{"flagged": False, "categories": {"a": False}}], []),
        ([{"flagged": True, "categories": {"a": True, "b": False}}], ["a"]),
        ([{"flagged": False}, {"flagged": True, "categories": {"b": True}}], ["b"]),
        ([{"flagged": True}], ["flagged"]),
        ([{"flagged": True, "categories": None}], ["flagged"]),
    ],
)
def test_a_moderation_is_read(results: Any, names: list[str]) -> None:
    assert flagged_in(json.dumps({"results": results}).encode()) == names
