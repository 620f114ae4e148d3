"""One tenant's client means harm: some hundred seeded requests at a whole gateway, two tenants beside it.

    HOSTILE_SEED=7 HOSTILE_BODIES=500 pytest tests/integration/test_hostile.py

tries others; so many of each kind of request. `python -m tests.hostile.bodies` shows one of them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from fleet.types import (
    Adapter,
    BaseModel,
    Budget,
    Caps,
    Fleet,
    GatewaySettings,
    MetricsAccess,
    Pool,
    StateSettings,
    Strategy,
    Tenant,
)
from routing.catalog.entries import AdapterKey, KeyRole, RolloutPlan
from routing.http.connections import BoundedProtocol, Bounds, OpenConnections
from tests.fakes import WAIT_S, FakeEngine, eventually, key_of
from tests.hostile.audit import Counted, by, differences, rows_of, tokens
from tests.hostile.bodies import FAMILIES, attack
from tests.hostile.engine import INNER, PIECES, PROMPT_TOKENS, Fickle
from tests.hostile.judge import Judge
from tests.hostile.request import World
from tests.hostile.siege import Neighbour, Siege
from tests.hostile.worlds import SMALL
from tests.integration.test_lifecycle import House, adapter_folder, house_of

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
BODIES = int(os.environ.get("HOSTILE_BODIES", "40"))  # of each family
NEIGHBOURS = {
    "anna-gmbh": ("annas-model", "annas-weights"),
    "bertram-kg": ("bertrams-model", "bertrams-weights"),
}
CANARY = AdapterKey("mallory", "canary")
WEIGHTS = ("mallorys-support", "mallorys-sales", "annas-weights", "bertrams-weights")


FREE: dict[str, Any] = {"budget": Budget(10**9, 0.8)}
TIGHT: dict[str, Any] = {
    "budget": Budget(600, 0.5),
    "caps": Caps(3, 2, max_queued=1, max_queued_tokens=2000, requests_per_minute=300, tokens_per_minute=900),
}


def fleet_in(folder: Path, bounds: dict[str, Any]) -> Fleet:
    """Mallory, with bounds, and two neighbours on one pool of two replicas."""

    def tenant(name: str, models: dict[str, str], **changes: Any) -> Tenant:
        key_hash = hashlib.sha256(key_of(name).encode()).hexdigest()
        return Tenant(name, frozenset({key_hash}), models, next(iter(models)), **changes)

    for number, name in enumerate(WEIGHTS):
        adapter_folder(folder / "declared" / name, number)
    own = {"support": "mallorys-support", "sales": "mallorys-sales", "plain": "base"}
    tenants = [
        tenant("mallory", own, **bounds),
        *(tenant(name, {model: weights}) for name, (model, weights) in NEIGHBOURS.items()),
    ]
    pool = Pool("shared", Strategy.MULTI_LORA, ("base",), 2, (), tuple(one.name for one in tenants))
    operator = hashlib.sha256(key_of("operator").encode()).hexdigest()
    return Fleet(
        base_models={
            "base": BaseModel("base", "/models/base", max_loras=4, max_cpu_loras=8, max_lora_rank=16)
        },
        adapters={name: Adapter(name, str(folder / "declared" / name), "base") for name in WEIGHTS},
        tenants={one.name: one for one in tenants},
        pools={"shared": pool},
        gateway=GatewaySettings(frozenset({operator}), MetricsAccess.OPERATOR, log_requests=False),
        state=StateSettings(folder=str(folder / "state")),
    )


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[tuple[int, OpenConnections]]:
    """Serve an application on a port, as `bentoml serve` does the gateway; no connection is left."""
    open_connections = OpenConnections(Bounds())
    protocol = type("Bounded", (BoundedProtocol,), {"open_connections": open_connections})
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()

    def make() -> BoundedProtocol:
        made: BoundedProtocol = protocol(config=config, server_state=state, app_state={})
        return made

    listener = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], open_connections
    finally:
        listener.close()
        await eventually(lambda: not state.connections and not state.tasks, "the end of all connections")


@dataclass
class Scene:
    """A gateway under siege."""

    house: House
    siege: Siege
    world: World
    engines: dict[str, Fickle]


@contextlib.asynccontextmanager
async def scene_in(folder: Path, bounds: dict[str, Any]) -> AsyncIterator[Scene]:
    engines: dict[str, Fickle] = {}

    def prepare(engine: FakeEngine) -> None:
        engines[engine.name] = Fickle(engine, tuple(weights for _, weights in NEIGHBOURS.values()))

    async with house_of(fleet_in(folder, bounds), folder, prepare=prepare) as house:
        await house.ready(1, key=CANARY)
        plan = RolloutPlan(0.5, min_requests=10, max_latency_ratio=1000.0, max_empty_rise=1.0)
        await house.ready(2, key=CANARY, rollout=plan)
        admin_key, _ = await house.manager.create_key(KeyRole.ADAPTERS, "mallory", note="", expires_s=None)
        inner = [version.engine_id for entry in house.manager.adapters() for version in entry.versions]
        secrets = {
            INNER,
            str(folder),
            *inner,
            *SMALL.foreign,
            *WEIGHTS[2:],
            *map(key_of, (*NEIGHBOURS, "operator")),
        }
        judge = Judge([secret.encode() for secret in sorted(secrets)])

        def look() -> Iterator[str]:
            for replica in house.bench.gateway.dispatcher.replicas.values():
                if not replica.engine.trusted or not replica.ready:
                    yield f"{replica.name} was left for {replica.engine.health.last_failure!r}"

        neighbours = [
            Neighbour(name, key_of(name), model, {"who?": "".join((*PIECES, weights))})
            for name, (model, weights) in NEIGHBOURS.items()
        ]
        async with listening(house.bench.gateway.app) as (port, open_connections):
            siege = Siege(port, judge, neighbours, 4 * WAIT_S, look)
            yield Scene(house, siege, replace(SMALL, admin_key=admin_key), engines)
        assert repr(open_connections) == "OpenConnections(0, 0 of strangers)"


@pytest.mark.parametrize("bounds", [FREE, TIGHT], ids=["free", "tight"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_hostile_client_harms_nobody_and_learns_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bounds: dict[str, Any]
) -> None:
    caplog.set_level(logging.WARNING)
    async with scene_in(tmp_path, bounds) as scene:
        numbers = range(BODIES * len(FAMILIES))
        await scene.siege.run(attack(SEED, number, scene.world) for number in numbers)
        if report := scene.siege.report():
            pytest.fail(report, pytrace=False)
        assert min(scene.siege.served[name] for name in NEIGHBOURS) > BODIES // 10
        await eventually(lambda: scene.house.bench.at_rest, "rest")
        await assert_that_books_are_right(scene)
    logged = [r.getMessage()[:2000] for r in caplog.records if r.exc_info and r.name.startswith("tenantry")]
    assert not logged and "met an error" not in caplog.text


async def assert_that_books_are_right(scene: Scene) -> None:
    """Nothing is reserved or held any more, nobody is blamed, and the ledger has each request once."""
    gateway = scene.house.bench.gateway
    assert not gateway.flights
    assert scene.house.entry(CANARY).rollout is not None, (
        "what one client breaks is not the candidate's fault"
    )
    gateway.ended.flush()
    await gateway.ledger.flush()
    rows = rows_of(scene.house.folder / "state" / "state.db")
    tenants = by("tenant", rows)
    assert tenants.keys() == {"mallory", *NEIGHBOURS}
    for name in NEIGHBOURS:
        assert Counter(row["outcome"] for row in tenants[name]) == {"completed": scene.siege.served[name]}
        assert tokens(tenants[name]) == Counted(PROMPT_TOKENS, len(PIECES) + 1) * scene.siege.served[name]
    status = gateway.ledger.budgets.status("mallory", time.time())
    used = tokens(tenants["mallory"])
    assert status is not None and status.used == used.prompt + used.completion
    assert sum(scene.house.bench.outcomes().values()) == len(rows)
    kept = Counter(row["request_id"] for row in tenants["mallory"])
    assert not [name for name, times in kept.items() if times > 1 and re.fullmatch(r"hostile-\d+", name)]
    answered = [one.attack.id for one in scene.siege.seen if one.status == 200 and one.model and one.has_id]
    assert not [name for name in answered if not kept[name]]
    for name, engine in scene.engines.items():
        assert engine.complaints == []
        unread = Counted(PROMPT_TOKENS, len(PIECES) + 1)
        assert not differences(by("replica", rows)[name], engine.counted, unread=unread, besides=Counted())
        replica = gateway.dispatcher.replicas[name]
        assert replica.engine.health.snapshot(gateway.dispatcher._clock()).recent_failures == 0
