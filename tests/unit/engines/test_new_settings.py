"""Which settings does an engine's host take from the gateway, and are two engines' settings the same?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.new_settings import with_settings
from engines.settings import DIGEST_CHARS, digest_of
from fleet.types import BaseModel, MediaTokens, RequestLimits
from fleet.values import ENGINE_SETTINGS, engine_values

MODEL = BaseModel(
    "base",
    "/models/base",
    max_loras=4,
    max_cpu_loras=16,
    request_limits=RequestLimits(messages=7),
    media_tokens=MediaTokens(image=3),
)
OTHER: dict[str, Any] = {
    "dtype": "float16",
    "max_model_len": 512,
    "max_num_seqs": 3,
    "max_loras": 2,
    "max_lora_rank": 64,
    "max_cpu_loras": 9,
    "tensor_parallel_size": 2,
    "gpu_memory_utilization": 0.5,
    "kv_cache_bytes": 3 * 2**28,
    "vllm_args": ("--seed", "7", "--enforce-eager"),
}


def sent(model: BaseModel) -> Any:
    """The settings of a base model's engines as they arrive."""
    return json.loads(json.dumps(engine_values(model)))


@pytest.mark.parametrize("field", OTHER)
def test_each_setting_arrives_and_is_told_from_another_value(field: str) -> None:
    wanted = replace(MODEL, **{field: OTHER[field]})
    assert with_settings(MODEL, sent(wanted)) == wanted
    assert digest_of(wanted) != digest_of(MODEL)
    assert len(digest_of(wanted)) == DIGEST_CHARS


def test_all_of_them_arrive_and_each_has_a_value_here() -> None:
    wanted = replace(MODEL, **OTHER)
    assert with_settings(MODEL, sent(wanted)) == wanted
    assert engine_values(wanted).keys() == ENGINE_SETTINGS


def test_a_setting_that_is_left_out_is_as_in_a_fleet_file_and_not_as_before() -> None:
    assert with_settings(replace(MODEL, max_model_len=512), sent(MODEL)).max_model_len is None


def test_name_weights_and_limits_of_requests_stay_and_do_not_count() -> None:
    elsewhere = BaseModel("other", "/elsewhere", "main", max_loras=4, max_cpu_loras=16)
    assert digest_of(elsewhere) == digest_of(MODEL), "a folder differs from machine to machine"
    made = with_settings(elsewhere, sent(replace(MODEL, max_loras=2)))
    assert made == replace(elsewhere, max_loras=2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, "not a mapping"),
        (["--seed", "7"], "not a mapping"),
        ({"source": "/etc/passwd"}, "not settings of an engine: source"),
        ({"name": "x", "revision": "main"}, "not settings of an engine: name, revision"),
        ({"max_loras": "4"}, "wrong values: max_loras"),
        ({"max_loras": True}, "wrong values: max_loras"),
        ({"max_loras": -1, "dtype": "int4"}, "wrong values: dtype, max_loras"),
        ({"gpu_memory_utilization": 1e999}, "wrong values: gpu_memory_utilization"),
        ({"max_lora_rank": 7}, "wrong values: max_lora_rank"),
        ({"kv_cache_gib": 1e-20}, "wrong values: kv_cache_gib"),
        ({"max_loras": 4, "max_cpu_loras": 2}, "max_cpu_loras is less than max_loras"),
        ({"vllm_args": ["--api-key", "secret"]}, "wrong values: vllm_args"),
        ({"vllm_args": ["--model=/etc"]}, "wrong values: vllm_args"),
        ({"vllm_args": ["--lo", "x"]}, "wrong values: vllm_args"),
        ({"vllm_args": {"enable-prompt-embeds": True}}, "wrong values: vllm_args"),
    ],
)
def test_what_no_fleet_file_could_say_is_refused_by_name_without_its_value(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        with_settings(MODEL, values)
    assert "secret" not in str(raised.value) and "/etc" not in str(raised.value)


SOME = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@given(values=st.dictionaries(st.sampled_from(sorted(ENGINE_SETTINGS)) | st.text(max_size=20), SOME))
def test_whatever_comes_it_is_taken_whole_or_refused(values: dict[str, Any]) -> None:
    try:
        made = with_settings(MODEL, values)
    except ValueError:
        return
    assert with_settings(MODEL, sent(made)) == made
