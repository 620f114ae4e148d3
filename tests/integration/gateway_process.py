"""A gateway in a process of its own, so that it can be killed. Its engines are elsewhere, on Unix sockets.

`python -m tests.integration.gateway_process FOLDER`: serves `FOLDER/fleet.yaml` on `FOLDER/gateway.sock`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvicorn

from fleet.current import CurrentFleet
from fleet.file import FleetFile
from routing.assembly import assemble
from routing.replicas.discovery import StaticDiscovery
from tests.fakes import SECRET


async def serve(folder: Path) -> None:
    """Serve until the process ends."""
    file = FleetFile(folder / "fleet.yaml")
    fleet, _ = file.load()
    names = [name for pool in fleet.pools.values() for name, _ in pool.replica_models]
    addresses = {name: f"unix://{folder / name}.sock" for name in names}
    gateway = assemble(CurrentFleet(fleet), StaticDiscovery(lambda: addresses), secret=SECRET)
    gateway.fleets.begin_with(file)
    await gateway.start()
    config = uvicorn.Config(gateway.app, uds=str(folder / "gateway.sock"), lifespan="off", access_log=False)
    await uvicorn.Server(config).serve()
    await gateway.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
