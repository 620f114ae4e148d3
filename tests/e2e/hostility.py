"""The demo fleet with a hostile tenant on its shared pool: what that knows, and what it must not learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx

from tests.e2e.conftest import demo_fleet
from tests.e2e.serving import Service, key_of
from tests.hostile.judge import BUSY, Judge
from tests.hostile.request import World
from tests.hostile.worlds import DEMO

HOSTILE = "initech"
MOST_TOKENS = 512  # the demo model reads, and makes, no more in one request


def fleet_in(folder: Path) -> Path:
    """Write the demo fleet with equal priorities, and metrics for operators alone."""
    changes = {"    priority: low\n": "", "metrics_access: loopback": "metrics_access: operator"}
    return demo_fleet(folder, changes)


def world_of(service: Service) -> World:
    """What the hostile tenant holds: its demo key, and a key of its own for adapters."""
    answer = httpx.post(
        f"{service.url}/admin/v1/keys",
        json={"role": "adapters", "tenant": HOSTILE},
        headers={"authorization": f"Bearer {key_of('operator')}"},
    )
    assert answer.status_code == 201, answer.text
    return replace(DEMO, admin_key=str(answer.json()["key"]))


def judge_of(folder: Path) -> Judge:
    """A judge who knows the other tenants' names and keys, and the folder of the service's state."""
    others = map(key_of, ("acme", "globex", "operator"))
    secrets = [*DEMO.foreign, *others, str(folder), "cache_salt"]
    return Judge([secret.encode() for secret in secrets], BUSY)
