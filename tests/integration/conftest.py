"""A gateway in front of fake engines, all in the test's own event loop."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.assembly import Gateway, assemble
from routing.http import connections
from routing.observing.metrics.definitions import REQUESTS
from routing.replicas.discovery import Discovery, StaticDiscovery
from tests.fakes import (
    SECRET,
    Client,
    FakeEngine,
    ReadyLifecycle,
    engines_of,
    eventually,
    in_folder,
    key_of,
    ledger_in,
    serving,
    small_fleet,
)

connections.install(connections.Bounds())  # as the service does: parts of answers then go out at once


@dataclass
class Bench:
    """A gateway and its engines."""

    gateway: Gateway
    engines: dict[str, FakeEngine]
    _engine_servers: dict[str, contextlib.AsyncExitStack] = field(default_factory=dict)

    def post(self, path: str, payload: Any, *, tenant: str = "a", **options: Any) -> Client:
        """A POST of JSON with the tenant's key; bytes go as they are."""
        body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        headers = [
            ("authorization", f"Bearer {key_of(tenant)}"),
            ("content-type", "application/json"),
            *options.pop("headers", []),
        ]
        return Client(self.gateway.app, path, body=body, headers=headers, **options)

    def chat(self, tenant: str = "a", /, **fields: Any) -> Client:
        """A chat completion."""
        payload = {"messages": [{"role": "user", "content": "who?"}], **fields}
        return self.post("/v1/chat/completions", payload, tenant=tenant)

    def get(self, path: str, *, key: str | None = None, **options: Any) -> Client:
        """A GET, with a bearer key if given."""
        headers = [("authorization", f"Bearer {key}")] if key else []
        return Client(self.gateway.app, path, method="GET", headers=headers, **options)

    @property
    def at_rest(self) -> bool:
        """Whether every counter is back at zero."""
        counters = repr(self.gateway.dispatcher)
        idle = all(engine.running == 0 for engine in self.engines.values())
        return idle and counters == "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"

    async def kill(self, replica: str) -> None:
        """Take an engine's server away, connections and all."""
        await self._engine_servers.pop(replica).aclose()

    def logged(self, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
        """The request log so far."""
        self.gateway.ended.flush()
        messages = (record.getMessage() for record in caplog.records if record.name == "tenantry.request")
        return [orjson.loads(line) for message in messages for line in message.splitlines()]

    def outcomes(self) -> dict[tuple[str, str], float]:
        """Requests that have ended, by outcome and reason."""
        self.gateway.ended.flush()
        counts: Counter[tuple[str, str]] = Counter()
        for metric in text_string_to_metric_families(self.gateway.metrics.page().decode()):
            for sample in metric.samples:
                if sample.name == REQUESTS.sample:
                    counts[sample.labels["outcome"], sample.labels["reason"]] += int(sample.value)
        return dict(counts)


def known_at_start(addresses: Mapping[str, str]) -> Discovery:
    """Replicas that stay where they are."""
    return StaticDiscovery(lambda: addresses)


@contextlib.asynccontextmanager
async def bench_of(
    fleet: Fleet,
    folder: Path,
    find: Callable[[Mapping[str, str]], Discovery] = known_at_start,
    *,
    local_only: frozenset[str] = frozenset(),
) -> AsyncIterator[Bench]:
    """Start a gateway with a fake engine for every replica; at the end every counter must be at zero.

    `find` gets the engines' addresses.
    """
    engines = engines_of(fleet)
    async with contextlib.AsyncExitStack() as stack:
        servers, addresses = {}, {}
        for name, engine in engines.items():
            servers[name] = await stack.enter_async_context(contextlib.AsyncExitStack())
            server = serving(engine, folder / f"{name}.sock")
            addresses[name] = await servers[name].enter_async_context(server)
        budgets = {name: tenant.budget for name, tenant in fleet.tenants.items() if tenant.budget}
        ledger = ledger_in(folder, budgets=budgets, currency=fleet.prices and fleet.prices.currency)
        gateway = assemble(
            CurrentFleet(in_folder(fleet, folder)),
            find(addresses),
            secret=SECRET,
            local_only=local_only,
            ledger=ledger,
            lifecycle_class=ReadyLifecycle,
        )
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await eventually(gateway.is_ready, "the gateway's readiness")
        bench = Bench(gateway, engines, servers)
        yield bench
        for engine in engines.values():
            engine.release.set()
        await eventually(lambda: bench.at_rest, f"rest of {gateway.dispatcher!r}")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """The small fleet, one replica each."""
    async with bench_of(small_fleet(), tmp_path) as bench:
        yield bench


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Bench]:
    """The small fleet with two replicas in the shared pool."""
    async with bench_of(small_fleet(replicas=2), tmp_path) as bench:
        yield bench
