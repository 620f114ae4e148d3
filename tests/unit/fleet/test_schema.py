"""Single values of a fleet file: what is taken, what is refused, and in which words."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fleet import schema
from tests.unit.fleet.files import changed, declared, problems, removed, the_problem

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("base_models/base/max_loras", "4", "must be a whole number"),
        ("base_models/base/max_loras", 1.5, "must be a whole number"),
        ("base_models/base/max_loras", True, "must be a whole number"),
        ("base_models/base/max_loras", -1, "must be greater than or equal to 0"),
        ("base_models/base/max_num_seqs", 0, "must be greater than or equal to 1"),
        ("base_models/base/max_model_len", 0, "must be greater than or equal to 1"),
        *(
            (path, 10**15 + 1, "must be less than or equal to 1000000000000000")
            for path in (
                "base_models/base/max_model_len",
                "adapters/a-support/max_concurrency",
                "tenants/beta/caps/max_concurrency",
                "tenants/beta/caps/max_concurrency_per_model",
                "tenants/beta/caps/max_queued",
                "tenants/beta/caps/max_queued_tokens",
                "tenants/beta/caps/requests_per_minute",
                "tenants/beta/caps/tokens_per_minute",
            )
        ),
        ("base_models/base/tensor_parallel_size", 0, "must be greater than or equal to 1"),
        (
            "base_models/base/max_lora_rank",
            12,
            "vLLM takes 1, 8, 16, 32, 64, 128, 256, 320, 512; the next one up is 16",
        ),
        ("base_models/base/max_lora_rank", 999, "the next one up is 512"),
        ("base_models/base/gpu_memory_utilization", 0, "must be greater than 0"),
        ("base_models/base/gpu_memory_utilization", 1.1, "must be less than or equal to 1"),
        ("base_models/base/gpu_memory_utilization", "90%", "must be a number"),
        ("base_models/base/kv_cache_gib", float("inf"), "must be a finite number"),
        ("base_models/base/kv_cache_gib", float("nan"), "must be a finite number"),
        ("base_models/base/dtype", "bf16", "`bf16` is not one of `auto`, `bfloat16`"),
        ("base_models/base/source", "", "must not be empty"),
        ("base_models/base/source", 7, "must be text"),
        (
            "base_models/base/vllm_args",
            ["--max-loras", "2"],
            "`--max-loras` is not for vllm_args: use `max_loras`",
        ),
        ("base_models/base/vllm_args", "--seed 7", "must be a mapping of flags"),
        ("tenants/beta/models", {}, "must not be empty"),
        ("tenants/beta/models", ["b-support"], "must be a mapping"),
        ("tenants/beta/priority", "urgent", "`urgent` is not one of `high`, `standard`, `low`"),
        ("tenants/beta/priority", 1, "`1` is not one of `high`, `standard`, `low`"),
        ("tenants/beta/weight", 0, "must be greater than 0"),
        ("tenants/beta/isolation", "none", "`none` is not one of `shared`, `dedicated`"),
        ("tenants/beta/caps", 7, "must be a mapping"),
        ("tenants/beta/caps/max_concurrency", 0, "must be greater than or equal to 1"),
        ("tenants/beta/caps/max_queued", -1, "must be greater than or equal to 0"),
        ("tenants/beta/caps/queue_timeout_s", 0, "must be greater than 0"),
        ("pools/shared/tenants", "alpha", "must be a list"),
        ("pools/shared/base_models", [], "must not be empty"),
        ("pools/shared/replicas", 0, "must be from 1 to 1024"),
        ("pools/shared/devices", ["a b"], "names no device"),
        ("pools/shared/mig", {"gpu": "0,1", "profile": "1g.20gb"}, "names no GPU"),
        ("pools/shared/mig", {"gpu": "0", "profile": "9g.20gb"}, "is no profile of a MIG slice"),
        ("base_models/base/sha256", "beef", "is no sha256"),
        ("prices/currency", "€", "is no name of a currency"),
        ("gateway/tracing", {"endpoint": "collector:4318"}, "is no URL"),
        ("gateway/batches", {"folder": "./files"}, "is no bucket"),
        ("gateway/guards/one/url", "guard:80", "is no URL"),
        ("gateway/guards/one/key_variable", "a b", "names no variable"),
        (
            "pools/shared/strategy",
            "multi_lora",
            "`multi_lora` is not one of `replica-per-model`, `multi-lora`",
        ),
        ("adapters/a-support/max_concurrency", 0, "must be greater than or equal to 1"),
        ("tenants/beta/caps/max_queued_tokens", 0, "must be greater than or equal to 1"),
        ("tenants/beta/caps/requests_per_minute", 0, "must be greater than or equal to 1"),
        ("tenants/beta/caps/tokens_per_minute", 1.5, "must be a whole number"),
        ("pools/shared/slo", 2, "must be a mapping"),
        ("pools/shared/slo/ttft_s", 0, "must be greater than 0"),
        ("pools/shared/slo/itl_s", -0.05, "must be greater than 0"),
        ("pools/shared/slo/itl_s", "50ms", "must be a number"),
        ("pools/shared/hedge_after_s", 0, "must be greater than 0"),
        ("gateway/scheduler", [], "must be a mapping"),
        ("gateway/scheduler/locality_bonus_tokens", -1, "must be greater than or equal to 0"),
        ("gateway/scheduler/aging_tokens_per_s", float("inf"), "must be a finite number"),
        ("gateway/scheduler/lower_band_share", 0.6, "must be less than or equal to 0.5"),
        ("gateway/scheduler/burst_share", 0, "must be greater than 0"),
        ("gateway/scheduler/slot_wait_s", 0, "must be greater than 0"),
        ("gateway/scheduler/max_queued", 0, "must be greater than or equal to 1"),
        ("gateway/scheduler/max_queued_mib", 0, "must be greater than 0"),
        ("gateway/metrics_access", "all", "`all` is not one of `operator`, `loopback`, `open`"),
        ("gateway/max_body_mib", 0, "must be greater than 0"),
        ("gateway/log_requests", "yes", "must be true or false"),
        ("base_models", {}, "must not be empty"),
        ("pools", {}, "must not be empty"),
    ],
)
def test_a_wrong_value_is_refused_in_plain_words(tmp_path: Path, path: str, value: Any, message: str) -> None:
    found = [p for p in problems(tmp_path, changed(path, value)) if p.path.startswith(path.replace("/", "."))]
    assert len(found) == 1
    assert message in found[0].message
    assert found[0].line is not None


@pytest.mark.parametrize(
    "name", ["Upper", "-x", ".x", "_x", "a b", "a/b", "a..b", "", "x" * 64, "é", "a\n", "${X}"]
)
def test_a_bad_name_is_refused_everywhere(tmp_path: Path, name: str) -> None:
    for section in ("base_models", "adapters", "tenants", "pools"):
        data = declared()
        data[section][name] = copy.deepcopy(next(iter(data[section].values())))
        found = [p for p in problems(tmp_path, data) if p.path == f"{section}.{name}"]
        assert len(found) == 1
        assert "name" in found[0].message


@pytest.mark.parametrize("name", ["a", "7", "llama-3.1-8b", "a_b.c-d", "x" * 63])
def test_a_good_name_is_taken(tmp_path: Path, name: str) -> None:
    assert not problems(tmp_path, changed("tenants/beta/models", {name: "b-support"}))


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("adaptors", "did you mean `adapters`?"),
        ("base_models/base/max_lora", "did you mean `max_loras`?"),
        ("base_models/base/enforce_eager", "further vLLM flags go into `vllm_args`"),
        ("adapters/a-support/base", "did you mean `base_model`?"),
        ("tenants/beta/max_concurrency", "did you mean `caps.max_concurrency`?"),
        ("tenants/beta/caps/max_queue", "did you mean `max_queued`?"),
        ("pools/shared/replica", "did you mean `replicas`?"),
        ("gateway/log_request", "did you mean `log_requests`?"),
        ("gateway/slot_wait_s", "did you mean `scheduler.slot_wait_s`?"),
        ("gateway/scheduler/slot_wait", "did you mean `slot_wait_s`?"),
        ("pools/shared/ttft_s", "did you mean `slo.ttft_s`?"),
        ("pools/shared/slo/ttft", "did you mean `ttft_s`?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, path: str, remedy: str
) -> None:
    found = next(p for p in problems(tmp_path, changed(path, 1)) if p.message.startswith("unknown key"))
    assert found.remedy == remedy


@pytest.mark.parametrize(
    "path",
    [
        "base_models/base/source",
        "adapters/a-support/base_model",
        "tenants/beta/api_keys",
        "tenants/beta/models",
        "pools/shared/base_models",
        "pools/shared/tenants",
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, path: str) -> None:
    *parents, key = path.split("/")
    found = next(p for p in problems(tmp_path, removed(path)) if "is missing" in p.message)
    assert (found.path, found.message) == (".".join(parents), f"`{key}` is missing")
    assert found.line is not None


@pytest.mark.parametrize(
    "entry",
    ["the-key-itself", {"key": "the-key-itself"}, {"sha256": "the-key-itself"}, {"env": "the-key-itself"}, {},
     {"sha256": "0" * 64, "env": "THE_KEY"}, ["the-key-itself"], None, 7],
)  # fmt: skip
@pytest.mark.parametrize("path", ["tenants/beta/api_keys", "gateway/operator_keys"])
def test_a_key_entry_is_refused_without_showing_what_may_be_a_key(
    tmp_path: Path, path: str, entry: Any
) -> None:
    found = problems(tmp_path, changed(path, [entry]))
    assert found
    assert all(p.path.startswith(path.replace("/", ".")) for p in found)
    assert "the-key-itself" not in "".join(map(str, found))


def test_the_committed_json_schema_is_current() -> None:
    committed = json.loads((ROOT / "fleet/fleet.schema.json").read_text())
    assert committed == schema.json_schema(), "tenantry schema > fleet/fleet.schema.json"


def test_the_json_schema_takes_what_the_loader_takes() -> None:
    validator = jsonschema.Draft202012Validator(schema.json_schema())
    validator.check_schema(schema.json_schema())
    validator.validate(declared())
    for path in ("fleet.yaml", "demo/turns.yaml", "docs/examples/llama-3-8b-h100.yaml"):
        validator.validate(yaml.safe_load((ROOT / path).read_text()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("base_models/base/max_lora", 4),
        ("base_models/base/max_lora_rank", 12),
        ("tenants/beta/api_keys", [{}]),
        ("tenants/beta/api_keys", [{"sha256": "0" * 64, "env": "X"}]),
        ("tenants/beta/priority", "urgent"),
        ("pools/shared/replicas", 0),
        ("pools/Shared", {"base_models": ["base"], "tenants": ["alpha"]}),
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(path: str, value: Any) -> None:
    assert not jsonschema.Draft202012Validator(schema.json_schema()).is_valid(changed(path, value))


ALIASES = (
    *("meta-llama/Llama-3.1-8B-Instruct", "gpt-oss:120b", "Support", 'a "b" \\ c', "größer", "x@y", "@2x"),
)
WRONG_ALIASES = (
    *("", " x", "x ", "/x", "x/", "x" * 129, "x\ny", "x\0", "x\u202ey", "x\u00a0y", "support@2"),
    *("a/../b", "./a", ".."),
)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_tenants_name_for_a_model_may_be_any_printable_text(tmp_path: Path, alias: str) -> None:
    data = declared()
    data["tenants"]["beta"] |= {"models": {alias: "b-support"}, "default_model": alias}
    assert problems(tmp_path, data) == []
    jsonschema.Draft202012Validator(schema.json_schema()).validate(data)


@pytest.mark.parametrize("alias", WRONG_ALIASES)
def test_what_would_end_a_line_or_mean_a_version_or_a_folder_is_no_name(tmp_path: Path, alias: str) -> None:
    data = declared()
    data["tenants"]["beta"] |= {"models": {alias: "b-support"}, "default_model": None}
    assert "a tenant's name for a model" in the_problem(tmp_path, data).message
