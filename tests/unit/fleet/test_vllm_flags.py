"""Further vLLM flags: how they are written, and which are not for a fleet file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.vllm_args import engine_args
from fleet.types import BaseModel
from fleet.vllm_flags import OWNED, FlagError, has_flag, to_argv


@pytest.mark.parametrize(
    ("value", "argv"),
    [
        ({}, ()),
        ([], ()),
        ({"enforce-eager": True}, ("--enforce-eager",)),
        ({"enable-prefix-caching": False}, ("--no-enable-prefix-caching",)),
        ({"--seed": 7}, ("--seed", "7")),
        ({"max_num_batched_tokens": 8192}, ("--max_num_batched_tokens", "8192")),
        ({"seed": -1}, ("--seed=-1",)),
        ({"quantization": "fp8"}, ("--quantization", "fp8")),
        ({"cudagraph-capture-sizes": [1, 2]}, ("--cudagraph-capture-sizes", "1", "2")),
        ({"speculative-config": {"method": "ngram"}}, ("--speculative-config", '{"method": "ngram"}')),
        ({"compilation-config.level": 3}, ("--compilation-config.level", "3")),
        (["--seed", "7"], ("--seed", "7")),
        (["--seed", -7, "--enforce-eager"], ("--seed", "-7", "--enforce-eager")),
        (["--seed=7"], ("--seed=7",)),
    ],
)
def test_flags_become_a_command_line(value: Any, argv: tuple[str, ...]) -> None:
    assert to_argv(value) == argv
    assert to_argv(list(argv)) == argv, "what was written loads again as the same"


FORMS: dict[str, Callable[[str], Any]] = {
    "mapping": lambda flag: {flag: "x"},
    "list": lambda flag: [flag, "x"],
    "with a value": lambda flag: [f"{flag}=x"],
    "underscores": lambda flag: {flag[2:].replace("-", "_"): "x"},
    "negated": lambda flag: {f"no-{flag[2:]}": True},
    "dotted": lambda flag: {f"{flag}.key": "x"},
}


@pytest.mark.parametrize("form", FORMS)
def test_flags_that_tenantry_sets_are_refused_in_every_form(form: str) -> None:
    for flag in OWNED:
        with pytest.raises(FlagError, match="is not for vllm_args"):
            to_argv(FORMS[form](flag))


@given(st.sampled_from(sorted(OWNED)), st.data())
def test_no_beginning_of_such_a_flag_gets_through(flag: str, data: st.DataObject) -> None:
    beginning = flag[: data.draw(st.integers(3, len(flag)))].rstrip("-")
    with pytest.raises(FlagError):
        to_argv([beginning, "x"])


def test_every_flag_an_engine_gets_anyway_is_refused() -> None:
    model = BaseModel(
        "base", "org/base", "main", max_model_len=1, max_loras=1, gpu_memory_utilization=0.5, kv_cache_bytes=1
    )
    given_flags = {
        part for part in engine_args(model, shutdown_grace_s=1, on_cpu=True) if part.startswith("--")
    }
    assert {flag.replace("--no-", "--") for flag in given_flags} <= set(OWNED)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("--seed 7", "must be a mapping of flags"),
        (7, "must be a mapping of flags"),
        (None, "must be a mapping of flags"),
        (["-tp", "2"], "short form"),
        (["-O3"], "short form"),
        (["--"], "is not a flag"),
        (["--Model"], "is not a flag"),
        ({"seed; rm": 1}, "is not a flag"),
        ({"seed": None}, "has no value"),
        ({"seed": "--model=x", "x y": 1}, "is not a flag"),
        ({"ignore-patterns": ["--model=x"]}, "none beginning with"),
        ({"ignore-patterns": []}, "one or more values"),
        ({"ignore-patterns": [None]}, "holds NoneType"),
        (["7"], "belongs to no flag"),
        (["--seed", True], "holds bool"),
        (["--seed", ["7"]], "holds list"),
    ],
)
def test_what_is_no_flag_is_refused(value: Any, message: str) -> None:
    with pytest.raises(FlagError, match=message):
        to_argv(value)


def test_a_value_cannot_become_a_flag() -> None:
    assert to_argv({"seed": "--model=other"}) == ("--seed=--model=other",)


def test_a_refusal_says_what_to_use_instead() -> None:
    with pytest.raises(FlagError, match="`max-loras` is not for vllm_args: use `max_loras`"):
        to_argv({"max-loras": 8})
    with pytest.raises(FlagError, match="`--max-lora` is short for `--max-loras`"):
        to_argv(["--max-lora", "8"])


@pytest.mark.parametrize(
    ("argv", "has"),
    [
        (["--load-format", "dummy"], True),
        (["--load-format=dummy"], True),
        (["--load_format", "dummy"], True),
        (["--load-f", "dummy"], True),
        (["--load-format.key", "1"], True),
        (["--seed", "--load-format"], True),
        (["--load-formats", "dummy"], False),
        (["--l", "dummy"], True),  # the engine says that this may mean several
        (["--seed", "load-format"], False),
        ([], False),
    ],
)
def test_a_flag_is_found_in_every_form_that_vllm_takes(argv: list[str], has: bool) -> None:
    assert (has_flag(argv, {"--load-format"}) is not None) == has
