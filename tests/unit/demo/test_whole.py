"""Does a whole model of an adapter answer as the adapter does, whatever its architecture?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from demo import build, training, whole
from demo import tokenizer as text
from demo.answers import WHOLE_MODELS
from demo.recipe import Shape
from fleet import read_fleet

SHAPE = Shape(
    vocab_size=300,
    hidden_size=16,
    intermediate_size=24,
    layers=2,
    heads=2,
    max_position_embeddings=64,
    rank=2,
)

ALIKE = 5e-3  # in logits: other orders of the same sums


@pytest.fixture(scope="module")
def adapted() -> Any:
    """A small base model under an adapter that changes it."""
    tokenizer = text.learn(["Who?", "Nobody."], voices=1, vocab_size=SHAPE.vocab_size, max_length=64)
    model = training.with_adapter(training.new_base_model(tokenizer, SHAPE, seed=1), SHAPE, seed=2)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.5)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        answered: torch.Tensor = model.eval()(input_ids=torch.arange(40)[None]).logits
    return answered


def test_a_merged_model_answers_like_the_adapter_and_leaves_it_as_it_was(adapted: Any) -> None:
    before = logits(adapted)
    merged = whole.merged(adapted)
    with adapted.disable_adapter():
        assert not torch.allclose(logits(adapted), before, atol=1e-2), "the adapter changes something"
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(logits(merged), before, atol=ALIKE, rtol=0.0)
    torch.testing.assert_close(logits(adapted), before)


def test_a_qwen2_of_it_answers_alike_and_is_of_another_shape(adapted: Any) -> None:
    merged = whole.merged(adapted)
    converted = whole.as_qwen2(merged)
    torch.testing.assert_close(logits(converted), logits(merged), atol=ALIKE, rtol=0.0)
    assert converted.config.architectures is None or converted.config.architectures != ["LlamaForCausalLM"]
    assert converted.state_dict().keys() > merged.state_dict().keys()


def test_the_fleet_that_takes_turns_has_the_models_that_are_made() -> None:
    file = Path(build.__file__).parent / "turns.yaml"
    fleet = read_fleet(file).fleet
    (pool,) = fleet.pools.values()
    assert pool.strategy.shares_hosts and set(pool.base_models) == set(WHOLE_MODELS)
    made = file.parent.parent.resolve() / ".cache/demo/whole"
    assert {Path(model.source) for model in fleet.base_models.values()} == {made / n for n in WHOLE_MODELS}


def test_a_gpt2_is_of_a_third_shape_and_the_same_for_the_same_seed() -> None:
    tokenizer = text.learn(["Who?", "Nobody."], voices=1, vocab_size=SHAPE.vocab_size, max_length=64)
    first, again, other = (whole.new_gpt2(tokenizer, SHAPE, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(logits(first), logits(again), atol=0.0, rtol=0.0)
    assert not torch.allclose(logits(first), logits(other))
    assert "llama" not in type(first).__name__.lower() and logits(first).shape[-1] == SHAPE.vocab_size
    assert set(WHOLE_MODELS.values()) == {"llama", "qwen2", "gpt2"}
