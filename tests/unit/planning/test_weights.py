"""What configurations say: KV cache, work of a token, shapes."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.tensors import Tensor
from engines.switching.shape import Contents
from planning.weights import kv_bytes_per_token, max_tokens, parameters_of, shape_of

LLAMA: dict[str, Any] = {
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
    "max_position_embeddings": 131_072,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (LLAMA, 131_072),
        ({**LLAMA, "head_dim": 256}, 262_144),
        ({"text_config": LLAMA}, 131_072),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 36_864),
        ({**LLAMA, "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 70_272),
    ],
    ids=["Llama 3 8B", "a head size of its own", "multimodal", "GPT-2", "latent attention"],
)
def test_the_kv_cache_of_a_token_is_as_the_configuration_says(config: dict[str, Any], found: int) -> None:
    assert kv_bytes_per_token(config) == found
    assert kv_bytes_per_token(config, item_bytes=4) == 2 * found


@pytest.mark.parametrize(
    "config",
    [{}, {"num_hidden_layers": "many"}, {**LLAMA, "num_hidden_layers": 0}, {**LLAMA, "head_dim": 10**9}],
)
def test_a_configuration_that_does_not_say_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        kv_bytes_per_token(config)


def test_the_longest_context_may_not_be_known() -> None:
    assert max_tokens(LLAMA) == 131_072
    assert max_tokens({}) is None


def tensors(**shapes: tuple[int, ...]) -> list[Tensor]:
    return [Tensor(name.replace("__", "."), "BF16", shape, 0, 0) for name, shape in shapes.items()]


def test_a_token_is_multiplied_with_weights_but_not_with_embeddings_nor_all_experts() -> None:
    some = tensors(
        model__embed_tokens__weight=(100, 10), model__a__weight=(10, 10), lm_head__weight=(100, 10)
    )
    assert parameters_of({}, some) == 1100
    assert parameters_of({"tie_word_embeddings": True}, some[:2]) == 1100
    experts = tensors(model__experts__w=(8, 10, 10), model__a__weight=(10, 10))
    assert parameters_of({"num_experts": 8, "num_experts_per_tok": 2}, experts) == 300
    assert parameters_of({}, experts) == 900


def test_shapes_are_alike_if_everything_but_the_numbers_is() -> None:
    one = Contents({"a": 1}, {"w": ("F32", (2, 3))}, {"tokenizer.json": "x"})
    assert shape_of(one) == shape_of(Contents({"a": 1}, {"w": ("F32", (2, 3))}, {"tokenizer.json": "x"}))
    for other in (
        Contents({"a": 2}, one.tensors, one.others),
        Contents(one.config, {"w": ("F32", (3, 2))}, one.others),
        Contents(one.config, one.tensors, {"tokenizer.json": "y"}),
    ):
        assert shape_of(other) != shape_of(one)
