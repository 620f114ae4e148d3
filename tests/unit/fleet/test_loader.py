"""A whole fleet file: what it turns into, and everything wrong with it at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from fleet import FleetError, load_fleet, load_fleet_with_warnings, read_fleet
from fleet.types import (
    Adapter,
    Band,
    BaseModel,
    Caps,
    GatewaySettings,
    Isolation,
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
)
from tests.unit.fleet.files import changed, declared, digest, problems, the_problem, write

ROOT = Path(__file__).parents[3]

EVERYTHING = """
base_models:
  llama:
    source: org/llama
    revision: abc
    dtype: bfloat16
    max_model_len: 8192
    max_num_seqs: 128
    max_loras: 16
    max_lora_rank: 64
    max_cpu_loras: 100
    tensor_parallel_size: 2
    gpu_memory_utilization: 0.8
    request_limits: {tools: 8, constraint_kib: 16}
    vllm_args: {enforce-eager: true}
  small: {source: models/small, kv_cache_gib: 0.5}
adapters:
  one: {source: "${ADAPTERS}/one", base_model: llama, max_concurrency: 48}
tenants:
  t:
    api_keys: [{env: T_KEY}, {sha256: DIGEST}]
    models: {chat: one, raw: llama, tiny: small}
    default_model: raw
    priority: high
    weight: 2
    request_limits: {beam_width: 2, messages: 50}
    caps:
      max_concurrency: 8
      max_concurrency_per_model: 4
      max_queued: 0
      max_queued_tokens: 5000
      requests_per_minute: 60
      tokens_per_minute: 90000
      queue_timeout_s: 1.5
    isolation: dedicated
    adapter_sources: ["s3://t-adapters/", "hf://t"]
pools:
  main:
    base_models: [llama]
    replicas: 2
    devices: ["0,1", "2,3"]
    tenants: [t]
    slo: {ttft_s: 2, itl_s: 0.05}
    hedge_after_s: 0.5
  rest: {strategy: replica-per-model, base_models: [small], devices: [4], tenants: [t]}
gateway:
  operator_keys: [{env: OPS_KEY}]
  metrics_access: open
  max_body_mib: 0.5
  body_timeout_s: 1
  stall_timeout_s: 2
  request_timeout_s: 4
  shutdown_grace_s: 0
  log_requests: false
  scheduler:
    locality_bonus_tokens: 100
    aging_tokens_per_s: 20
    lower_band_share: 0.1
    burst_share: 0.25
    slot_wait_s: 3
    max_queued: 50
    max_queued_mib: 1.5
  metrics: {max_models: 20, idle_after_s: 600}
  tracing: {endpoint: "http://collector:4318/v1/traces", sample_ratio: 0.25}
  trusted_proxies:
    addresses: [10.0.0.7, "fd00::/8"]
    user_header: X-Forwarded-Email
    groups_header: X-Forwarded-Groups
    operators: [ada@example.com, "group:platform"]
    tenants: {t: [bob]}
state:
  folder: ${STATE}/main
  database: {env: DATABASE}
  store_gib: 1.5
  max_adapter_mib: 512
  keep_versions: 0
""".replace("DIGEST", digest("second").upper()).replace("models/small", "./models/small")
ENV = {
    "ADAPTERS": "/srv",
    "T_KEY": "first-key-of-tenant-t",
    "OPS_KEY": "key-of-the-operator-x",
    "STATE": "/var/lib",
    "DATABASE": "postgresql+psycopg://tenantry:secret-word@db/state",
}


def test_every_setting_arrives(tmp_path: Path) -> None:
    loaded = read_fleet(write(tmp_path, EVERYTHING), env=ENV)
    fleet = loaded.fleet
    assert fleet.base_models == {
        "llama": BaseModel(
            name="llama",
            source="org/llama",
            revision="abc",
            dtype="bfloat16",
            max_model_len=8192,
            max_num_seqs=128,
            max_loras=16,
            max_lora_rank=64,
            max_cpu_loras=100,
            tensor_parallel_size=2,
            gpu_memory_utilization=0.8,
            request_limits=RequestLimits(tools=8, constraint_kib=16),
            vllm_args=("--enforce-eager",),
        ),
        "small": BaseModel(name="small", source=f"{tmp_path}/models/small", kv_cache_bytes=2**29),
    }
    assert fleet.adapters == {"one": Adapter("one", "/srv/one", "llama", 48)}
    assert fleet.tenants == {
        "t": Tenant(
            name="t",
            key_hashes=frozenset({digest(ENV["T_KEY"]), digest("second")}),
            models={"chat": "one", "raw": "llama", "tiny": "small"},
            default_model="raw",
            band=Band.HIGH,
            weight=2.0,
            caps=Caps(
                max_concurrency=8,
                max_concurrency_per_model=4,
                max_queued=0,
                max_queued_tokens=5000,
                requests_per_minute=60,
                tokens_per_minute=90_000,
                queue_timeout_s=1.5,
            ),
            isolation=Isolation.DEDICATED,
            adapter_sources=("s3://t-adapters", "hf://t"),
            request_limits={"beam_width": 2, "messages": 50},
        )
    }
    assert fleet.pools == {
        "main": Pool(
            name="main",
            strategy=Strategy.MULTI_LORA,
            base_models=("llama",),
            replicas=2,
            devices=("0,1", "2,3"),
            tenants=("t",),
            slo=Slo(ttft_s=2.0, itl_s=0.05),
            hedge_after_s=0.5,
        ),
        "rest": Pool("rest", Strategy.REPLICA_PER_MODEL, ("small",), 1, ("4",), ("t",)),
    }
    assert fleet.gateway == GatewaySettings(
        operator_key_hashes=frozenset({digest(ENV["OPS_KEY"])}),
        metrics_access=MetricsAccess.OPEN,
        max_body_bytes=2**19,
        body_timeout_s=1.0,
        stall_timeout_s=2.0,
        scheduler=SchedulerSettings(
            locality_bonus_tokens=100.0,
            aging_tokens_per_s=20.0,
            lower_band_share=0.1,
            burst_share=0.25,
            slot_wait_s=3.0,
            max_queued=50,
            max_queued_bytes=3 * 2**19,
        ),
        metrics=MetricsSettings(max_models=20, idle_after_s=600.0),
        tracing=TracingSettings("http://collector:4318/v1/traces", 0.25),
        trusted_proxies=TrustedProxies(
            addresses=("10.0.0.7/32", "fd00::/8"),
            user_header="x-forwarded-email",
            groups_header="x-forwarded-groups",
            operators=("ada@example.com", "group:platform"),
            tenants={"t": ("bob",)},
        ),
        request_timeout_s=4.0,
        shutdown_grace_s=0.0,
        log_requests=False,
    )
    assert fleet.state == StateSettings(
        folder="/var/lib/main",
        database=ENV["DATABASE"],
        database_variable="DATABASE",
        store_bytes=3 * 2**29,
        max_adapter_bytes=2**29,
        keep_versions=0,
    )
    assert fleet.state.database_url == ENV["DATABASE"]
    assert loaded.key_variables == {digest(ENV["T_KEY"]): "T_KEY", digest(ENV["OPS_KEY"]): "OPS_KEY"}
    assert loaded.secret_variables == {"T_KEY", "OPS_KEY", "DATABASE"}
    assert loaded.warnings == ()


def test_what_is_left_out_has_the_default_of_the_types(tmp_path: Path) -> None:
    data = declared()
    del data["gateway"]
    fleet = read_fleet(write(tmp_path, data)).fleet
    assert fleet.base_models["plain"] == BaseModel("plain", "org/plain")
    assert fleet.tenants["beta"].caps == Caps()
    assert fleet.gateway == GatewaySettings()
    assert fleet.state == StateSettings(folder=f"{tmp_path}/.tenantry")
    assert fleet.tenants["beta"].adapter_sources == ()
    assert fleet.pools["shared"] == Pool("shared", Strategy.MULTI_LORA, ("base",), 1, (), ("alpha", "beta"))


def test_four_adapters_a_slot_stay_in_host_memory_unless_told(tmp_path: Path) -> None:
    assert read_fleet(write(tmp_path, declared())).fleet.base_models["base"].max_cpu_loras == 16
    told = changed("base_models/base/max_cpu_loras", 4)
    assert read_fleet(write(tmp_path, told)).fleet.base_models["base"].max_cpu_loras == 4


def test_an_only_model_is_the_default_unless_null_says_no(tmp_path: Path) -> None:
    tenants = read_fleet(write(tmp_path, declared())).fleet.tenants
    assert tenants["beta"].default_model == "support"
    assert tenants["alpha"].default_model is None
    tenants = read_fleet(write(tmp_path, changed("tenants/beta/default_model", None))).fleet.tenants
    assert tenants["beta"].default_model is None


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, changed("tenants/beta/api_keys", [{"env": "BETA_KEY"}]))
    monkeypatch.setenv("BETA_KEY", "a-key-long-enough-for-anybody")
    assert load_fleet(path).tenants["beta"].key_hashes == {digest("a-key-long-enough-for-anybody")}
    assert load_fleet_with_warnings(path)[1] == ()
    monkeypatch.delenv("BETA_KEY")
    with pytest.raises(FleetError, match="BETA_KEY is not set"):
        load_fleet(path)


def test_sources_are_relative_to_the_fleet_file_wherever_it_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, declared())
    monkeypatch.chdir(tmp_path.parent)
    fleet = load_fleet(Path(tmp_path.name) / "fleet.yaml")
    assert fleet.adapters["a-support"].source == f"{tmp_path}/a"


def test_a_link_to_the_file_counts_where_the_link_lies(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    write(tmp_path / "..data", declared())
    (tmp_path / "linked.yaml").symlink_to("..data/fleet.yaml")
    assert load_fleet(tmp_path / "linked.yaml").adapters["a-support"].source == f"{tmp_path}/a"


def test_all_problems_are_told_at_once_each_on_its_line(tmp_path: Path) -> None:
    text = """\
base_models:
  base: {source: org/base, max_loras: 4, max_lora: 2}
  other: {source: org/other, max_loras: 0}
adapters:
  one: {source: org/one, base_model: base}
  two: {source: ./two, base_model: bse}
tenants:
  a:
    api_keys: [{sha256: 12}]
    models: {x: one}
  b:
    api_keys: [{env: NOT_SET}]
    models: {x: onne}
    isolation: dedicated
pools:
  p: {base_models: [base], tenants: [a, b], devices: [0, 1]}
  q: {strategy: lora, base_models: [base], tenants: [b]}
gatway: {}
"""
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in problems(tmp_path, text)] == [
        "fleet.yaml:2: base_models.base.max_lora: unknown key `max_lora`; did you mean `max_loras`?",
        "fleet.yaml:5: adapters.one.source: `org/one` is neither a folder nor a URL; write hf://org/one",
        "fleet.yaml:6: adapters.two.base_model: no base model is called `bse`; did you mean `base`?",
        "fleet.yaml:9: tenants.a.api_keys[0].sha256: not an API key entry; "
        "write {sha256: <64 hex digits>} or {env: NAME}, never the key itself; "
        "`tenantry new-key` makes one",
        "fleet.yaml:12: tenants.b.api_keys[0]: the environment variable NOT_SET is not set; "
        "set it to the key",
        "fleet.yaml:13: tenants.b.models.x: no adapter or base model is called `onne`; did you mean `one`?",
        "fleet.yaml:16: pools.p.tenants[1]: tenant `b` is dedicated and shares this pool with `a`; "
        "give it a pool of its own, or set its isolation to shared",
        "fleet.yaml:16: pools.p.devices: 2 for 1 replicas (1 for each of 1 base models); "
        "list one for each replica (several GPUs of one replica as `0,1`), or leave devices out",
        "fleet.yaml:17: pools.q.strategy: `lora` is not one of `replica-per-model`, `multi-lora`, "
        "`model-mesh`, `swap`, `mig`",
        "fleet.yaml:18: gatway: unknown key `gatway`; did you mean `gateway`?",
    ]


@pytest.mark.parametrize("text", ["7", "[1, 2]", "text", "null"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert the_problem(tmp_path, text).message == "must be a mapping"


def test_a_section_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    assert the_problem(tmp_path, changed("adapters", ["a"])).path == "adapters"
    assert the_problem(tmp_path, changed("gateway", [])).path == "gateway"


def test_a_source_that_leads_nowhere_says_how_folders_are_written(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, changed("base_models/base/source", "base"))
    assert (problem.path, problem.message) == (
        "base_models.base.source",
        "`base` is neither a folder that exists nor a hub id (org/name)",
    )
    assert problem.remedy == "a folder of this machine begins with `/`, `./` or `~`"


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    data = changed("base_models/base/source", "./base", changed("base_models/base/revision", "main"))
    assert the_problem(tmp_path, data).path == "base_models.base.revision"


def test_the_demo_fleet_loads_without_a_warning() -> None:
    fleet, warnings = load_fleet_with_warnings(ROOT / "fleet.yaml")
    assert set(fleet.pools) == {"shared", "umbrella"}
    assert not warnings


def test_json_is_yaml(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(json.dumps(declared()))
    assert load_fleet(tmp_path / "f.yaml") == load_fleet(write(tmp_path, declared()))


def test_a_file_nobody_may_read_is_a_problem(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "fleet.yaml")
    with pytest.raises(FleetError, match=r"fleet\.yaml: cannot be read: Is a directory"):
        load_fleet(tmp_path / "fleet.yaml")


def test_a_key_given_twice_is_told_beside_the_other_problems(tmp_path: Path) -> None:
    text = yaml.safe_dump(changed("pools/shared/replicas", 0)) + "gateway: {}\n"
    assert [problem.path for problem in problems(tmp_path, text)] == ["gateway", "pools.shared.replicas"]
