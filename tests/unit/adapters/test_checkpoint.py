"""An adapter's folder: what it holds, and everything that would break an engine or serve it wrongly."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.checkpoint import AdapterManifest, inspect_adapter
from adapters.errors import AdapterError
from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from tests.unit.fleet.files import adapter_folder, safetensors, with_header

LORA_A = "model.q_proj.lora_A.weight"


def one_tensor(dtype: str, shape: list[Any], offsets: list[int], size: int) -> bytes:
    return with_header({LORA_A: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, bytes(size))


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterError) as raised:
        inspect_adapter(folder)
    return str(raised.value)


def test_a_good_folder_is_described(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a", rank=8)
    manifest = inspect_adapter(folder)
    assert manifest == AdapterManifest(
        rank=8,
        alpha=16.0,
        target_modules=("k_proj", "q_proj"),
        base_model_name_or_path="org/base",
        size_bytes=(folder / CONFIG_FILE).stat().st_size + (folder / WEIGHTS_FILE).stat().st_size,
        digest=manifest.digest,
    )
    assert len(manifest.digest) == 64


def test_the_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a")
    digest = inspect_adapter(folder).digest
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("not served")
    assert inspect_adapter(tmp_path / "b").digest == digest
    raw = bytearray((folder / WEIGHTS_FILE).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(raw)
    assert inspect_adapter(folder).digest != digest


def test_the_largest_rank_of_any_module_counts(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a", rank=8, rank_pattern={"k_proj": 32})
    assert inspect_adapter(folder).rank == 32


def test_a_pattern_of_modules_stands_alone(tmp_path: Path) -> None:
    assert inspect_adapter(adapter_folder(tmp_path / "a", target_modules="all-linear")).target_modules == (
        "all-linear",
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "only LORA adapters"),
        ({"peft_type": None}, "only LORA adapters"),
        ({"bias": "all"}, "bias='none'"),
        ({"use_dora": True}, "vLLM has no DoRA"),
        ({"lora_bias": True}, "vLLM has no LoRA bias"),
        ({"modules_to_save": ["lm_head"]}, "vLLM has no modules_to_save"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"layer_replication": [[0, 1]]}, "layer replication"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"use_bdlora": {"x": 1}}, "block-diagonal"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"init_lora_weights": "pissa"}, "changes the base model"),
        ({"r": 0}, "whole numbers above 0"),
        ({"r": "8"}, "whole numbers above 0"),
        ({"r": True}, "whole numbers above 0"),
        ({"rank_pattern": {"x": -1}}, "whole numbers above 0"),
        ({"rank_pattern": [8]}, "rank_pattern must be numbers by module"),
        ({"alpha_pattern": "x"}, "alpha_pattern must be numbers by module"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number"),
        ({"lora_alpha": None}, "lora_alpha must be a number"),
        ({"target_modules": []}, "target_modules must be"),
        ({"target_modules": None}, "target_modules must be"),
        ({"target_modules": [1]}, "target_modules must be"),
    ],
)
def test_what_an_engine_cannot_serve_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = adapter_folder(tmp_path / "a", **config)
    assert message in refusal(folder)


@pytest.mark.parametrize("init", [True, False, "gaussian", "EVA"])
def test_starts_that_only_set_the_adapter_are_taken(tmp_path: Path, init: Any) -> None:
    assert inspect_adapter(adapter_folder(tmp_path / "a", init_lora_weights=init)).rank == 8


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "../missing"])
@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, target: str) -> None:
    (tmp_path / "secret").write_text("x")
    folder = adapter_folder(tmp_path / "a")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    assert "is a link that leaves the folder; copy its target" in refusal(folder)


def test_links_inside_the_folder_and_to_the_folder_are_taken(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a")
    (folder / "real.safetensors").write_bytes((folder / WEIGHTS_FILE).read_bytes())
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).symlink_to("real.safetensors")
    (tmp_path / "current").symlink_to("a")
    assert inspect_adapter(tmp_path / "current").rank == 8


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_link_to_itself_is_refused(tmp_path: Path, name: str) -> None:
    folder = adapter_folder(tmp_path / "a")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(name)
    assert f"{name!r} cannot be read: Too many levels of symbolic links" in refusal(folder)


def test_a_pipe_is_refused_and_not_read(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a")
    (folder / WEIGHTS_FILE).unlink()
    os.mkfifo(folder / WEIGHTS_FILE)
    assert "is no file" in refusal(folder)


def test_what_is_no_adapter_folder_says_what_one_is(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file")
    assert f"has no {CONFIG_FILE}" in refusal(tmp_path)
    folder = adapter_folder(tmp_path / "a")
    (folder / WEIGHTS_FILE).unlink()
    assert f"has no {WEIGHTS_FILE}" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"r": ' + "[" * 100_000, "\x00"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    folder = adapter_folder(tmp_path / "a")
    (folder / CONFIG_FILE).write_text(text)
    assert "does not hold a JSON object" in refusal(folder)


def test_a_huge_config_is_not_read(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a")
    (folder / CONFIG_FILE).write_text(" " * 2**20 + "{}")
    assert "is larger than" in refusal(folder)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not a safetensors file, or cut short"),
        (b"1234567", "not a safetensors file, or cut short"),
        ((2**63).to_bytes(8, "little"), "not a safetensors file, or cut short"),
        (safetensors({LORA_A: [8, 4]})[:60], "not a safetensors file, or cut short"),
        (safetensors({LORA_A: [8, 4]})[:-1], "is shorter than its header says"),
        (safetensors({}), "holds no tensors"),
        (with_header([], b""), "does not hold a JSON object"),
        (with_header({LORA_A: 7}, b""), "is not right"),
        (one_tensor("F32", [2, 2], [0, 4], 4), "is not right"),
        (one_tensor("F32", [-1, 2], [8, 0], 8), "is not right"),
        (one_tensor("X9", [1], [0, 4], 4), "is not right"),
        (one_tensor("F32", [1], [0], 4), "is not right"),
        (one_tensor("F32", ["1"], [0, 4], 4), "is not right"),
        (one_tensor("F32", [], [0, 4], 4), "are matrices"),
        (safetensors({"model.embed_tokens.weight": [4, 4]}), "is no LoRA tensor"),
        (safetensors({"model.q_proj.lora_magnitude_vector": [4]}), "is no LoRA tensor"),
    ],
)  # fmt: skip
def test_weights_that_are_not_an_adapters_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    folder = adapter_folder(tmp_path / "a")
    (folder / WEIGHTS_FILE).write_bytes(raw)
    assert message in refusal(folder)


def test_weights_of_a_larger_rank_than_the_config_says_are_refused(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a", rank=8, tensor_rank=64)
    assert "has rank 64, adapter_config.json says 8" in refusal(folder)


def test_a_file_nobody_may_read_is_an_adapter_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter_folder(tmp_path / "a")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "cannot be read: Permission denied; check its permissions" in refusal(folder)


def test_a_strange_value_is_shown_in_one_short_line(tmp_path: Path) -> None:
    message = refusal(adapter_folder(tmp_path / "a", peft_type="x\n" * 1000))
    assert "\n" not in message
    assert len(message) < 300 + len(str(tmp_path))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_weights(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = adapter_folder(tmp_path_factory.mktemp("f") / "a")
    (folder / WEIGHTS_FILE).write_bytes(raw)
    with pytest.raises(AdapterError):
        inspect_adapter(folder)


KEYS = ["peft_type", "r", "bias", "target_modules", "lora_alpha", "rank_pattern", "init_lora_weights"]
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    99,
    1.5,
    float("nan"),
    "",
    "x",
    [],
    ["x"],
    [1],
    {},
    {"x": 1},
    {"x": "y"},
]


@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)))
def test_no_config_breaks_its_reading(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = adapter_folder(tmp_path_factory.mktemp("f") / "a")
    values = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**values, **config}))
    try:
        assert inspect_adapter(folder).rank > 0
    except AdapterError as error:
        assert str(error)
