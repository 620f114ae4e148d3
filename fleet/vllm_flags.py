"""Checks the vLLM flags in `vllm_args`, and writes them as a command line. Pure.

Refuses the flags that Tenantry sets itself, with the setting to use instead; short forms and abbreviations,
which argparse would expand to those; and every flag that would open an engine to other clients.
Written for vLLM 0.32 (`vllm serve --help=all`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

_SERVER = "engines answer through the gateway alone; its address is in configuration.yaml"
_REPLICAS = "use more `replicas` of the pool: each is an engine of its own"
_ONE_MACHINE = "an engine runs on one machine"
_UNSAFE = "it would let one tenant's request reach data that is not its own"
_LOGS = "log lines are set in configuration.yaml"

OWNED: dict[str, str] = {
    "--model": "use `source`",
    "--served-model-name": "the base model's name is the one it has here",
    "--revision": "use `revision`",
    "--dtype": "use `dtype`",
    "--max-model-len": "use `max_model_len`",
    "--max-num-seqs": "use `max_num_seqs`",
    "--tensor-parallel-size": "use `tensor_parallel_size`",
    "--gpu-memory-utilization": "use `gpu_memory_utilization`",
    "--device-memory-utilization": "use `gpu_memory_utilization`",
    "--kv-cache-memory-bytes": "use `kv_cache_gib`",
    "--enable-lora": "use `max_loras`: 1 or more serves adapters",
    "--max-loras": "use `max_loras`",
    "--max-lora-rank": "use `max_lora_rank`",
    "--max-cpu-loras": "use `max_cpu_loras`",
    "--lora-modules": "declare them under `adapters`",
    "--default-mm-loras": "declare them under `adapters`",
    "--scheduling-policy": "it is `priority`; a tenant's place is its `priority` and `weight`",
    "--scheduler-cls": "the gateway's fairness needs vLLM's own scheduler",
    "--worker-extension-cls": "Tenantry extends vLLM's worker itself",
    "--shutdown-timeout": "use `gateway.shutdown_grace_s`",
    "--otlp-traces-endpoint": "use `gateway.tracing`",
    "--api-key": "keys are `api_keys` of a tenant",
    "--hf-token": "set the environment variable HF_TOKEN: a flag can be read by every user of the machine",
    "--use-tqdm-on-load": "progress bars are no lines of a log",
    "--config": "write the flags here, where they are checked",
    "--help": "run `vllm serve --help=all`",
    "--enable-sleep-mode": "use `sleep` of a pool of strategy model-mesh or swap",
    "--device-ids": "use `devices` of the pool",
    "--data-parallel-size": _REPLICAS,
    "--data-parallel-rank": _REPLICAS,
    "--data-parallel-start-rank": _REPLICAS,
    "--data-parallel-size-local": _REPLICAS,
    "--data-parallel-address": _REPLICAS,
    "--data-parallel-rpc-port": _REPLICAS,
    "--data-parallel-backend": _REPLICAS,
    "--data-parallel-hybrid-lb": _REPLICAS,
    "--data-parallel-external-lb": _REPLICAS,
    "--data-parallel-multi-port-external-lb": _REPLICAS,
    "--data-parallel-supervisor-port": _REPLICAS,
    "--api-server-count": _REPLICAS,
    "--headless": _ONE_MACHINE,
    "--nnodes": _ONE_MACHINE,
    "--node-rank": _ONE_MACHINE,
    "--master-addr": _ONE_MACHINE,
    "--master-port": _ONE_MACHINE,
    "--trust-request-chat-template": _UNSAFE,
    "--trust-request-mm-kwargs": _UNSAFE,
    "--allowed-local-media-path": _UNSAFE,
    "--allowed-media-domains": "use `media.hosts`",
    "--enable-mm-embeds": "made-up embeddings can crash an engine that other tenants share",
    "--enable-prompt-embeds": "made-up embeddings can crash an engine that other tenants share",
    "--enable-prompt-tokens-details": "it is set; the usage ledger counts cached tokens",
    "--disable-uvicorn-access-log": _LOGS,
    "--disable-access-log-for-endpoints": _LOGS,
    "--disable-fastapi-docs": _SERVER,
    "--host": _SERVER,
    "--port": _SERVER,
    "--uds": _SERVER,
    "--grpc": _SERVER,
    "--grpc-port": _SERVER,
    "--root-path": _SERVER,
    "--middleware": _SERVER,
    "--allow-credentials": _SERVER,
    "--allowed-origins": _SERVER,
    "--allowed-methods": _SERVER,
    "--allowed-headers": _SERVER,
    "--enable-ssl-refresh": _SERVER,
    "--ssl-keyfile": _SERVER,
    "--ssl-certfile": _SERVER,
    "--ssl-ca-certs": _SERVER,
    "--ssl-cert-reqs": _SERVER,
    "--ssl-ciphers": _SERVER,
}

_RESIZING = frozenset({"--quantization", "--load-format", "--hf-overrides", "--cpu-offload-gb"})
_FLAG = re.compile(r"--[a-z][a-z0-9_-]*(\.[A-Za-z0-9_.-]+\+?)?")
_NUMBER = re.compile(r"-\d+(\.\d+)?([eE][-+]?\d+)?")


class FlagError(ValueError):
    """`vllm_args` holds something that cannot be passed on."""


def to_argv(value: Any) -> tuple[str, ...]:
    """Write a mapping of flags, or a list of parts, as a command line. Raises `FlagError`."""
    if isinstance(value, dict):
        return tuple(part for flag, given in value.items() for part in _flag_parts(flag, given))
    if isinstance(value, list | tuple):
        return tuple(_list_parts(value))
    raise FlagError("must be a mapping of flags (`enforce-eager: true`) or a list (`[--seed, 7]`)")


def resizes_weights(argv: Sequence[str]) -> bool:
    """Whether flags let an engine hold its weights in another size than the checkpoint's."""
    return has_flag(argv, _RESIZING) is not None


def has_flag(argv: Sequence[str], flags: Collection[str]) -> str | None:
    """Return the first part of a command line that may be one of these flags, in whatever form; else None.

    vLLM takes `_` for `-`, and any unambiguous beginning of a flag for the flag.
    """
    for part in argv:
        name = part.partition("=")[0].partition(".")[0].replace("_", "-")
        if len(name) > len("--") and name.startswith("--") and any(f.startswith(name) for f in flags):
            return part
    return None


def _flag_parts(flag: str, given: Any) -> list[str]:
    """`seed: 7` is `--seed 7`, `x: true` is `--x`, `x: false` is `--no-x`, a mapping is JSON."""
    name = flag if flag.startswith("--") else f"--{flag}"
    _check_flag(name, flag)
    match given:
        case None:
            raise FlagError(f"`{flag}` has no value; write `{flag}: true` for a flag that takes none")
        case True:
            return [name]
        case False:
            return [f"--no-{name[2:]}"]
        case dict():
            return [name, json.dumps(given)]
        case list():
            values = [_text(item, flag) for item in given]
            if not values or any(item.startswith("-") for item in values):
                raise FlagError(f"`{flag}` needs one or more values, none beginning with `-`")
            return [name, *values]
        case _:
            text = _text(given, flag)
            return [f"{name}={text}"] if text.startswith("-") else [name, text]


def _list_parts(items: list[Any] | tuple[Any, ...]) -> list[str]:
    parts = [_text(item, "vllm_args") for item in items]
    for index, part in enumerate(parts):
        if part.startswith("-") and not _NUMBER.fullmatch(part):
            _check_flag(part.partition("=")[0], part.partition("=")[0])
        elif index == 0:
            raise FlagError(f"`{part}` belongs to no flag; the first item is one, such as `--seed`")
    return parts


def _text(value: Any, flag: str) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise FlagError(f"`{flag}` holds {type(value).__name__} where text or a number belongs")


def _check_flag(name: str, shown: str) -> None:
    """Raise `FlagError` for a flag that is not allowed."""
    if not name.startswith("--"):
        raise FlagError(
            f"`{shown}` is a short form; write the long one (`--tensor-parallel-size`, not `-tp`)"
        )
    if not _FLAG.fullmatch(name):
        raise FlagError(f"`{shown}` is not a flag")
    plain = name.partition(".")[0].replace("_", "-")
    for flag in (plain, f"--{plain[2:].removeprefix('no-')}"):
        if flag in OWNED:
            raise FlagError(f"`{shown}` is not for vllm_args: {OWNED[flag]}")
        # argparse takes any unambiguous beginning of a flag for the flag
        whole = next((owned for owned in OWNED if owned.startswith(flag)), None)
        if whole is not None:
            raise FlagError(f"`{shown}` is short for `{whole}`, which is not for vllm_args: {OWNED[whole]}")
