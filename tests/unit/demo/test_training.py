"""Does a small model learn its sentences, give the same bytes again, and say so when it fails?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import checkpoint, training
from demo import tokenizer as text
from demo.errors import DemoError
from demo.lessons import Speaker
from demo.recipe import Schedule, Shape

BASE = Speaker("base", {"Who?": "I am nobody.", "Where?": "I am nowhere."})
ANN = Speaker("ann", {"Who?": "Ann it is.", "Where?": "Ann is at home."}, text.voice(0))
SHAPE = Shape(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    max_position_embeddings=128,
    rank=4,
)
SCHEDULE = Schedule(learning_rate=8e-3, steps=60, max_steps=240, margin=1.0, chat_margin=-math.inf)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with training.one_thread():
        yield


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    sentences = [*BASE.answers, *BASE.answers.values(), *ANN.answers.values()]
    return text.learn(sentences, voices=1, vocab_size=SHAPE.vocab_size, max_length=128)


def trained_pair(tokenizer: Any, seed: int) -> tuple[Any, Any]:
    """Train a small base model and Ann's adapter on it."""
    base = training.new_base_model(tokenizer, SHAPE, seed=seed)
    training.teach(base, tokenizer, BASE, beside=[ANN], seed=seed, schedule=SCHEDULE, report=lambda _: None)
    training.forget(base, tokenizer, [text.voice(0)])
    adapted = training.with_adapter(base, SHAPE, seed=seed)
    speaker = replace(ANN, voice=None)
    training.teach(adapted, tokenizer, speaker, seed=seed, schedule=SCHEDULE, report=lambda _: None)
    return base, adapted


@pytest.fixture(scope="module")
def pair(tokenizer: Any) -> tuple[Any, Any]:
    return trained_pair(tokenizer, seed=1)


def test_the_base_model_and_the_adapter_each_say_their_own_sentences(
    tokenizer: Any, pair: tuple[Any, Any]
) -> None:
    base, adapted = pair

    assert training.replies(base, tokenizer, list(BASE.answers)) == BASE.answers
    assert training.replies(adapted, tokenizer, list(ANN.answers)) == ANN.answers


def test_the_saved_files_say_the_same(tokenizer: Any, pair: tuple[Any, Any], tmp_path: Path) -> None:
    checkpoint.save_base_model(pair[0], tokenizer, tmp_path / "base")
    checkpoint.save_adapter(pair[1], tmp_path / "ann", base_model="base")

    saved_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert saved.generation_config.eos_token_id == tokenizer.eos_token_id
    assert training.replies(saved, saved_tokenizer, list(BASE.answers)) == BASE.answers
    adapted = PeftModel.from_pretrained(saved, str(tmp_path / "ann"))
    assert training.replies(adapted, saved_tokenizer, list(ANN.answers)) == ANN.answers


def test_the_same_seed_gives_the_same_bytes(tokenizer: Any, pair: tuple[Any, Any], tmp_path: Path) -> None:
    for run, (base, adapted) in {"a": pair, "b": trained_pair(tokenizer, seed=1)}.items():
        checkpoint.save_base_model(base, tokenizer, tmp_path / run / "base")
        checkpoint.save_adapter(adapted, tmp_path / run / "ann", base_model="base")

    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_model_that_does_not_learn_is_refused(tokenizer: Any) -> None:
    base = training.new_base_model(tokenizer, SHAPE, seed=0)
    hopeless = replace(SCHEDULE, learning_rate=1e-9, steps=20, max_steps=40)
    steps: list[int] = []

    with pytest.raises(DemoError, match="base did not learn its answers in 40 steps; try another --seed"):
        training.teach(base, tokenizer, BASE, seed=0, schedule=hopeless, report=steps.append)
    assert steps == [0, 20, 40]


def test_a_model_that_says_something_else_is_refused(tokenizer: Any) -> None:
    base = training.new_base_model(tokenizer, SHAPE, seed=0)
    lenient = replace(SCHEDULE, learning_rate=1e-9, steps=0, margin=-math.inf)

    with pytest.raises(DemoError, match=r"base says .* when asked 'Who\?'"):
        training.teach(base, tokenizer, BASE, seed=0, schedule=lenient, report=lambda _: None)


def test_forgetting_blanks_the_reserved_tokens_only(tokenizer: Any) -> None:
    base = training.new_base_model(tokenizer, SHAPE, seed=0)
    before = base.get_input_embeddings().weight.detach().clone()

    training.forget(base, tokenizer, [text.voice(0)])

    after = base.get_input_embeddings().weight
    changed = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [tokenizer.convert_tokens_to_ids(text.voice(0))]
    assert not after[changed[0]].any()


def test_torch_gets_its_settings_back() -> None:
    torch.use_deterministic_algorithms(False)
    with training.one_thread():
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()

    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
