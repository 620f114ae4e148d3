"""Both sides of the comparison: plain vLLM, and the gateway before the same engine. One after the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from engines.vllm_args import engine_args, engine_environment
from fleet.types import BaseModel
from tests.e2e.serving import DEMO, READY_WITHIN_S, ROOT, key_of, serving, wait_until
from tests.processes import left_of

# Its path from the root, where clients run: a name with slashes, by which they find its tokenizer too.
MODEL = str(DEMO / "base").lstrip("/")
ADAPTER = "support"
# What vLLM's own tests call the model and an adapter beside that.
BASE_NAMES = ("claude-3-7-sonnet-latest",)
ADAPTER_NAMES = ("zephyr-lora", "qwen3-lora")
TENANT = "acme"
ARGS = (
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *(
        "--structured-outputs-config",
        '{"backend": "xgrammar", "disable_any_whitespace": true}',
    ),  # the model would write nothing else
)
PORT = 8931


@dataclass(frozen=True, slots=True)
class Side:
    """A server that clients talk to."""

    name: str
    url: str

    def environment(self) -> dict[str, str]:
        """What clients' scripts read."""
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            "CLIENT_URL": self.url,
            "CLIENT_KEY": key_of(TENANT),
            "CLIENT_MODEL": MODEL,
            "CLIENT_ADAPTER": ADAPTER,
            "OPENAI_API_KEY": key_of(TENANT),
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[Side]:
    """VLLM's own server with the flags that an engine of the fleet has, its adapter loaded."""
    model = BaseModel(
        "base", str(DEMO / "base"), dtype="float32", max_model_len=512, kv_cache_bytes=2**30,
        max_loras=4, max_lora_rank=8, max_cpu_loras=16, vllm_args=ARGS,
    )  # fmt: skip
    argv = engine_args(model, shutdown_grace_s=5, on_cpu=True)
    at = argv.index("--served-model-name") + 1
    argv[at : at + 1] = [MODEL, *BASE_NAMES]
    adapter = DEMO / "adapters" / "acme-support"
    argv += ["--lora-modules", *(f"{name}={adapter}" for name in (ADAPTER, *ADAPTER_NAMES))]
    argv += ["--port", str(PORT)]
    environment = {**os.environ, **engine_environment([model], on_cpu=True), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", *argv)
    with (folder / "plain.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=ROOT
        )
    side = Side("plain vLLM", f"http://127.0.0.1:{PORT}")
    try:
        wait_until(lambda: _answers(process, side.url), "plain vLLM's health", within_s=READY_WITHIN_S)
        yield side
    finally:
        _end(process)


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[Side]:
    """The demo's fleet with one pool, whose tenant calls the base model by that path."""
    fleet = yaml.safe_load((ROOT / "fleet.yaml").read_text().replace(".cache/demo", str(DEMO)))
    fleet["base_models"]["tiny-llama"] |= {
        "vllm_args": list(ARGS),
        "max_model_len": 512,
        "request_limits": {"beam_width": 4},  # plain vLLM has beams too
    }
    fleet["tenants"] = {TENANT: fleet["tenants"][TENANT]}
    models = fleet["tenants"][TENANT]["models"]
    models |= dict.fromkeys((MODEL, *BASE_NAMES), "tiny-llama") | dict.fromkeys(
        ADAPTER_NAMES, models[ADAPTER]
    )
    fleet["pools"] = {"shared": fleet["pools"]["shared"] | {"tenants": [TENANT]}}
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet))
    with serving("service:Gateway", folder, "--arg", f"fleet={path}") as service:
        yield Side("gateway", service.url)


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    assert process.poll() is None, "plain vLLM ended early; its log is in the folder"
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        for survivor in left_of(family, within_s=30):
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()
    process.wait(10)
