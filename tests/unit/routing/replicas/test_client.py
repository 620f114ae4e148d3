"""What does the gateway take a replica's answer to its probe for?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.health import EngineHealth, EngineState
from routing.replicas.client import ReplicaClient
from tests.fakes import respond, serving

TOLD = EngineHealth(EngineState.FAILED, "No working C++ compiler", "w", 1, "KeyError", True)


@pytest.mark.parametrize(
    ("status", "payload", "health"),
    [
        (503, TOLD.to_json(), TOLD),
        (200, {"ready": True}, EngineHealth(EngineState.READY)),  # an engine of an older release
        (503, {"ready": False}, EngineHealth(EngineState.STARTING)),
        (200, ["ready"], None),
        (200, None, None),
        (200, {"state": "dancing"}, None),
        (200, {"state": "ready", "deaths": "many"}, None),
    ],
)
async def test_a_replica_is_what_it_says_or_nothing(
    tmp_path: Path, status: int, payload: Any, health: EngineHealth | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, status, payload)

    async with serving(app, tmp_path / "engine.sock") as url:
        client = ReplicaClient("shared-0", url, "token")
        assert await client.health() == health
        assert await client.is_ready() == (health is not None and health.state is EngineState.READY)
        client.close()


async def test_a_replica_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    client = ReplicaClient("shared-0", f"unix://{tmp_path}/nobody.sock", "token")
    assert await client.health() is None and not await client.is_ready()
    client.close()
