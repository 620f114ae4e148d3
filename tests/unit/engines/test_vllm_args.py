"""Which flags and which environment does an engine get?"""

from __future__ import annotations

from engines.vllm_args import NO_HOST, engine_args, engine_environment, tracing_environment
from fleet.content import Media
from fleet.types import BaseModel


def value_of(flag: str, argv: list[str]) -> str:
    return argv[argv.index(flag) + 1]


def test_an_engine_with_adapters_gets_its_slots() -> None:
    model = BaseModel(
        "m", "/models/m", max_loras=4, max_lora_rank=8, max_cpu_loras=2, vllm_args=("--seed", "1")
    )
    argv = engine_args(model, shutdown_grace_s=30.0, on_cpu=False)
    assert "--enable-lora" in argv
    assert (value_of("--max-loras", argv), value_of("--max-lora-rank", argv)) == ("4", "8")
    assert value_of("--max-cpu-loras", argv) == "4", "vLLM wants at least as many as slots"
    assert value_of("--served-model-name", argv) == "m"
    assert value_of("--shutdown-timeout", argv) == "30"
    assert argv[-2:] == ["--seed", "1"]


def test_an_engine_without_adapters_has_no_lora_flag() -> None:
    argv = engine_args(BaseModel("m", "org/m", revision="abc"), shutdown_grace_s=1.0, on_cpu=True)
    assert not [flag for flag in argv if "lora" in flag]
    assert value_of("--revision", argv) == "abc"


def test_what_is_not_set_is_left_to_vllm() -> None:
    argv = engine_args(BaseModel("m", "/models/m"), shutdown_grace_s=1.0, on_cpu=True)
    assert not {"--max-model-len", "--gpu-memory-utilization", "--kv-cache-memory-bytes"} & set(argv)


def test_engines_fetch_from_the_listed_hosts_or_from_none_and_follow_nobody() -> None:
    """An empty list would mean all hosts to vLLM."""
    for hosts in (("a.example", "b.example"), ()):
        argv = engine_args(BaseModel("m", "/models/m", media=Media(hosts)), shutdown_grace_s=1.0, on_cpu=True)
        at = argv.index("--allowed-media-domains")
        given = argv[at + 1 : next(i for i in range(at + 1, len(argv)) if argv[i].startswith("--"))]
        assert given == (list(hosts) or [NO_HOST])
    models = [BaseModel("l", "/models/l", media=Media(max_mib=3)), BaseModel("m", "/models/m")]
    environment = engine_environment(models, on_cpu=True)
    assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert environment["VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"] == "16"


def test_a_local_model_never_asks_a_hub_and_a_cpu_engine_shares_its_cores() -> None:
    assert engine_environment([BaseModel("m", "/models/m")], on_cpu=True).keys() >= {
        "HF_HUB_OFFLINE",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_OMP_THREADS_BIND",
    }
    assert "HF_HUB_OFFLINE" not in engine_environment(
        [BaseModel("l", "/models/l"), BaseModel("m", "org/m")], on_cpu=False
    )


def test_every_engine_has_our_calls_in_its_worker_and_a_cpu_one_corrected_operators() -> None:
    flag = "--worker-extension-cls"
    for model in (BaseModel("m", "/models/m", max_loras=1), BaseModel("m", "/models/m")):
        on_gpu = engine_args(model, shutdown_grace_s=1.0, on_cpu=False)
        assert value_of(flag, on_gpu) == "engines.worker.WorkerExtension"
        on_cpu = engine_args(model, shutdown_grace_s=1.0, on_cpu=True)
        assert value_of(flag, on_cpu) == "engines.worker.cpu.CpuWorkerExtension"


def test_an_engine_is_traced_only_where_there_is_a_collector() -> None:
    model, url = BaseModel("m", "/models/m"), "http://collector:4318/v1/traces"
    assert "--otlp-traces-endpoint" not in engine_args(model, shutdown_grace_s=1.0, on_cpu=True)
    argv = engine_args(model, shutdown_grace_s=1.0, on_cpu=True, traces_endpoint=url)
    assert argv[argv.index("--otlp-traces-endpoint") + 1] == url
    assert tracing_environment("shared-0")["OTEL_RESOURCE_ATTRIBUTES"] == "tenantry.replica=shared-0"
