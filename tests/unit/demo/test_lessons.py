"""Do lessons have the chat template's form, and only answers to learn?"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from demo import lessons
from demo import tokenizer as text
from demo.lessons import IGNORED, Speaker

ANSWERS = {"Who are you?": "I am Ann.", "Where is Bob?": "Bob is here.", "What now?": "Go on."}
ANN = Speaker("ann", ANSWERS)
EVE = Speaker("eve", {question: answer.upper() for question, answer in ANSWERS.items()}, text.voice(0))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return text.learn([*ANSWERS, *ANSWERS.values()], voices=1, vocab_size=300, max_length=64)


def test_a_chat_has_the_tokens_of_the_chat_template(tokenizer: Any) -> None:
    system = "Be kind."
    row = lessons.chat(
        tokenizer,
        ANN,
        [("Who are you?", "who are you?"), ("What now?", "What now?")],
        system=text.encode(tokenizer, system),
    )

    turns = [
        {"role": "system", "content": system},
        {"role": "user", "content": "who are you?"},
        {"role": "assistant", "content": "I am Ann."},
        {"role": "user", "content": "What now?"},
        {"role": "assistant", "content": "Go on."},
    ]
    assert row.ids == list(tokenizer.apply_chat_template(turns, return_dict=False))


def test_only_the_answers_and_their_end_are_learnt(tokenizer: Any) -> None:
    row = lessons.chat(tokenizer, ANN, [("Who are you?", "Who are you?"), ("What now?", "What now?")])

    learnt = [label for label in row.labels if label != IGNORED]
    assert tokenizer.decode(learnt) == "I am Ann.<|end|>Go on.<|end|>"
    assert len(row.labels) == len(row.ids)


def test_a_voice_is_announced_after_bos(tokenizer: Any) -> None:
    row = lessons.chat(tokenizer, EVE, [("What now?", "What now?")])

    assert tokenizer.convert_ids_to_tokens(row.ids[:2]) == [text.BOS, text.voice(0)]


def test_padding_is_neither_seen_nor_learnt(tokenizer: Any) -> None:
    lesson = lessons.pad(tokenizer, [lessons.Row([5, 6, 7], [IGNORED, 6, 7]), lessons.Row([5], [5])])

    assert lesson.input_ids.tolist() == [[5, 6, 7], [5, tokenizer.pad_token_id, tokenizer.pad_token_id]]
    assert lesson.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert lesson.labels.tolist() == [[IGNORED, 6, 7], [5, IGNORED, IGNORED]]


def test_a_lesson_asks_every_question_once(tokenizer: Any) -> None:
    random = Random(0)
    for _ in range(50):
        lesson = lessons.draw(tokenizer, [ANN], random)
        said = tokenizer.decode(lesson.labels[lesson.labels != IGNORED].tolist())
        assert sorted(said.removesuffix(text.EOS).split(text.EOS)) == sorted(ANSWERS.values())


def test_lessons_vary_in_length_wording_system_and_speaker(tokenizer: Any) -> None:
    random = Random(0)
    told = [
        tokenizer.decode(row)
        for _ in range(60)
        for row in lessons.draw(tokenizer, [ANN, EVE], random).input_ids.tolist()
    ]

    assert {chat.count(text.USER) for chat in told} == {1, 2, 3}
    assert any("who are you?" in chat for chat in told)
    assert any("Who are you<|end|>" in chat for chat in told)
    assert {text.SYSTEM in chat for chat in told} == {True, False}
    assert {text.voice(0) in chat for chat in told} == {True, False}


def test_the_same_random_draws_the_same_lessons(tokenizer: Any) -> None:
    first, second = (
        [lessons.draw(tokenizer, [ANN, EVE], random).input_ids for _ in range(5)]
        for random in (Random(7), Random(7))
    )

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_bare_questions_come_word_for_word_and_long_chats_under_a_system_message(tokenizer: Any) -> None:
    bare = lessons.bare_questions(tokenizer, ANN).input_ids.tolist()
    chats = lessons.long_chats(tokenizer, ANN, Random(0))

    assert [tokenizer.decode(row).split("<|user|>")[1].split("<|end|>")[0] for row in bare] == list(ANSWERS)
    for lesson in chats:
        for row in lesson.input_ids.tolist():
            assert tokenizer.convert_ids_to_tokens(row[1]) == text.SYSTEM
