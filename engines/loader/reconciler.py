"""Brings the engine to its desired adapters, again after every restart, by itself.

It lives as long as the worker process: engines come and go, the desired set and the failures stay. Preloading
is done in the background once the engine is ready, and rests after each adapter as long as that took, so
that decoding gets at least half of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets

from adapters.errors import AdapterError
from engines.loader.engine import EngineDied
from engines.loader.metrics import AdapterMetrics
from engines.loader.resident import AdapterLoader
from engines.residency import DesiredAdapters, EngineAdapter, Fault, FaultKind, FilesAway, Residency

REFRESH_INTERVAL_S = 1.0  # least time between two queries of the worker's adapters
# A client that left is aborted by vLLM a moment after its request has ended here; until then its adapter may
# be in one more step.
SETTLE_S = 0.1
FILES_RETRY_S = 15.0  # where an adapter's files cannot be had; a request for it tries at once
_RETRY_S = 1.0  # after an unforeseen error
log = logging.getLogger("tenantry.engine")


class Reconciler:
    """The desired adapters of an engine, those that it holds, and their failures."""

    def __init__(self, *, slots: int, metrics: AdapterMetrics) -> None:
        self.metrics = metrics
        self.take_slots(slots)
        self._worker = secrets.token_hex(8)
        self._engine_starts = 0
        self._desired = DesiredAdapters(0, ())
        self._by_id: dict[str, EngineAdapter] = {}
        self._faults: dict[str, Fault] = {}
        self._given_up: set[str] = set()  # not tried again by itself in this engine
        self._away: set[str] = set()  # whose files could not be had just now
        self._loader: AdapterLoader | None = None
        self._changed = asyncio.Event()

    # -- the gateway's side --------------------------------------------------------------------------------

    def desire(self, desired: DesiredAdapters) -> None:
        """Take the complete set of adapters this engine may serve; replaces any earlier one."""
        self._desired = desired
        self._by_id = {adapter.id: adapter for adapter in desired.adapters}
        self._faults = {name: fault for name, fault in self._faults.items() if name in self._by_id}
        self._given_up &= self._by_id.keys()
        self._changed.set()

    def take_slots(self, slots: int) -> None:
        """Take the number of slots that the next engine has."""
        self._max_pins = max(0, slots - 1)  # vLLM cannot run any other adapter once every slot is pinned

    def desired(self, name: str) -> EngineAdapter | None:
        """Return the adapter if it may be served."""
        return self._by_id.get(name)

    def blame(self, name: str, kind: FaultKind, reason: str) -> None:
        """Record a failure of an adapter; forgotten once it is no longer desired."""
        if name not in self._by_id:
            return
        known = self._faults.get(name)
        self._faults[name] = Fault(kind, known.count + 1 if known else 1, reason, self._engine_starts)
        if kind is FaultKind.CRASH:
            log.error("%s: %s", name, reason)

    def forgive(self) -> None:
        """Clear the adapter blamed for the last engine's death: the engine fails again for another reason."""
        self._faults = {
            name: fault
            for name, fault in self._faults.items()
            if fault.kind is not FaultKind.CRASH or fault.engine < self._engine_starts
        }

    def residency(self) -> Residency:
        """Return the adapters' places by the worker's last answer, about a second old. Never waits."""
        loader = self._loader
        faults = tuple((self._refused_pins() | self._faults).items())
        base = Residency(self._worker, self._engine_starts, self._desired.revision, faults=faults)
        if loader is None:
            return base
        return Residency(
            worker=base.worker,
            engine_starts=base.engine_starts,
            revision=base.revision,
            slots=loader.in_slots,
            host=loader.host,
            pinned=loader.pinned,
            draining=tuple(sorted(loader.known - self._by_id.keys())),
            faults=faults,
        )

    def _pins(self) -> list[EngineAdapter]:
        return [adapter for adapter in self._desired.adapters if adapter.pinned]

    def _refused_pins(self) -> dict[str, Fault]:
        """Pins beyond the limit; they are served like any other adapter."""
        reason = f"not pinned: this engine can pin {self._max_pins}, one slot stays for all others"
        return {a.id: Fault(FaultKind.LOAD, 1, reason) for a in self._pins()[self._max_pins :]}

    # -- the engine's side ---------------------------------------------------------------------------------

    async def run(self, loader: AdapterLoader) -> None:
        """Keep one engine as desired until it dies or this is cancelled."""
        self._loader, self._engine_starts = loader, self._engine_starts + 1
        self._given_up = {name for name, fault in self._faults.items() if fault.kind is FaultKind.CRASH}
        loader.idle = lambda _: self._changed.set()
        loader.dirty.set()
        watcher = asyncio.create_task(self._watch(loader))
        try:
            with contextlib.suppress(EngineDied):
                await self._reconcile(loader)
        finally:
            self._loader = None
            self.metrics.residents(slots=0, host=0, pinned=0)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self, loader: AdapterLoader) -> None:
        with contextlib.suppress(EngineDied):
            while True:
                await loader.dirty.wait()
                loader.dirty.clear()
                await loader.refresh()
                await asyncio.sleep(REFRESH_INTERVAL_S)

    async def _reconcile(self, loader: AdapterLoader) -> None:
        while True:
            self._changed.clear()
            try:
                if not await self._step(loader):
                    await self._changed.wait()
            except EngineDied:
                raise
            except Exception:
                log.exception("adapters of this engine are not as desired; trying again")
                await asyncio.sleep(_RETRY_S)

    async def _step(self, loader: AdapterLoader) -> bool:
        """Do the most urgent step; return whether there was one. The desired set may change meanwhile."""
        return (
            await self._unpin(loader)
            or await self._remove(loader)
            or await self._pin(loader)
            or await self._preload(loader)
        )

    async def _unpin(self, loader: AdapterLoader) -> bool:
        wanted = {adapter.id for adapter in self._pins()[: self._max_pins]}
        surplus = [name for name in loader.pinned if name not in wanted]
        for name in surplus:
            await loader.unpin(name)
        return bool(surplus)

    async def _remove(self, loader: AdapterLoader) -> bool:
        """Remove undesired adapters without requests; the others go when their last request ends."""
        unused = [name for name in loader.known - self._by_id.keys() if not loader.is_used(name)]
        if not unused:
            return False
        await asyncio.sleep(SETTLE_S)
        for name in unused:
            if name not in self._by_id:
                await loader.remove(name)
        return True

    async def _pin(self, loader: AdapterLoader) -> bool:
        for adapter in self._pins()[: self._max_pins]:
            if adapter.id in loader.pinned or adapter.id in self._given_up | self._away:
                continue
            try:
                if await loader.pin(adapter):
                    return True
            except FilesAway as error:
                self._try_later(adapter.id, error)
            except AdapterError:
                self._given_up.add(adapter.id)
        return False

    async def _preload(self, loader: AdapterLoader) -> bool:
        """Load the most wanted missing adapter, unless that would evict another."""
        if not loader.has_free_place:
            return False
        present = set(loader.host) | self._given_up | self._away
        adapter = next((a for a in self._desired.adapters if a.id not in present), None)
        if adapter is None:
            return False
        try:
            await loader.preload(adapter)
            await asyncio.sleep(loader.load_s.get(adapter.id, 0.0))
        except FilesAway as error:
            self._try_later(adapter.id, error)
        except AdapterError:
            self._given_up.add(adapter.id)
        return True

    def _try_later(self, name: str, error: FilesAway) -> None:
        """Leave an adapter for a while; others go on."""
        log.warning("%s; trying again in %g s", error, FILES_RETRY_S)
        self._away.add(name)
        asyncio.get_running_loop().call_later(FILES_RETRY_S, self._try_again, name)

    def _try_again(self, name: str) -> None:
        self._away.discard(name)
        self._changed.set()
