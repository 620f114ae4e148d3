"""How does the gateway's own policy place calls? Drives its dispatcher under the virtual clock.

A fleet of one pool is built in memory; `simulation.gateway` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.types import (
    Adapter,
    Band,
    BaseModel,
    Caps,
    Fleet,
    GatewaySettings,
    Pool,
    SchedulerSettings,
    Slo,
    Strategy,
    Tenant,
)
from simulation.costs import EngineSettings
from simulation.driver import BASE, Driver
from simulation.gateway import GatewayRouter

POOL = "pool"
UNCAPPED = 10**9


@dataclass(frozen=True, slots=True)
class Policy:
    """How the gateway is set up for a run. Nothing is refused unless an objective is set."""

    name: str = "ours"
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    slo: Slo = field(default_factory=Slo)
    queue_timeout_s: float = float(UNCAPPED)

    def with_settings(self, changes: Mapping[str, float]) -> Policy:
        """The same with other settings of the scheduler. Raises TypeError on one that does not exist."""
        known: dict[str, Any] = {name: getattr(self.settings, name) for name in SchedulerSettings.__slots__}
        return Policy(self.name, SchedulerSettings(**(known | dict(changes))), self.slo, self.queue_timeout_s)


def fleet_of(
    policy: Policy, owned: Mapping[str, list[str]], engines: list[EngineSettings], bands: Mapping[str, Band]
) -> Fleet:
    """One pool of alike replicas that serves all tenants; no cap but those of the queue."""
    engine = engines[0]
    base = BaseModel(
        BASE,
        "/base",
        max_num_seqs=engine.max_sequences,
        max_loras=engine.slots,
        max_cpu_loras=engine.host_places,
    )
    caps = Caps(max_concurrency=UNCAPPED, max_queued=UNCAPPED, queue_timeout_s=policy.queue_timeout_s)
    tenants = {
        name: Tenant(name, frozenset(), {adapter: adapter for adapter in adapters}, band=band, caps=caps)
        for name, adapters in owned.items()
        for band in (bands.get(name, Band.STANDARD),)
    }
    pool = Pool(POOL, Strategy.MULTI_LORA, (BASE,), len(engines), (), tuple(tenants), policy.slo)
    adapters = {a: Adapter(a, f"/{a}", BASE) for names in owned.values() for a in names}
    return Fleet({BASE: base}, adapters, tenants, {POOL: pool}, GatewaySettings(scheduler=policy.settings))


class Ours(GatewayRouter):
    """The gateway of one pool of alike replicas, each with the engine that the driver has."""

    def __init__(
        self, policy: Policy, owned: Mapping[str, list[str]], bands: Mapping[str, Band] | None = None
    ) -> None:
        super().__init__(Fleet({}, {}, {}, {}, GatewaySettings()))
        self._policy, self._owned, self._bands = policy, owned, bands or {}

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives."""
        settings = [engine.settings for engine in driver.engines]
        self.fleet = fleet_of(self._policy, self._owned, settings, self._bands)
        super().start(driver)
