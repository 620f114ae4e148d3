"""Sends every engine its desired adapters, and keeps each engine's report of its adapters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.residency import DesiredAdapters, FaultKind, Residency
from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterEntry
from routing.lifecycle.placement import Wanted, desired_adapters
from routing.replicas.client import ReplicaClient, ReplicaSilent
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica, RunningSettings

log = logging.getLogger("tenantry.lifecycle")


@dataclass(slots=True)
class _Kept:
    """What is kept of one replica."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)  # set: it is to be probed at once
    told: DesiredAdapters | None = None  # the set that it has confirmed
    told_of: int = 0  # the changes sent to it with that set
    ending: bool = False  # adapters are there only until requests end
    report: Residency | None = None  # its last one
    is_empty: bool = False  # it says that it runs no engine, so that it has no adapter
    crashes: dict[tuple[str, str], int] = field(default_factory=dict)  # worker, adapter id -> start

    def may_hold(self, adapter_id: str) -> bool:
        """Whether its engine may still have the adapter or get requests for it; a silent one may."""
        if self.is_empty:
            return False
        if self.told is None or self.report is None or self.report.revision != self.told.revision:
            return True
        named = {adapter.id for adapter in self.told.adapters}
        return adapter_id in named.union(self.report.slots, self.report.host, self.report.draining)


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
        self.files_at = ""  # where engines get the files of adapters: this gateway's address, a URL
        self._kept: dict[str, _Kept] = {}  # by replica
        self._changes = 0  # of the inputs of engines' desired sets
        self._revision = time.time_ns() // 1000  # grows over restarts: no engine takes an old set for new

    def join(self, replica: str) -> asyncio.Event:
        """Take a replica in. The event that is returned asks for a probe at once when it is set."""
        kept = self._kept[replica] = _Kept()
        return kept.changed

    def leave(self, replica: str) -> None:
        """Drop everything that is kept of a replica."""
        del self._kept[replica]

    async def sync(self, client: ReplicaClient) -> bool:
        """Send a replica its desired adapters and keep its report. Returns whether it may be used."""
        kept, engine = self._kept[client.name], self._dispatcher.replicas[client.name].engine
        kept.is_empty = False
        try:
            report = await client.residency()
            changes, wanted = self._changes, self._desired(client.name, kept)
            if report.revision != wanted.revision:
                ids = {adapter.id for adapter in wanted.adapters}
                # Adapters about to go must not be granted any more while the engine is told.
                engine.adapters &= ids
                report = await client.desire(wanted)
        except ReplicaSilent as error:
            log.warning("%s", error)
            return kept.told is not None
        kept.told, kept.told_of, kept.report = wanted, changes, report
        engine.max_model_len, engine.chars_per_token = report.max_model_len, report.chars_per_token
        if report.settings:
            engine.take_settings(_settings_in(report))
        self._dispatcher.take_residency(
            client.name,
            adapters={adapter.id for adapter in wanted.adapters},
            pinned=report.pinned,
            host=report.host,
            kv_tokens=report.kv_tokens,
            incarnation=f"{report.worker}/{report.engine_starts}",
        )
        self._report_crashes(report, kept.crashes)
        return True

    def forget(self, replica: str, *, is_empty: bool = False) -> None:
        """Drop the reports of a replica that stopped answering, or `is_empty`: its engine has ended."""
        kept = self._kept[replica]
        kept.told = kept.report = None
        self._dispatcher.replicas[replica].engine.settings = ""  # the next engine may have others
        kept.is_empty = is_empty

    def mark_changed(self) -> None:
        """Mark the desired sets as changed; replicas get them at their next probe."""
        self._changes += 1

    def tell_all(self) -> None:
        """Send every replica its set at once, not at the next probe."""
        self.mark_changed()
        for kept in self._kept.values():
            kept.changed.set()

    def look_at(self, replica: str) -> None:
        """Have a replica probed at once, if it takes part."""
        if replica in self._kept:
            self._kept[replica].changed.set()

    def residency(self, replica: str) -> Residency | None:
        """Return a replica's last report."""
        kept = self._kept.get(replica)
        return None if kept is None else kept.report

    def may_hold(self, adapter_id: str) -> bool:
        """Whether any engine may still have the adapter or get requests for it; a silent one may."""
        return any(kept.may_hold(adapter_id) for kept in self._kept.values())

    def _desired(self, replica: str, kept: _Kept) -> DesiredAdapters:
        """Return a replica's desired adapters; with a new revision only if they have changed."""
        told = kept.told
        if told is not None and kept.told_of == self._changes and not kept.ending:
            return told  # this saves a pass over a thousand adapters every second
        adapters = desired_adapters(self._entries_at(self._dispatcher.replicas[replica], kept), self._wanted)
        if told is not None and set(told.adapters) == set(adapters):
            return told
        self._revision += 1
        return DesiredAdapters(self._revision, adapters, self.files_at)

    def _entries_at(self, where: Replica, kept: _Kept) -> list[AdapterEntry]:
        """List the adapters that a replica is to have: its tenants', and those of requests that end there."""
        possible = [e for e in self._directory.adapters() if where.engine_for(e.base_model) is not None]
        wanted = [e for e in possible if any(pool == where.pool for _, pool in self._directory.users_of(e))]
        here = {entry.key for entry in wanted}
        ending = [e for e in possible if e.key not in here and self._ends_at(where, e)]
        kept.ending = bool(ending)
        return [*wanted, *ending]

    def _ends_at(self, where: Replica, entry: AdapterEntry) -> bool:
        """Whether requests for an adapter are still at a replica that its users have left."""
        group = self._dispatcher.groups[where.pool, entry.base_model]
        return any(v.digest is not None and group.is_used(v.engine_id) for v in entry.versions)

    def _report_crashes(self, report: Residency, reported: dict[tuple[str, str], int]) -> None:
        for adapter_id, fault in report.faults:
            known = reported.get((report.worker, adapter_id), -1)
            # Only once another engine has passed its self-test: else it died of something else.
            is_news = known < fault.engine < report.engine_starts
            if fault.kind is FaultKind.CRASH and is_news:
                reported[report.worker, adapter_id] = fault.engine
                self._crashed(adapter_id, fault.reason)


def _settings_in(report: Residency) -> RunningSettings:
    """Return with which settings an engine runs."""
    return RunningSettings(report.settings, report.max_loras, report.max_num_seqs, report.max_cpu_loras)
