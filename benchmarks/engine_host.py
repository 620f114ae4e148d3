"""Serves one engine on a port, without BentoML and without a gateway, for `python -m benchmarks.adapters`."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from benchmarks.fleet import DEMO
from engines.adapter_files import AdapterFiles
from engines.copies import Folders
from engines.host import EngineHost
from engines.loader import files
from engines.supervisor import Supervisor
from fleet.types import BaseModel

MODEL = BaseModel(
    "tiny-llama",
    str(DEMO / "base"),
    dtype="float32",
    max_model_len=512,
    max_loras=4,
    max_lora_rank=8,
    max_cpu_loras=16,
    kv_cache_bytes=2**30,
)


async def serve(port: int, store: Path) -> None:
    """Run the engine until SIGTERM."""
    token = os.environ["TENANTRY_BENCH_TOKEN"]
    supervisor = Supervisor("bench-0", MODEL, shutdown_grace_s=5.0)
    supervisor.files = AdapterFiles(Folders(store, store.with_name("copies")), token)
    host = EngineHost(supervisor, token=token)

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        supervisor.start()
        yield
        await supervisor.stop()

    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/", app=host)], lifespan=lifespan)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")
    await uvicorn.Server(config).serve()


def main(
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")],
    store: Annotated[Path, typer.Option(help="Folder with adapters' files.")],
    cold_reads: Annotated[bool, typer.Option(help="Leave reading from disk to the engine.")] = False,
) -> None:
    """Serve one engine with four slots and sixteen places for the demo's base model."""
    logging.basicConfig(level=logging.INFO)
    if cold_reads:
        files.warm = files.check_files
    asyncio.run(serve(port, store))


if __name__ == "__main__":
    typer.run(main)
