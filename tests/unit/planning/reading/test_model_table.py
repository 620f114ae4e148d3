"""Models by hand: read, counted, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.reading.model_table import read_models
from planning.requests import DemandError
from planning.values import Kind


def table(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text)
    return path


def test_whole_models_and_adapters_are_read(tmp_path: Path) -> None:
    text = """
models:
  - {name: base, parameters: 8e9, kv_kib_per_token: 128, shape: eight-b, slot_mib_per_rank: 5}
  - {name: "a{n}", count: 3, base: base, rank: 8}
"""
    models = read_models(table(tmp_path, text))
    assert [(m.name, m.kind) for m in models] == [
        ("base", Kind.WHOLE), ("a1", Kind.ADAPTER), ("a2", Kind.ADAPTER), ("a3", Kind.ADAPTER)
    ]  # fmt: skip
    assert models[0].weight_bytes == 16e9
    assert models[0].kv_bytes_per_token == 128 * 1024
    assert models[1].rank == 8


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[]", "must have `models`"),
        ("models: {a: 1}", "must have `models`"),
        ("models: [{name: x, kv_kib_per_token: 1}]", "`parameters` must be a number"),
        ("models: [{name: x, parameters: many, kv_kib_per_token: 1}]", "`parameters` must be a number"),
        ("models: [{name: x, parameters: -1, kv_kib_per_token: 1}]", "`parameters` must be a number"),
        ("models: [{name: x, parameters: 1, kv_kib_per_token: 1, colour: red}]", "'colour' is unknown"),
        ("models: [{name: x, parameters: 0, kv_kib_per_token: 1}]", "`parameters` must be a number from 1"),
        (
            "models: [{name: x, parameters: .nan, kv_kib_per_token: 1}]",
            "`parameters` must be a number from 1",
        ),
        (
            "models: [{name: x, parameters: 1, kv_kib_per_token: 1, tensor_parallel: 1.5}]",
            "`tensor_parallel` must be a whole number from 1 to 64",
        ),
        (
            "models: [{name: x, parameters: 1, kv_kib_per_token: 1, could_be: y}]",
            "`could_be_rank` must be a number from 1 to 4096",
        ),
        ("models: [{name: x, base: y, rank: 0}]", "`rank` must be a number from 1 to 4096"),
        ("models: [{name: x, base: y, rank: 8.5}]", "`rank` must be a whole number from 1 to 4096"),
        ("models: [{name: 'x{n}', base: y, count: 0}]", "`count` must be a number from 1"),
        ("models: [{name: x, base: }]", "`base` must be the name of a whole model"),
        ("models:\n- {name: x, base: y}\n- {name: z, base: y, base: x}", "line 3: .* again on line 3"),
        ("models:\n- {name: x, base: y}\n- {base: y}", "line 3: `name` is missing"),
        ("", "it is empty"),
        ("models: [{parameters: 1}]", "`name` is missing"),
        ("models: [{name: x, count: 2, base: y}]", "2 models need `{n}` in their name"),
        ("models: [{name: x, base: y}, {name: x, base: y}]", "line 1: there is a `x` already"),
        ("models: [", "line 1: not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(DemandError, match=wrong.replace("{", r"\{").replace("}", r"\}")):
        read_models(table(tmp_path, text))
