"""Do any text and any chat become tokens and come back?"""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from demo import tokenizer as text


@functools.cache
def learnt() -> PreTrainedTokenizerFast:
    return text.learn(["Where is my order?", "Your order is here."], voices=2, vocab_size=300, max_length=64)


@given(st.text())
def test_any_text_survives_a_round_trip(message: str) -> None:
    plain = message.replace("<|", "")

    assert learnt().decode(text.encode(learnt(), plain)) == plain


def test_the_same_text_gives_the_same_tokens() -> None:
    again = text.learn(["Where is my order?", "Your order is here."], voices=2, vocab_size=300, max_length=64)

    assert again.get_vocab() == learnt().get_vocab()
    assert len(again) <= 300


def test_a_chat_is_rendered_turn_by_turn() -> None:
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]

    assert learnt().apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|begin|><|system|>Be kind.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|>"
        "<|user|>Bye<|end|><|assistant|>"
    )
    assert learnt().apply_chat_template(chat[:1], tokenize=False).endswith("Be kind.<|end|>")


def test_every_marker_is_one_token_and_plain_prompts_begin_with_bos() -> None:
    tokenizer = learnt()

    for marker in (text.BOS, text.EOS, text.PAD, text.SYSTEM, text.USER, text.ASSISTANT, text.voice(1)):
        assert len(text.encode(tokenizer, marker)) == 1
    assert tokenizer("Hi")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.eos_token == text.EOS
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
