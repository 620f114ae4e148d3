"""A fleet written down again loads as the same fleet, and holds no key."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import read_fleet
from fleet.batch_settings import BatchSettings
from fleet.content import Guard, Media, OnFailure
from fleet.schema import LORA_RANKS
from fleet.types import (
    Adapter,
    Band,
    BaseModel,
    Budget,
    Caps,
    Fleet,
    GatewaySettings,
    MediaTokens,
    MetricsAccess,
    MetricsSettings,
    Pool,
    RequestLimits,
    SchedulerSettings,
    Slo,
    StateSettings,
    Strategy,
    Tenant,
    TracingSettings,
    TrustedProxies,
    UsageSettings,
)
from fleet.writer import write_fleet
from tests.unit.fleet.files import digest, write
from tests.unit.fleet.test_loader import ENV, EVERYTHING


def test_every_setting_survives(tmp_path: Path) -> None:
    loaded = read_fleet(write(tmp_path, EVERYTHING), env=ENV)
    text = write_fleet(loaded.fleet, key_variables=loaded.key_variables)
    again = read_fleet(write(tmp_path, text), env=ENV)
    assert again.fleet == loaded.fleet
    assert again.key_variables == loaded.key_variables
    assert ENV["DATABASE"] not in text
    assert yaml.safe_load(text)["state"]["database"] == {"env": "DATABASE"}


def test_keys_from_the_environment_stay_names_and_others_stay_hashes(tmp_path: Path) -> None:
    loaded = read_fleet(write(tmp_path, EVERYTHING), env=ENV)
    text = write_fleet(loaded.fleet, key_variables=loaded.key_variables)
    written = yaml.safe_load(text)
    assert written["tenants"]["t"]["api_keys"] == [{"env": "T_KEY"}, {"sha256": digest("second")}] or written[
        "tenants"
    ]["t"]["api_keys"] == [{"sha256": digest("second")}, {"env": "T_KEY"}]
    assert written["gateway"]["operator_keys"] == [{"env": "OPS_KEY"}]
    for key in (ENV["T_KEY"], ENV["OPS_KEY"], digest(ENV["T_KEY"]), digest(ENV["OPS_KEY"])):
        assert key not in text


POSITIVE = st.floats(1e-3, 1000)
BASE_MODELS = st.builds(
    BaseModel,
    name=st.just("base"),
    source=st.sampled_from(["org/base", "/models/base"]),
    dtype=st.sampled_from(["auto", "bfloat16"]),
    max_model_len=st.none() | st.integers(1, 10**6),
    max_num_seqs=st.integers(1, 65536),
    max_loras=st.just(4),
    max_lora_rank=st.sampled_from(LORA_RANKS),
    max_cpu_loras=st.integers(4, 1000),
    tensor_parallel_size=st.integers(1, 8),
    gpu_memory_utilization=st.none() | st.floats(0.01, 1),
    kv_cache_bytes=st.none() | st.integers(2**20, 2**40),
    media_tokens=st.builds(MediaTokens, *[st.integers(0, 10**7)] * 3),
    request_limits=st.builds(RequestLimits, *[st.integers(1, 1000)] * 8),
    media=st.builds(
        Media, st.sampled_from([(), ("a.example", "b.c.example")]), st.integers(1, 1024), st.integers(0, 1000)
    ),
    vllm_args=st.sampled_from([(), ("--seed", "7"), ("--enforce-eager",)]),
)
TENANTS = st.builds(
    Tenant,
    name=st.just("t"),
    key_hashes=st.frozensets(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=3),
    models=st.just({"chat": "base"}),
    default_model=st.sampled_from([None, "chat"]),
    adapter_sources=st.sampled_from([(), ("s3://bucket", "https://host:8443/a/b")]),
    band=st.sampled_from(Band),
    budget=st.none() | st.builds(Budget, st.integers(1, 10**15), st.floats(0.01, 1)),
    request_limits=st.dictionaries(st.sampled_from(["tools", "beam_width"]), st.integers(0, 1000)),
    weight=POSITIVE,
    caps=st.builds(
        Caps,
        max_concurrency=st.integers(1, 1000),
        max_concurrency_per_model=st.none() | st.integers(1, 1000),
        max_queued=st.integers(0, 1000),
        max_queued_tokens=st.none() | st.integers(1, 10**9),
        requests_per_minute=st.none() | st.integers(1, 10**6),
        tokens_per_minute=st.none() | st.integers(1, 10**9),
        queue_timeout_s=POSITIVE,
    ),
)
GATEWAYS = st.builds(
    GatewaySettings,
    metrics_access=st.sampled_from(MetricsAccess),
    max_body_bytes=st.integers(1, 2**30),
    body_timeout_s=POSITIVE,
    stall_timeout_s=POSITIVE,
    request_timeout_s=POSITIVE,
    shutdown_grace_s=st.floats(0, 1000),
    log_requests=st.booleans(),
    scheduler=st.builds(
        SchedulerSettings,
        locality_bonus_tokens=POSITIVE,
        aging_tokens_per_s=POSITIVE,
        lower_band_share=st.floats(0, 0.24),
        burst_share=st.floats(0.01, 1),
        batch_share=st.floats(0.01, 1),
        slot_wait_s=POSITIVE,
        max_queued=st.integers(1, 10**6),
        max_queued_bytes=st.integers(1, 2**40),
    ),
    metrics=st.builds(
        MetricsSettings, max_models=st.integers(1, 10_000), idle_after_s=st.floats(300, 30 * 86400)
    ),
    tracing=st.builds(
        TracingSettings,
        endpoint=st.sampled_from([None, "https://collector:4318/v1/traces"]),
        sample_ratio=st.floats(0, 1),
    ),
    batches=st.builds(
        BatchSettings,
        max_file_bytes=st.integers(1, 2**32),
        max_files=st.integers(1, 10**6),
        max_tenant_bytes=st.integers(1, 2**45),
        max_unfinished=st.integers(1, 100),
        keep_days=st.integers(2, 100),
        folder=st.sampled_from([None, "s3://bucket", "s3://bucket/prefix/of_files"]),
        key_variable=st.sampled_from([None, "BATCH_KEY"]),
    ),
    guards=st.dictionaries(
        st.just("t"),
        st.builds(
            Guard,
            on_failure=st.sampled_from(OnFailure),
            url=st.just("https://guard.example/v1/moderations"),
            key_variable=st.sampled_from([None, "GUARD_KEY"]),
            model=st.sampled_from([None, "m"]),
            answers=st.booleans(),
            timeout_s=st.floats(0.01, 60),
            hold_back_chars=st.integers(1, 100_000),
        )
        | st.builds(Guard, on_failure=st.sampled_from(OnFailure), plugin=st.just("words")),
    ),
    trusted_proxies=st.none()
    | st.builds(
        TrustedProxies,
        addresses=st.sampled_from([("10.0.0.0/8",), ("10.0.0.7/32", "fd00::/8")]),
        user_header=st.just("x-forwarded-user"),
        groups_header=st.just("x-forwarded-groups"),
        operators=st.sampled_from([("ada",), ("ada", "group:platform")]),
        tenants=st.sampled_from([{}, {"t": ("bob",)}]),
    ),
)
POOLS = st.builds(
    Pool,
    name=st.just("p"),
    strategy=st.just(Strategy.MULTI_LORA),
    base_models=st.just(("base",)),
    replicas=st.integers(1, 3),
    devices=st.just(()),
    tenants=st.just(("t",)),
    slo=st.builds(Slo, ttft_s=st.none() | POSITIVE, itl_s=st.none() | st.floats(1e-3, 60)),
    hedge_after_s=st.none() | POSITIVE,
)
ADAPTERS = st.builds(
    Adapter,
    name=st.just("one"),
    source=st.just("/adapters/one"),
    base_model=st.just("base"),
    max_concurrency=st.none() | st.integers(1, 1000),
)
STATES = st.builds(
    StateSettings,
    folder=st.sampled_from(["/state", "/a b/ü?#%20"]),
    database=st.sampled_from([None, "postgresql+psycopg://user@host/name"]),
    store_bytes=st.none() | st.integers(2**30, 2**40),
    max_adapter_bytes=st.integers(1, 2**30),
    keep_versions=st.integers(0, 1000),
)


@settings(max_examples=60, deadline=None)
@given(BASE_MODELS, ADAPTERS, TENANTS, POOLS, GATEWAYS, STATES, st.integers(2, 3650))
def test_any_fleet_survives(
    base: BaseModel,
    adapter: Adapter,
    tenant: Tenant,
    pool: Pool,
    gateway: GatewaySettings,
    state: StateSettings,
    keep_records_days: int,
) -> None:
    usage = UsageSettings(keep_records_days)
    fleet = Fleet({"base": base}, {"one": adapter}, {"t": tenant}, {"p": pool}, gateway, state, usage)
    with tempfile.TemporaryDirectory() as folder:
        assert read_fleet(write(Path(folder), write_fleet(fleet, key_variables={}))).fleet == fleet
