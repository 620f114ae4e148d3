"""Sends every engine its desired adapters, and keeps each engine's report of its adapters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from engines.residency import DesiredAdapters, FaultKind, Residency
from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterEntry
from routing.lifecycle.placement import Wanted, desired_adapters
from routing.replicas.client import ReplicaClient, ReplicaSilent
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica

log = logging.getLogger("tenantry.lifecycle")


class Engines:
    """The adapters of every replica, as wanted and as reported."""

    def __init__(
        self,
        directory: Directory,
        dispatcher: Dispatcher,
        wanted: Wanted,
        *,
        crashed: Callable[[str, str], None],
    ) -> None:
        """`crashed` gets adapter id and reason when an engine has died while it loaded that adapter."""
        self._directory = directory
        self._dispatcher = dispatcher
        self._wanted = wanted
        self._crashed = crashed
        self._residency: dict[str, Residency] = {}  # replica -> its last report
        self._told: dict[str, DesiredAdapters] = {}  # replica -> the set that it has confirmed
        self._crashes: dict[
            tuple[str, str], int
        ] = {}  # (worker, adapter id) -> start of the last one reported
        self._changes = 0  # of the inputs of engines' desired sets
        self._told_of: dict[str, int] = {}  # replica -> the changes sent to it
        self._ending: dict[str, bool] = {}  # replica -> whether adapters are there only until requests end
        self._revision = time.time_ns() // 1000  # grows over restarts: no engine takes an old set for new
        self.changed = {name: asyncio.Event() for name in dispatcher.replicas}

    async def sync(self, client: ReplicaClient) -> bool:
        """Send a replica its desired adapters and keep its report. Returns whether it may be used."""
        engine = self._dispatcher.replicas[client.name].engine
        try:
            report = await client.residency()
            changes, wanted = self._changes, self._desired(client.name)
            if report.revision != wanted.revision:
                ids = {adapter.id for adapter in wanted.adapters}
                # Adapters about to go must not be granted any more while the engine is told.
                engine.adapters &= ids
                report = await client.desire(wanted)
        except ReplicaSilent as error:
            log.warning("%s", error)
            return client.name in self._told
        self._told[client.name], self._residency[client.name] = wanted, report
        self._told_of[client.name] = changes
        engine.max_model_len, engine.chars_per_token = report.max_model_len, report.chars_per_token
        self._dispatcher.take_residency(
            client.name,
            adapters={adapter.id for adapter in wanted.adapters},
            pinned=report.pinned,
            host=report.host,
            kv_tokens=report.kv_tokens,
            incarnation=f"{report.worker}/{report.engine_starts}",
        )
        self._report_crashes(report)
        return True

    def forget(self, replica: str) -> None:
        """Drop the reports of a replica that stopped answering."""
        self._told.pop(replica, None)
        self._residency.pop(replica, None)

    def mark_changed(self) -> None:
        """Mark the desired sets as changed; replicas get them at their next probe."""
        self._changes += 1

    def tell_all(self) -> None:
        """Send every replica its set at once, not at the next probe."""
        self.mark_changed()
        for event in self.changed.values():
            event.set()

    def residency(self, replica: str) -> Residency | None:
        """Return a replica's last report."""
        return self._residency.get(replica)

    def may_hold(self, adapter_id: str) -> bool:
        """Whether any engine may still have the adapter or get requests for it; a silent one may."""
        return any(self._may_hold(replica, adapter_id) for replica in self.changed)

    def _may_hold(self, replica: str, adapter_id: str) -> bool:
        told, report = self._told.get(replica), self._residency.get(replica)
        if told is None or report is None or report.revision != told.revision:
            return True
        named = {adapter.id for adapter in told.adapters}
        return adapter_id in named.union(report.slots, report.host, report.draining)

    def _desired(self, replica: str) -> DesiredAdapters:
        """Return a replica's desired adapters; with a new revision only if they have changed."""
        told = self._told.get(replica)
        known = told is not None and self._told_of[replica] == self._changes
        if told is not None and known and not self._ending.get(replica):
            return told  # this saves a pass over a thousand adapters every second
        adapters = desired_adapters(self._entries_at(self._dispatcher.replicas[replica]), self._wanted)
        if told is not None and set(told.adapters) == set(adapters):
            return told
        self._revision += 1
        return DesiredAdapters(self._revision, adapters)

    def _entries_at(self, where: Replica) -> list[AdapterEntry]:
        """List the adapters that a replica is to have: its tenants', and those of requests that end there."""
        possible = [e for e in self._directory.adapters() if where.engine_for(e.base_model) is not None]
        wanted = [e for e in possible if any(pool == where.pool for _, pool in self._directory.users_of(e))]
        here = {entry.key for entry in wanted}
        ending = [e for e in possible if e.key not in here and self._ends_at(where, e)]
        self._ending[where.name] = bool(ending)
        return [*wanted, *ending]

    def _ends_at(self, where: Replica, entry: AdapterEntry) -> bool:
        """Whether requests for an adapter are still at a replica that its users have left."""
        group = self._dispatcher.groups[where.pool, entry.base_model]
        return any(v.digest is not None and group.is_used(v.engine_id) for v in entry.versions)

    def _report_crashes(self, report: Residency) -> None:
        for adapter_id, fault in report.faults:
            known = self._crashes.get((report.worker, adapter_id), -1)
            # Only once another engine has passed its self-test: else it died of something else.
            is_news = known < fault.engine < report.engine_starts
            if fault.kind is FaultKind.CRASH and is_news:
                self._crashes[report.worker, adapter_id] = fault.engine
                self._crashed(adapter_id, fault.reason)
