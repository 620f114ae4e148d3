"""Every kind of adapter that an engine would refuse, break on, or serve wrongly; and those it serves."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.base_model import BaseModelShape, read_shape
from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.verify import verify
from tests import adapter_kinds as kinds


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelShape:
    return read_shape(kinds.write_base(tmp_path_factory.mktemp("base") / "tiny"))


def refusal(folder: Path, base: BaseModelShape | None, **options: Any) -> str:
    with pytest.raises(AdapterError) as raised:
        verify(folder, base=base, **options)
    return str(raised.value)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_good_adapter_is_described_as_inspection_does(
    tmp_path: Path, base: BaseModelShape, dtype: str
) -> None:
    folder = kinds.good(dtype).write(tmp_path / "a")
    manifest = verify(folder, base=base, max_rank=2)
    assert manifest == replace(inspect_adapter(folder), is_effective=True)
    assert manifest.warnings == ()
    json.dumps(asdict(manifest), allow_nan=False)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_each_kind_is_refused_in_its_own_words(tmp_path: Path, base: BaseModelShape, kind: str) -> None:
    message = refusal(kinds.build(kind, tmp_path / "a"), base)
    assert kinds.KINDS[kind][1] in message
    assert str(tmp_path) not in message
    assert message.isprintable()
    assert len(message) < 600


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, base: BaseModelShape) -> None:
    message = refusal(kinds.build_link(tmp_path / "a"), base)
    assert "is a link that leaves the folder" in message
    assert str(tmp_path) not in message


def test_a_rank_over_the_limit_names_both(tmp_path: Path, base: BaseModelShape) -> None:
    folder = kinds.good(rank=4).write(tmp_path / "a")
    assert "has rank 4, the base model takes at most 2" in refusal(folder, base, max_rank=2)
    assert verify(folder, base=base, max_rank=4).rank == 4


def test_without_the_base_model_names_are_not_compared_and_the_manifest_says_so(tmp_path: Path) -> None:
    manifest = verify(kinds.build("wrong prefix", tmp_path / "a"), base=None)
    assert manifest.warnings == (
        "names and shapes were not compared with the base model, whose files are not here",
    )
    assert "not finite" in refusal(kinds.build("nan in BF16", tmp_path / "b"), None)


def test_names_without_pefts_prefix_are_what_vllm_takes_too(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    parts.rename("base_model.model.", "")
    assert verify(parts.write(tmp_path / "a"), base=base).rank == 2


def test_a_module_may_have_a_rank_of_its_own(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    parts.config["rank_pattern"] = {r"layers\.0\.self_attn.q_proj": 4, "^model.layers.[0-9]+.none": 1}
    parts.replace(f"{kinds.Q_PROJ}.lora_A.weight", np.ones((4, kinds.HIDDEN)))
    parts.replace(f"{kinds.Q_PROJ}.lora_B.weight", np.ones((kinds.HIDDEN, 4)))
    assert verify(parts.write(tmp_path / "a"), base=base).rank == 4


def test_a_pattern_of_target_modules_is_not_tried(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    parts.config["target_modules"] = "(a+)+$"
    assert verify(parts.write(tmp_path / "a"), base=base).target_modules == ("(a+)+$",)


def test_one_trained_module_is_enough(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    trained = parts.tensors[f"{kinds.Q_PROJ}.lora_B.weight"]
    kinds.KINDS["untrained"][0](parts)
    parts.tensors[f"{kinds.Q_PROJ}.lora_B.weight"] = trained
    assert verify(parts.write(tmp_path / "a"), base=base).rank == 2


def test_halves_of_one_module_that_are_never_both_trained_change_nothing(
    tmp_path: Path, base: BaseModelShape
) -> None:
    parts = kinds.good()
    for name, (dtype, shape, content) in parts.tensors.items():
        if ("lora_A" in name) == ("layers.0" in name):
            parts.tensors[name] = (dtype, shape, bytes(len(content)))
    assert "answers like the base model" in refusal(parts.write(tmp_path / "a"), base)


def test_negative_zeros_are_zeros(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    for name, (_, shape, _) in parts.tensors.items():
        if "lora_B" in name:
            parts.replace(name, np.full(shape, -0.0), "BF16")
    assert "answers like the base model" in refusal(parts.write(tmp_path / "a"), base)


@pytest.mark.parametrize("where", ["config", "metadata", "both"])
def test_the_base_model_that_an_adapter_names_by_fingerprint_is_held_to_it(
    tmp_path: Path, base: BaseModelShape, where: str
) -> None:
    def adapter(fingerprint: str) -> kinds.Parts:
        parts = kinds.good()
        if where in ("config", "both"):
            parts.config["base_model_fingerprint"] = fingerprint
        if where in ("metadata", "both"):
            parts.metadata = {"base_model_fingerprint": fingerprint}
        return parts

    right = verify(adapter(base.fingerprint).write(tmp_path / "right"), base=base)
    assert right.base_model_fingerprint == base.fingerprint
    assert base.fingerprint in refusal(adapter("f" * 64).write(tmp_path / "wrong"), base)


def test_two_fingerprints_in_one_adapter_are_refused(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    parts.config["base_model_fingerprint"] = base.fingerprint
    parts.metadata = {"base_model_fingerprint": "f" * 64}
    assert "name different values" in refusal(parts.write(tmp_path / "a"), base)


def test_another_base_models_name_is_a_warning(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    parts.config["base_model_name_or_path"] = "org/Other-8B/"
    (warning,) = verify(parts.write(tmp_path / "a"), base=base).warnings
    assert warning == "trained on 'Other-8B', as it says, and checked against tiny"


def embedding_adapter(*, rows: int = kinds.VOCAB) -> kinds.Parts:
    parts = kinds.good()
    parts.config["target_modules"] = [*parts.config["target_modules"], "embed_tokens", "lm_head"]
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    parts.replace(f"{name}A", np.ones((kinds.RANK, rows)))
    parts.replace(f"{name}B", np.ones((kinds.HIDDEN, kinds.RANK)))
    parts.replace("base_model.model.lm_head.lora_A.weight", np.ones((kinds.RANK, kinds.HIDDEN)))
    parts.replace("base_model.model.lm_head.lora_B.weight", np.ones((kinds.VOCAB, kinds.RANK)))
    return parts


def test_embeddings_are_taken_where_vllm_has_them(tmp_path: Path, base: BaseModelShape) -> None:
    assert verify(embedding_adapter().write(tmp_path / "a"), base=base).rank == 2
    grown = embedding_adapter(rows=kinds.VOCAB + 1).write(tmp_path / "grown")
    assert "trained on another base model" in refusal(grown, base)


def test_embeddings_are_refused_where_vllm_has_none(tmp_path: Path) -> None:
    qwen = read_shape(kinds.write_base(tmp_path / "qwen", architecture="Qwen2ForCausalLM"))
    message = refusal(embedding_adapter().write(tmp_path / "a"), qwen)
    assert "vLLM has no LoRA for the embed_tokens of Qwen2ForCausalLM; train without it" in message


def test_a_linear_pair_for_an_embedding_is_refused(tmp_path: Path, base: BaseModelShape) -> None:
    parts = embedding_adapter()
    parts.rename("lora_embedding_A", "lora_A.weight")
    parts.rename("lora_embedding_B", "lora_B.weight")
    assert "model.embed_tokens is an embedding" in refusal(parts.write(tmp_path / "a"), base)


def experts(*, fused: bool, rank: int = kinds.RANK) -> tuple[dict[str, kinds.Raw], kinds.Parts]:
    """A base model of two experts in one layer, and an adapter of them."""
    parts = kinds.good()
    parts.tensors.clear()
    parts.config["target_modules"] = ["gate_proj", "up_proj", "down_proj"]
    layer = "model.layers.0.mlp.experts"
    weights = {}
    if fused:
        parts.config |= {"target_modules": [], "target_parameters": ["experts.gate_up_proj"], "r": rank}
        for name, module, (rows, columns) in (
            ("gate_up_proj", f"{layer}.base_layer", (8, 32)),
            ("down_proj", layer, (16, 8)),
        ):
            weights[f"{layer}.{name}"] = kinds.raw(np.ones((2, rows, columns)))
            parts.replace(f"base_model.model.{module}.lora_A.weight", np.ones((2 * kinds.RANK, rows)))
            parts.replace(f"base_model.model.{module}.lora_B.weight", np.ones((columns, 2 * kinds.RANK)))
        return weights, parts
    for expert in range(2):
        for name in ("gate_proj", "up_proj", "down_proj"):
            outputs, inputs = kinds.LINEAR[f"mlp.{name}"]
            module = f"{layer}.{expert}.{name}"
            weights[f"{module}.weight"] = kinds.raw(np.ones((outputs, inputs)))
            parts.replace(f"base_model.model.{module}.lora_A.weight", np.ones((rank, inputs)))
            parts.replace(f"base_model.model.{module}.lora_B.weight", np.ones((outputs, rank)))
    return weights, parts


def test_experts_are_taken_one_by_one(tmp_path: Path) -> None:
    weights, parts = experts(fused=False)
    moe = read_shape(kinds.write_base(tmp_path / "moe", weights, architecture="Qwen3MoeForCausalLM"))
    assert verify(parts.write(tmp_path / "a"), base=moe).rank == 2


@pytest.mark.parametrize("lost", ["experts.1.up_proj", "experts.0", "up_proj"])
def test_a_layer_with_some_of_its_experts_adapted_is_refused(tmp_path: Path, lost: str) -> None:
    weights, parts = experts(fused=False)
    moe = read_shape(kinds.write_base(tmp_path / "moe", weights, architecture="Qwen3MoeForCausalLM"))
    parts.tensors = {name: tensor for name, tensor in parts.tensors.items() if lost not in name}
    assert "vLLM wants all experts of a layer adapted, or none" in refusal(parts.write(tmp_path / "a"), moe)


def test_experts_of_different_ranks_are_refused(tmp_path: Path) -> None:
    weights, parts = experts(fused=False)
    moe = read_shape(kinds.write_base(tmp_path / "moe", weights, architecture="Qwen3MoeForCausalLM"))
    parts.config["rank_pattern"] = {"experts.1.up_proj": 1}
    name = "base_model.model.model.layers.0.mlp.experts.1.up_proj"
    parts.replace(f"{name}.lora_A.weight", np.ones((1, 8)))
    parts.replace(f"{name}.lora_B.weight", np.ones((16, 1)))
    assert "experts of rank 2 and of rank 1" in refusal(parts.write(tmp_path / "a"), moe)


def test_fused_experts_are_taken_where_vllm_fuses_them(tmp_path: Path) -> None:
    weights, parts = experts(fused=True)
    fused = read_shape(kinds.write_base(tmp_path / "fused", weights, architecture="GptOssForCausalLM"))
    assert verify(parts.write(tmp_path / "a"), base=fused).rank == 2
    single, _ = experts(fused=False)
    moe = read_shape(kinds.write_base(tmp_path / "moe", single, architecture="Qwen3MoeForCausalLM"))
    assert "Qwen3MoeForCausalLM wants them one by one" in refusal(tmp_path / "a", moe)


def test_fused_experts_of_another_rank_or_half_of_them_are_refused(tmp_path: Path) -> None:
    weights, parts = experts(fused=True, rank=1)
    fused = read_shape(kinds.write_base(tmp_path / "fused", weights, architecture="GptOssForCausalLM"))
    assert "not rank 1 for each expert" in refusal(parts.write(tmp_path / "rank"), fused)
    _, parts = experts(fused=True)
    parts.tensors = {name: tensor for name, tensor in parts.tensors.items() if "base_layer" not in name}
    assert "vLLM wants all experts" in refusal(parts.write(tmp_path / "half"), fused)


def test_the_weights_are_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    parts = kinds.good()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    parts.tensors.clear()
    parts.replace(f"{module}.lora_A.weight", np.ones((kinds.RANK, 8_000_000), dtype=np.float32))
    parts.replace(f"{module}.lora_B.weight", np.ones((1, kinds.RANK)))
    folder = parts.write(tmp_path / "a")
    del parts
    tracemalloc.start()
    try:
        verify(folder, base=None)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20 < (folder / kinds.WEIGHTS).stat().st_size
    finally:
        tracemalloc.stop()


def test_what_peft_saves_is_taken(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "tiny")
    lora = peft.LoraConfig(
        r=4, target_modules="all-linear", rank_pattern={"q_proj": 2}, init_lora_weights=False
    )
    adapted = peft.get_peft_model(model, lora).to(torch.bfloat16)
    adapted.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "README.md").unlink(missing_ok=True)
    manifest = verify(tmp_path / "a", base=read_shape(tmp_path / "tiny"), max_rank=4)
    assert manifest.rank == 4
    assert any(module.endswith("down_proj") for module in manifest.target_modules)


def test_an_effect_is_certain_where_all_was_compared_and_nothing_is_zero(
    tmp_path: Path, base: BaseModelShape
) -> None:
    parts = kinds.good()
    assert verify(parts.write(tmp_path / "a"), base=base).is_effective
    assert not verify(tmp_path / "a", base=None).is_effective
    name = f"{kinds.Q_PROJ}.lora_B.weight"
    parts.replace(name, np.zeros((kinds.HIDDEN, 2)))
    assert not verify(parts.write(tmp_path / "b"), base=base).is_effective


def test_an_effect_is_not_certain_where_a_module_is_scaled_by_nothing(
    tmp_path: Path, base: BaseModelShape
) -> None:
    parts = kinds.good()
    parts.config["alpha_pattern"] = {"q_proj": 0}
    assert not verify(parts.write(tmp_path / "a"), base=base).is_effective


def test_an_alpha_for_some_modules_is_enough(tmp_path: Path, base: BaseModelShape) -> None:
    parts = kinds.good()
    parts.config |= {"lora_alpha": 0, "alpha_pattern": {"q_proj": 4}}
    assert not verify(parts.write(tmp_path / "a"), base=base).is_effective
    parts.config["alpha_pattern"] = {".*proj": 4}
    assert verify(parts.write(tmp_path / "b"), base=base).is_effective
