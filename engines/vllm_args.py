"""The flags of an engine of a base model. Pure; the only place that knows vLLM's flags."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.types import BaseModel

NO_HOST = "media.invalid"  # a name that never resolves (RFC 6761)


def engine_args(
    model: BaseModel,
    *,
    shutdown_grace_s: float,
    on_cpu: bool,
    traces_endpoint: str | None = None,
    sleeps: bool = False,
) -> list[str]:
    """List `vllm serve` flags for one engine of a base model (vLLM 0.32).

    With a `traces_endpoint` the engine sends spans of its own there, as children of the gateway's. One that
    `sleeps` can free its GPU and come back; vLLM has no such thing on CPUs.
    """
    flags: dict[str, object | None] = {
        "--model": model.source,
        "--served-model-name": model.name,
        "--revision": model.revision,
        "--dtype": model.dtype,
        "--max-model-len": model.max_model_len,
        "--max-num-seqs": model.max_num_seqs,
        "--tensor-parallel-size": model.tensor_parallel_size,
        "--gpu-memory-utilization": model.gpu_memory_utilization,
        "--kv-cache-memory-bytes": model.kv_cache_bytes,
        # EngineCore gets SIGTERM together with the worker; without this it drops requests in flight.
        "--shutdown-timeout": int(shutdown_grace_s),
        # The gateway writes every request's priority from the tenant's band; under fcfs vLLM refuses it.
        "--scheduling-policy": "priority",
        "--otlp-traces-endpoint": traces_endpoint,
    }
    if model.serves_adapters:
        flags |= {
            "--max-loras": model.max_loras,
            "--max-lora-rank": model.max_lora_rank,
            "--max-cpu-loras": max(model.max_cpu_loras, model.max_loras),
        }
    argv = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    argv += ["--allowed-media-domains", *(model.media.hosts or (NO_HOST,))]  # an empty list would allow all
    argv += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    argv.append("--no-use-tqdm-on-load")  # progress bars do not belong in a log
    argv.append("--enable-prompt-tokens-details")  # says how much of a prompt was found in the prefix cache
    extension = "engines.worker.cpu.CpuWorkerExtension" if on_cpu else "engines.worker.WorkerExtension"
    argv += ["--worker-extension-cls", extension]
    if sleeps and not on_cpu:
        argv.append("--enable-sleep-mode")
    if model.serves_adapters:
        argv.append("--enable-lora")
    return [*argv, *model.vllm_args]


def engine_environment(models: Iterable[BaseModel], *, on_cpu: bool) -> dict[str, str]:
    """Environment that vLLM reads at import, for all models of a process; the operator's variables win."""
    models = list(models)
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # A forked engine would share this process's threads and locks, and its inherited marks (orphans.py).
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # setproctitle would write an engine's title over those marks.
        "SPT_NOENV": "1",
        "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": str(max((model.media.max_mib for model in models), default=1)),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # they would lead away from the hosts that are allowed
        "VLLM_REGEX_COMPILATION_TIMEOUT_S": "1",  # its front end answers nobody meanwhile; the default is 5
        "TRANSFORMERS_VERBOSITY": "error",  # its warnings are of a model's files, and come from each process
        # Python warns of it whenever an engine is killed, and then cleans up.
        "PYTHONWARNINGS": "ignore:resource_tracker",
    }
    if all(model.source.startswith("/") for model in models):
        environment["HF_HUB_OFFLINE"] = "1"  # a local model never asks a hub
    if on_cpu:
        environment["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB, where kv_cache_gib is not given
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # engines on one machine share its cores
        environment["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # each process would tell of its NUMA node
    return environment


def tracing_environment(replica: str) -> dict[str, str]:
    """Environment of a traced engine; the operator's variables win over it."""
    return {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",  # as the gateway's; vLLM's default is gRPC
        "OTEL_SERVICE_NAME": "tenantry-engine",
        "OTEL_RESOURCE_ATTRIBUTES": f"tenantry.replica={replica}",
    }
