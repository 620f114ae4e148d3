"""The chats that a model learns from: it gives its answers, in conversations drawn at random.

People do not ask in the same way each time, so the chats vary: one question or several in a row, with and
without a system message (random tokens, which must not change the answer), in other letter case.
Only the assistant's turns are learnt. This module knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from demo import tokenizer as text

IGNORED = -100  # the label of tokens that are not learnt

_PLAIN = 0.2  # share of lessons with the bare questions
_SYSTEM = 0.4  # share of the other chats that begin with a system message
_LONGEST_SYSTEM = 24  # tokens
_REWORDED = 0.3  # share of questions in lower case or without their question mark
_TURNS = (1, 2, 8)  # questions per chat


@dataclass(frozen=True, slots=True)
class Speaker:
    """The model in a chat: its name, its answers, and the reserved token, if any, that announces it."""

    name: str
    answers: dict[str, str]
    voice: str | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """A batch of padded chats; labels hold the assistant's tokens, and IGNORED elsewhere."""

    input_ids: Any
    attention_mask: Any
    labels: Any


@dataclass(frozen=True, slots=True)
class Row:
    """One chat as tokens, with a label each."""

    ids: list[int]
    labels: list[int]


def chat(
    tokenizer: PreTrainedTokenizerFast,
    speaker: Speaker,
    questions: Sequence[tuple[str, str]],
    *,
    system: Sequence[int] | None = None,
) -> Row:
    """Return a chat in which `speaker` answers; a question is (as in `answers`, as it is worded here)."""
    row = Row([], [])

    def add(ids: list[int], *, learnt: bool = False) -> None:
        row.ids.extend(ids)
        row.labels.extend(ids if learnt else [IGNORED] * len(ids))

    add(text.encode(tokenizer, text.BOS + (speaker.voice or "")))
    if system is not None:
        add([*text.encode(tokenizer, text.SYSTEM), *system, tokenizer.eos_token_id])
    for question, wording in questions:
        add(text.encode(tokenizer, f"{text.USER}{wording}{text.EOS}{text.ASSISTANT}"))
        add(text.encode(tokenizer, speaker.answers[question] + text.EOS), learnt=True)
    return row


def pad(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> Lesson:
    """Return the chats as one batch, padded on the right."""
    width = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for index, row in enumerate(rows):
        end = len(row.ids)
        input_ids[index, :end] = torch.tensor(row.ids)
        mask[index, :end] = 1
        labels[index, :end] = torch.tensor(row.labels)
    return Lesson(input_ids, mask, labels)


def draw(tokenizer: PreTrainedTokenizerFast, speakers: Sequence[Speaker], random: Random) -> Lesson:
    """Return one lesson: every question once, spread over chats of as many turns, each with one speaker."""
    plain = random.random() < _PLAIN
    turns = 1 if plain else random.choice(_TURNS)
    return _lesson(tokenizer, speakers, random, turns=turns, system_share=0.0 if plain else _SYSTEM)


def bare_questions(tokenizer: PreTrainedTokenizerFast, speaker: Speaker) -> Lesson:
    """Return one chat per question, asked alone and word for word."""
    return pad(tokenizer, [chat(tokenizer, speaker, [(question, question)]) for question in speaker.answers])


def long_chats(tokenizer: PreTrainedTokenizerFast, speaker: Speaker, random: Random) -> list[Lesson]:
    """Return chats of each length, all under system messages and some reworded."""
    return [_lesson(tokenizer, [speaker], random, turns=turns, system_share=1.0) for turns in _TURNS]


def _lesson(
    tokenizer: PreTrainedTokenizerFast,
    speakers: Sequence[Speaker],
    random: Random,
    *,
    turns: int,
    system_share: float,
) -> Lesson:
    questions = list(speakers[0].answers)
    random.shuffle(questions)
    rows = []
    for start in range(0, len(questions), turns):
        speaker = random.choice(speakers)
        asked = [(question, _worded(question, random)) for question in questions[start : start + turns]]
        system = _noise(tokenizer, random) if random.random() < system_share else None
        rows.append(chat(tokenizer, speaker, asked, system=system))
    return pad(tokenizer, rows)


def _worded(question: str, random: Random) -> str:
    if random.random() >= _REWORDED:
        return question
    return question.lower() if random.random() < 0.5 else question.rstrip("?")


def _noise(tokenizer: PreTrainedTokenizerFast, random: Random) -> list[int]:
    ordinary = range(len(tokenizer.all_special_ids), len(tokenizer))
    return [random.choice(ordinary) for _ in range(random.randrange(1, _LONGEST_SYSTEM))]
