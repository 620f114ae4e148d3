"""What is read of a base model: modules and shapes, its fingerprint, and what an adapter cannot change."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import base_model
from adapters.base_model import Module, find_shape, read_shape
from adapters.errors import AdapterError
from tests.adapter_kinds import HIDDEN, VOCAB, Raw, base_tensors, raw, safetensors, write_base


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterError) as raised:
        read_shape(folder)
    return str(raised.value)


def weights(**shapes: tuple[int, ...]) -> dict[str, Raw]:
    return {name.replace("__", "."): raw(np.ones(shape)) for name, shape in shapes.items()}


def shard(folder: Path, tensors: dict[str, Raw]) -> None:
    """Spread a base model over two files, as large ones are."""
    names = sorted(tensors)
    files = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, inside in files.items():
        (folder / file).write_bytes(safetensors({name: tensors[name] for name in inside}))
    places = {name: file for file, inside in files.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_a_base_model_is_read_from_its_headers(tmp_path: Path) -> None:
    shape = read_shape(write_base(tmp_path / "tiny"))
    assert shape.name == "tiny"
    assert shape.architecture == "LlamaForCausalLM"
    assert shape.modules["model.layers.1.mlp.down_proj"] == Module(inputs=16, outputs=8)
    assert shape.modules["model.embed_tokens"] == Module(VOCAB, HIDDEN, is_embedding=True)
    assert len(shape.modules) == 2 * 7 + 2
    assert "model.norm" not in shape.modules


def test_shards_make_no_difference(tmp_path: Path) -> None:
    whole = read_shape(write_base(tmp_path / "a" / "tiny"))
    folder = write_base(tmp_path / "b" / "tiny")
    (folder / "model.safetensors").unlink()
    shard(folder, base_tensors())
    assert read_shape(folder) == whole


def test_the_fingerprint_follows_shapes_types_and_the_architecture(tmp_path: Path) -> None:
    tensors = base_tensors()
    name = "model.layers.0.mlp.up_proj.weight"
    cases: list[tuple[dict[str, Raw], dict[str, Any]]] = [
        (tensors, {}),
        ({**tensors, name: raw(np.ones((16, 9)))}, {}),
        ({**tensors, name: raw(np.ones((16, 8)), "BF16")}, {}),
        ({**tensors, "x.weight": raw(np.ones((1, 1)))}, {}),
        (tensors, {"architecture": "Qwen3ForCausalLM"}),
        (tensors, {"num_attention_heads": 4}),
    ]
    found = [
        read_shape(write_base(tmp_path / str(number), changed, **config)).fingerprint
        for number, (changed, config) in enumerate(cases)
    ]
    assert len(set(found)) == len(found)


def test_the_fingerprint_leaves_out_values_order_and_what_tools_write(tmp_path: Path) -> None:
    tensors = base_tensors()
    other = {name: raw(np.zeros(tensors[name][1])) for name in reversed(tensors)}
    one = read_shape(write_base(tmp_path / "one"))
    two = read_shape(write_base(tmp_path / "two", other, transformers_version="9", _name_or_path="org/one"))
    assert one.fingerprint == two.fingerprint
    assert (one.name, two.name) == ("one", "one")


def test_the_fingerprint_does_not_change_with_this_program(tmp_path: Path) -> None:
    shape = read_shape(write_base(tmp_path / "tiny", weights(a__weight=(2, 3))))
    # printf '["LlamaForCausalLM",{"hidden_size":8},[["a.weight","F32",[2,3]]]]' | sha256sum
    assert shape.fingerprint == "07fa5de5b1cbf1da7bcb3e4e729fa3599c1a40854c7c3be652520c5cabeb4c60"


def test_a_tied_output_layer_has_the_shape_of_the_input_layer(tmp_path: Path) -> None:
    tensors = base_tensors()
    del tensors["lm_head.weight"]
    tied = read_shape(write_base(tmp_path / "tied", tensors, tie_word_embeddings=True))
    assert tied.modules["lm_head"] == Module(inputs=HIDDEN, outputs=VOCAB)
    assert "lm_head" not in read_shape(write_base(tmp_path / "none", tensors)).modules


def test_embeddings_that_vllm_does_not_adapt_are_set_apart(tmp_path: Path) -> None:
    shape = read_shape(write_base(tmp_path / "gemma", architecture="Gemma2ForCausalLM"))
    assert set(shape.unadaptable) == {"model.embed_tokens", "lm_head"}
    assert shape.unadaptable["lm_head"] == "vLLM has no LoRA for the lm_head of Gemma2ForCausalLM"


@pytest.mark.parametrize(
    ("architecture", "stored", "adapter", "path"),
    [
        ("Gemma3ForConditionalGeneration", "language_model.model", "model.language_model", True),
        ("Gemma3ForConditionalGeneration", "language_model.model", "language_model.model", True),
        ("Gemma3ForConditionalGeneration", "language_model.model", "model", False),
        ("Qwen2VLForConditionalGeneration", "model", "model.language_model", True),
        ("Qwen2VLForConditionalGeneration", "model", "model", True),
        ("Qwen3VLForConditionalGeneration", "model.language_model", "model", False),
        ("LlamaForCausalLM", "model", "language_model.model", False),
    ],
)
def test_names_are_changed_as_vllm_changes_them(
    tmp_path: Path, architecture: str, stored: str, adapter: str, path: bool
) -> None:
    tensors = {f"{stored}.layers.0.self_attn.q_proj.weight": raw(np.ones((4, 8)))}
    shape = read_shape(write_base(tmp_path / "m", tensors, architecture=architecture))
    assert (shape.path(f"{adapter}.layers.0.self_attn.q_proj") in shape.modules) is path


@pytest.mark.parametrize("tower", ["model.visual.blocks.0.attn", "vision_tower.x", "multi_modal_projector.y"])
def test_other_media_than_text_are_not_adapted(tmp_path: Path, tower: str) -> None:
    tensors = {f"{tower}.proj.weight": raw(np.ones((4, 8)))}
    folder = write_base(
        tmp_path / "m", tensors, architecture="Gemma3ForConditionalGeneration", vision_config={}
    )
    shape = read_shape(folder)
    assert not shape.modules
    assert "language model of Gemma3ForConditionalGeneration only" in str(shape.unadaptable.values())


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("qweight", ("I32", [1, 8], bytes(32))),
        ("weight_packed", ("I32", [8, 1], bytes(32))),
        ("weight", ("U8", [32, 1], bytes(32))),
    ],
)
def test_of_packed_weights_only_the_path_is_known(tmp_path: Path, name: str, tensor: Raw) -> None:
    shape = read_shape(write_base(tmp_path / "q", {f"model.layers.0.q_proj.{name}": tensor}))
    assert shape.modules == {"model.layers.0.q_proj": Module(None, None)}


def test_eight_bit_weights_keep_their_shape(tmp_path: Path) -> None:
    tensors = {
        "a.q_proj.weight": ("F8_E4M3", [4, 8], bytes(32)),
        "a.k_proj.weight": ("I8", [4, 8], bytes(32)),
    }
    modules = read_shape(write_base(tmp_path / "q", tensors)).modules
    assert set(modules.values()) == {Module(inputs=8, outputs=4)}


def test_experts_in_one_tensor_get_the_names_that_peft_gives_them(tmp_path: Path) -> None:
    layer = "model.layers.0.mlp.experts"
    tensors = {
        f"{layer}.gate_up_proj": raw(np.ones((2, 8, 32))),
        f"{layer}.down_proj_blocks": ("U8", [2, 8, 1, 16], bytes(256)),
        f"{layer}.gate_up_proj_bias": raw(np.ones((2, 32))),
    }
    modules = read_shape(write_base(tmp_path / "m", tensors, architecture="GptOssForCausalLM")).modules
    assert modules == {
        f"{layer}.base_layer": Module(inputs=8, outputs=32, experts=2),
        layer: Module(None, None, experts=2),
    }


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[]", "base model: config.json does not hold a JSON object"),
        ("config.json", "{}", "names no architecture"),
        ("config.json", '{"architectures": [1]}', "names no architecture"),
        ("model.safetensors", "", "not a safetensors file"),
        ("model.safetensors.index.json", "{}", "has no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"a": 1}}', "has no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "gone"}}', "gone cannot be read"),
    ],
)
def test_a_broken_base_model_says_what_is_broken(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    folder = write_base(tmp_path / "m")
    (folder / file).write_text(content)
    assert message in refusal(folder)
    assert str(tmp_path) not in refusal(folder)


def test_a_base_model_of_other_files_is_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_base(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "neither model.safetensors nor" in refusal(folder)
    assert find_shape(str(folder)) is None
    assert "are checked without it" in caplog.text


def test_a_folder_that_is_there_is_found(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "m")
    assert find_shape(str(folder)) == read_shape(folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache that holds org/tiny, as the hub's client lays it out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny"
    write_base(repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return tmp_path


def test_a_hub_id_is_found_in_the_cache(cache: Path) -> None:
    shape = find_shape("org/tiny")
    assert shape is not None
    assert shape.name == "tiny"
    assert find_shape("org/tiny", "a" * 40) == shape


@pytest.mark.parametrize(
    ("source", "revision"), [("org/other", None), ("org/tiny", "v2"), ("not/a/hub/id", None)]
)
def test_a_hub_id_that_is_not_in_the_cache_is_not_known(
    cache: Path, source: str, revision: str | None
) -> None:
    assert find_shape(source, revision) is None


def classes_that_set(attribute: str) -> dict[str, Any]:
    """Classes of the installed vLLM that set an attribute to a literal; read as text, not imported."""
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    values = {}
    for path in sorted(Path(found.submodule_search_locations[0], "model_executor", "models").glob("*.py")):
        text = path.read_text()
        for cls in ast.parse(text).body if attribute in text else ():
            for line in cls.body if isinstance(cls, ast.ClassDef) else ():
                target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
                if isinstance(target, ast.Name) and target.id == attribute:
                    with contextlib.suppress(ValueError):  # what is no literal is some other class's
                        values[cls.name] = ast.literal_eval(line.value)  # type: ignore[attr-defined]
    return values


def test_the_tables_are_those_of_the_installed_vllm() -> None:
    embeddings = {name: frozenset(value) for name, value in classes_that_set("embedding_modules").items()}
    ours = base_model._EMBEDDING_MODULES
    both = embeddings.keys() & ours.keys()
    assert {"LlamaForCausalLM", "MixtralForCausalLM", "GraniteForCausalLM"} <= both
    assert {name: ours[name] for name in both} == {name: embeddings[name] for name in both}
    fused = {name for name, value in classes_that_set("is_3d_moe_weight").items() if value is True}
    assert fused >= base_model._FUSED_EXPERTS
