"""Ranks and scales by pattern: whatever a trainer wrote is matched here once, and fast for engines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from safetensors.numpy import save_file

from adapters.checkpoint import inspect_adapter, put_plainly
from adapters.errors import AdapterError
from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from adapters.patterns import TIME_LIMIT_S, Patterns
from adapters.store import VersionStore
from adapters.verify import verify

LAYERS = [f"model.layers.{layer}" for layer in range(80)]
PARTS = [f"self_attn.{name}_proj" for name in "qkvo"] + [
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
]
MODULES = [f"{layer}.{part}" for layer in LAYERS for part in PARTS]


def as_vllm(pattern: dict[str, Any], name: str) -> Any:
    """`PEFTHelper._match_pattern` of vLLM 0.32."""
    for key, value in pattern.items():
        if regex.match(rf"(.*\.)?({key})$", name):
            return value
    return None


REGEXES = [
    {r"model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj": 4},
    {r"model\.layers\.(?:[0-9]|1[0-9])\.self_attn\.(q|k|v|o)_proj": 2, "q_proj": 8},
    {"q_proj": 8, r".*self_attn.*": 2, r"(?!.*mlp).*": 3},
    {r"^model\.layers\.\d{1,2}\.mlp\..*(?<!down)_proj$": 2},
    {r"layers.7.*": 2, "layers.70.mlp.up_proj": 4},
    {r"(?i)MODEL\.LAYERS\.1\..*": 2},
    {"down_proj": 2, "model.layers.3.mlp.down_proj": 4},
    {r"layers\.0\.self_attn.q_proj": 4, "k_proj|v_proj": 2},
]


@pytest.mark.parametrize("pattern", REGEXES, ids=lambda pattern: next(iter(pattern)))
def test_a_pattern_means_what_it_means_to_vllm_before_and_after(pattern: dict[str, int]) -> None:
    patterns = Patterns("rank_pattern", pattern)
    found = patterns.found(MODULES, time.monotonic() + TIME_LIMIT_S)
    expected = {name: as_vllm(pattern, name) for name in MODULES}
    assert {name: found.get(name) for name in MODULES} == expected
    named = patterns.named(found, MODULES)
    assert Patterns("rank_pattern", named).is_fast(len(MODULES))
    assert {name: as_vllm(named, name) for name in MODULES} == expected


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_a_rank_for_each_module_of_eighty_layers_is_fast_for_vllm(prefix: str) -> None:
    """EVA writes one entry for each module."""
    pattern = {name: 1 + number % 61 for number, name in enumerate(MODULES)}
    patterns = Patterns("rank_pattern", pattern)
    assert not patterns.is_fast(len(MODULES))
    named = patterns.named(patterns.found(MODULES, time.monotonic() + TIME_LIMIT_S), MODULES)
    started_s = time.process_time()
    assert {name: as_vllm(named, name) for name in MODULES} == pattern
    assert time.process_time() - started_s < 3
    assert len(named) == 61


@pytest.mark.parametrize("pattern", [r"(\w|\w\w)+[^\w.]", r"(\w|\w\w)*(?<!j)[!?]"])
def test_a_pattern_that_never_ends_is_given_up(pattern: str) -> None:
    started_s = time.process_time()  # a busy machine takes its time
    names = [f"model.layers.{'ab' * 60}.q_proj"]
    with pytest.raises(AdapterError, match="take more than 2 s to match; use names"):
        Patterns("rank_pattern", {pattern: 1}).found(names, time.monotonic() + TIME_LIMIT_S)
    assert time.process_time() - started_s < 5 * TIME_LIMIT_S, "it looks at the clock now and then"


@pytest.mark.parametrize("pattern", ["(", "*", "[", "a{2,1}", "(?P<a>x)(?P=b)", "x" * 5000 + "+"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(AdapterError, match="is no pattern; use names of modules"):
        Patterns("rank_pattern", {pattern: 1})


def test_too_many_different_values_are_refused() -> None:
    pattern = {name: 1.0 + number / 1000 for number, name in enumerate(MODULES)}
    patterns = Patterns("alpha_pattern", pattern)
    with pytest.raises(AdapterError, match="560 modules 560 different values"):
        patterns.named(patterns.found(MODULES, time.monotonic() + TIME_LIMIT_S), MODULES)


def test_a_name_that_ends_another_is_not_confused_with_it() -> None:
    with pytest.raises(AdapterError, match="end of another"):
        Patterns("rank_pattern", {"x.*": 1}).named({"a.b": 1}, ["a.b", "x.a.b"])


def folder_with(folder: Path, config: dict[str, Any], ranks: dict[str, int]) -> Path:
    """A trained adapter of two modules."""
    tensors = {}
    for module, rank in ranks.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ones((rank, 16), "float32")
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ones((16, rank), "float32")
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS_FILE)
    given = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj"]}
    (folder / CONFIG_FILE).write_text(json.dumps({**given, "mine": [1, {"x": None}], **config}))
    return folder


Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
PLAIN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no scale": ({"use_rslora": None}, {"use_rslora": False}),
    "no bias": ({"bias": None}, {"bias": "none"}),
    "a rank with a point": ({"r": 8.0}, {"r": 8}),
    "ranks with a point": ({"rank_pattern": {"q_proj": 4.0}}, {"rank_pattern": {"q_proj": 4}}),
    "a pattern": (
        {"rank_pattern": {r"(?=.*q)model.*": 4}, "alpha_pattern": {r"(?!.*q).*": 2.5}},
        {"rank_pattern": {Q.replace(".", r"\."): 4}, "alpha_pattern": {K.replace(".", r"\."): 2.5}},
    ),
    "very many": (
        {"rank_pattern": {**{f"m{i}": 3 for i in range(400)}, "q_proj": 4}},
        {"rank_pattern": {Q.replace(".", r"\."): 4}, "alpha_pattern": {}},
    ),
    "everything": (
        {"r": 8.0, "bias": None, "use_rslora": None, "rank_pattern": None, "alpha_pattern": None},
        {"r": 8, "bias": "none", "use_rslora": False},
    ),
}


@pytest.mark.parametrize(("given", "stored"), PLAIN.values(), ids=PLAIN)
def test_what_vllm_would_not_understand_is_stored_in_its_words(
    tmp_path: Path, given: dict[str, Any], stored: dict[str, Any]
) -> None:
    ranks = {Q: 4 if given.get("rank_pattern") else 8, K: 8}
    source = folder_with(tmp_path / "source", given, ranks)
    before = (source / CONFIG_FILE).read_bytes()
    manifest = verify(source, base=None)
    assert manifest.digest == inspect_adapter(source).digest
    with VersionStore(tmp_path / "store") as store:
        staged = store.stage("key")
        for file in source.iterdir():
            (staged / file.name).write_bytes(file.read_bytes())
        published = store.publish("key", manifest.digest)
        assert store.check(manifest.digest)
        assert store.usage()[0].size_bytes == manifest.size_bytes
    config = json.loads((published / CONFIG_FILE).read_bytes())
    assert config == {**json.loads(before), **stored}
    assert inspect_adapter(published) == inspect_adapter(source)
    assert (source / CONFIG_FILE).read_bytes() == before


def test_what_vllm_understands_is_stored_as_it_is(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "a", {"rank_pattern": {"q_proj": 4}, "bias": "none"}, {Q: 4, K: 8})
    before = (folder / CONFIG_FILE).stat()
    put_plainly(folder)
    assert (folder / CONFIG_FILE).stat() == before


@pytest.mark.parametrize(
    "config", [{"r": 8.5}, {"r": "8"}, {"r": True}, {"bias": "all"}, {"use_rslora": "no"}]
)
def test_what_means_something_else_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(AdapterError):
        inspect_adapter(folder_with(tmp_path / "a", config, {Q: 8, K: 8}))
