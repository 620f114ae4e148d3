"""Which models are of the same shape, and what is the first reason why two are not?"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.switching.reading import ModelUnreadable, files_of, read_contents
from engines.switching.shape import plain, why_other_shape
from tests.adapter_kinds import VOCAB, base_tensors, raw, safetensors, with_header, write_base

NORM = "model.norm.weight"


def whole_model(folder: Path, **config: Any) -> Path:
    """A model with a tokenizer."""
    write_base(folder, **config)
    (folder / "tokenizer.json").write_text('{"model": "BPE"}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "generation_config.json").write_text('{"temperature": 0.7}')
    return folder


def set_in(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        known = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(known | values))

    return change


def weights(folder: Path, **tensors: Any) -> None:
    changed = base_tensors() | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    (folder / "model.safetensors").write_bytes(safetensors(changed))


def shards(folder: Path) -> None:
    tensors = base_tensors()
    (folder / "model.safetensors").unlink()
    for file, names in (("one.safetensors", [NORM]), ("two.safetensors", sorted(tensors.keys() - {NORM}))):
        (folder / file).write_bytes(safetensors({name: tensors[name] for name in names}))
    places = {name: "one.safetensors" if name == NORM else "two.safetensors" for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: weights(folder, model__norm__weight=raw(np.zeros(8))),
        shards,
        set_in("config.json", _name_or_path="/home/me/x", transformers_version="9", use_cache=False),
        set_in("tokenizer_config.json", name_or_path="org/other", tokenizer_file="/tmp/x"),
        lambda folder: (folder / "README.md").write_text("a fine-tune"),
        lambda folder: (folder / "trainer_state.json").write_text("{}"),
    ],
    ids=["values", "shards", "names", "tokenizer's names", "readme", "trainer"],
)
def test_a_fine_tune_is_of_its_bases_shape(tmp_path: Path, change: Callable[[Path], None]) -> None:
    one, other = whole_model(tmp_path / "one"), whole_model(tmp_path / "other")
    change(other)
    assert why_other_shape(read_contents(one), read_contents(other)) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_in("config.json", rope_theta=5e5), "config.json: only one has 'rope_theta'"),
        (set_in("config.json", hidden_size=9), "config.json: 'hidden_size' is 8 and 9"),
        (set_in("config.json", quantization_config={"bits": 4}), "only one has 'quantization_config'"),
        (lambda f: weights(f, model__norm__weight=raw(np.ones(9))), "is F32 [8] in one and F32 [9]"),
        (lambda f: weights(f, model__norm__weight=raw(np.ones(8), "BF16")), "and BF16 [8] in the other"),
        (lambda f: weights(f, extra=raw(np.ones(1))), "only one has the tensor 'extra'"),
        (lambda f: (f / "tokenizer.json").write_text('{"model": "BPE" }'), "tokenizer.json is not the same"),
        (set_in("tokenizer_config.json", chat_template="x"), "tokenizer_config.json: 'chat_template' is"),
        (set_in("generation_config.json", temperature=0.0), "generation_config.json: 'temperature' is"),
        (lambda f: (f / "chat_template.jinja").write_text("x"), "only one has chat_template.jinja"),
        (lambda f: (f / "modeling_x.py").write_text("x"), "only one has modeling_x.py"),
    ],
)
def test_another_shape_is_told_from_it_by_the_first_difference(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    one, other = whole_model(tmp_path / "one"), whole_model(tmp_path / "other")
    change(other)
    for contents in ((one, other), (other, one)):
        assert why_other_shape(*map(read_contents, contents))
    assert reason in why_other_shape(read_contents(one), read_contents(other))


def test_true_is_not_one_and_the_old_name_of_the_type_is_the_new_one() -> None:
    assert plain({"torch_dtype": "bfloat16"}) == plain({"dtype": "bfloat16"})
    whole = read_contents_of({"a": 1})
    assert "'a' is 1 and True" in why_other_shape(whole, read_contents_of({"a": True}))


def read_contents_of(config: dict[str, Any]) -> Any:
    from engines.switching.shape import Contents

    return Contents(plain(config), {}, {})


def sparse(folder: Path) -> None:
    """A header of 10 GB in a file that is larger still, and takes no room on disk."""
    with (folder / "model.safetensors").open("wb") as file:
        file.write((10 * 10**9).to_bytes(8, "little"))
        file.truncate(11 * 10**9)


def truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])


def wrong_offsets(folder: Path) -> None:
    header = '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}'
    (folder / "model.safetensors").write_bytes(with_header(header, bytes(8)))


def link_out(folder: Path) -> None:
    outside = folder.parent / "outside"
    shutil.move(folder / "model.safetensors", outside)
    (folder / "model.safetensors").symlink_to(outside)


def index_out(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent / "stolen.safetensors")
    places = dict.fromkeys(base_tensors(), "../stolen.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def index_lies(folder: Path) -> None:
    places = dict.fromkeys((*base_tensors(), "another"), "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def deep(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 60 + "1" + "}" * 60)


def pipe(folder: Path) -> None:
    (folder / "tokenizer.model").unlink(missing_ok=True)
    os.mkfifo(folder / "tokenizer.model")


def two_files(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")


def large_config(folder: Path) -> None:
    with (folder / "config.json").open("ab") as file:
        file.truncate(17 * 2**20)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (sparse, "header of more than"),
        (truncated, "shorter than its header says"),
        (wrong_offsets, "leaves a hole"),
        (link_out, "is a link that leaves"),
        (index_out, "weight_map of names of files beside it"),
        (index_lies, "which lacks it"),
        (deep, "nested more than"),
        (pipe, "is no plain file"),
        (two_files, "2 files of weights and no"),
        (large_config, "larger than"),
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "does not hold a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither"),
    ],
)
def test_files_that_are_not_as_they_should_be_are_refused_with_a_reason_and_without_a_path(
    tmp_path: Path, spoil: Callable[[Path], Any], reason: str
) -> None:
    folder = whole_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelUnreadable) as refused:
        read_contents(folder)
    assert reason in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_the_hubs_links_to_its_own_blobs_do_not_leave_the_model(tmp_path: Path) -> None:
    whole_model(tmp_path / "models--org--x" / "blobs")
    snapshot = tmp_path / "models--org--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in (tmp_path / "models--org--x" / "blobs").iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert len(files_of(snapshot)) == 5
    assert read_contents(snapshot).tensors["lm_head.weight"] == ("F32", (VOCAB, 8))
