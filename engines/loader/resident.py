"""The adapters of one running engine, and which of them may be evicted. Loads each once at a time.

Host memory holds `places` adapters, slots a part of those. Evictions from host memory happen here, not in
vLLM, so that no adapter vanishes between the moment its request is admitted and the moment it runs:
vLLM would read it again inside its decoding loop, where a failing read ends the engine. `load_inplace` is
never used, since vLLM would read the files anew in every step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from engines.loader import files
from engines.loader.engine import EngineDied, LoraEngine
from engines.loader.metrics import AdapterMetrics
from engines.loader.slots import Slots
from engines.residency import ENGINE_DIED, EngineAdapter, FaultKind

RETRY_AFTER_S = 30.0  # a broken adapter is not read again for this long, however many requests ask for it
log = logging.getLogger("tenantry.engine")

Blame = Callable[[str, FaultKind, str], None]
# An adapter, and the digests of those that are registered: the folder. Raises `AdapterError`, `FilesAway`.
FolderOf = Callable[[EngineAdapter, Collection[str]], Awaitable[Path]]


class AdapterLoader:
    """Adapters of one running engine. Changes of its set are made one at a time."""

    def __init__(
        self,
        engine: LoraEngine,
        *,
        slots: int,
        places: int,
        numbers: Iterator[int],
        blame: Blame,
        metrics: AdapterMetrics,
        folder_of: FolderOf,
    ) -> None:
        """`numbers` gives vLLM's `lora_int_id`: unique for as long as this process lives."""
        self.engine = engine
        self.dirty = asyncio.Event()  # the worker's adapters may have changed since the last query
        self.idle: Callable[[str], None] = lambda _: None  # called with an adapter whose last request ended
        self.load_s: dict[str, float] = {}  # of the last load of each adapter, from disk
        self._slots = Slots(slots)
        self._places = places
        self._numbers = numbers
        self._blame = blame
        self._metrics = metrics
        self._folder_of = folder_of
        self._digests: dict[str, str] = {}  # of those in `_requests`
        self._requests: dict[str, Any] = {}  # vLLM's LoRARequest of each adapter it has, or had and may again
        self._host: OrderedDict[str, None] = OrderedDict()  # in host memory, least recently used first
        self._incoming = 0  # being read now: 0 or 1
        self._in_slots: tuple[str, ...] = ()  # by the worker's last answer
        self._pinned: set[str] = set()
        self._users: Counter[str] = Counter()  # requests, including those that wait for load or slot
        self._changing = asyncio.Lock()
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._failures: dict[str, tuple[float, AdapterError]] = {}
        self._warmed_s: dict[str, float] = {}

    # -- residents ----------------------------------------------------------------------------------------

    @property
    def known(self) -> set[str]:
        """Adapters that the engine has, or had until they were evicted."""
        return set(self._requests)

    @property
    def host(self) -> tuple[str, ...]:
        """In host memory, those in slots included; least recently used first."""
        return tuple(self._host)

    @property
    def in_slots(self) -> tuple[str, ...]:
        """In a slot at the worker's last answer, and not removed since."""
        return tuple(name for name in self._in_slots if name in self._host)

    @property
    def pinned(self) -> tuple[str, ...]:
        """Hold a slot for good."""
        return tuple(sorted(self._pinned))

    @property
    def has_free_place(self) -> bool:
        """Whether another adapter can be loaded without an eviction; a running load counts."""
        return len(self._host) + self._incoming < self._places

    def is_used(self, name: str) -> bool:
        """Whether any request of the adapter runs or waits."""
        return self._users[name] > 0

    # -- requests ------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lease(self, adapter: EngineAdapter) -> AsyncIterator[Any]:
        """Load the adapter and keep its slot inside the block; yields vLLM's LoRARequest.

        Raises `AdapterError` if it cannot be loaded, `FilesAway` if that is not its fault, and `EngineDied`
        if the engine dies meanwhile.
        """
        name = adapter.id
        self._users[name] += 1
        try:
            if name not in self._host:
                self._refuse_broken(name)
                await self._once(self._warm, adapter)  # before a slot is taken: this may be slow
            await self._slots.acquire(name)
            try:
                await self._ensure(adapter)
                self._mark_used(name)
                yield self._requests[name]
            finally:
                self._slots.release(name)
        finally:
            self._mark_used(name)
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]
                self.idle(name)

    async def _ensure(self, adapter: EngineAdapter) -> None:
        if adapter.id in self._host:
            self._host.move_to_end(adapter.id)
        else:
            self._refuse_broken(adapter.id)
            await self._once(self._load, adapter)

    def _mark_used(self, name: str) -> None:
        """Query the worker again, unless its last answer already shows this."""
        newest = next(reversed(self._host), None)
        if newest != name or name not in self._in_slots:
            self.dirty.set()

    async def preload(self, adapter: EngineAdapter) -> None:
        """Load without a request, unless host memory is full. Raises `AdapterError`, `EngineDied`."""
        if adapter.id not in self._host and self.has_free_place:
            await self._once(self._warm, adapter)
            await self._once(self._fill, adapter)

    # -- loading -------------------------------------------------------------------------------------------

    async def _once(self, work: Callable[[EngineAdapter], Awaitable[None]], adapter: EngineAdapter) -> None:
        """Do it once for all concurrent callers; a caller that leaves does not stop it for the others."""
        key = (work.__name__, adapter.id)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(work(adapter))
            task.add_done_callback(lambda done: self._done(key, done))
        await asyncio.shield(task)

    def _done(self, key: tuple[str, str], task: asyncio.Future[None]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # every caller may have left: nothing else reads it

    def _refuse_broken(self, name: str) -> None:
        failed_s, error = self._failures.get(name, (0.0, None))
        if error is not None and time.monotonic() - failed_s < RETRY_AFTER_S:
            raise error

    def _note_failure(self, name: str, error: AdapterError) -> None:
        self._failures[name] = (time.monotonic(), error)
        self._metrics.failed()
        self._blame(name, FaultKind.LOAD, str(error))
        log.error("adapter not loaded: %s", error)

    async def _warm(self, adapter: EngineAdapter) -> None:
        started_s = time.monotonic()
        try:
            await asyncio.to_thread(files.warm, adapter.id, await self._find(adapter))
        except AdapterError as error:
            self._note_failure(adapter.id, error)
            raise
        self._warmed_s[adapter.id] = time.monotonic() - started_s

    async def _load(self, adapter: EngineAdapter) -> None:
        """Load for a request; holds a slot itself, since the request may leave meanwhile."""
        await self._slots.acquire(adapter.id)
        try:
            await self._load_now(adapter)
        finally:
            self._slots.release(adapter.id)

    async def _fill(self, adapter: EngineAdapter) -> None:
        """Load into a free place, if there still is one."""
        await self._load_now(adapter, may_evict=False)

    async def _load_now(self, adapter: EngineAdapter, *, may_evict: bool = True) -> None:
        """Load one adapter; vLLM decodes between two calls, so several in a row delay no request for long."""
        async with self._changing:
            if adapter.id in self._host or not (may_evict or self.has_free_place):
                return
            self._incoming = 1
            try:
                folder = await self._find(adapter)
                request = self._request(adapter, folder)
                await asyncio.to_thread(files.check_files, adapter.id, folder)
                await self._make_place()
                await self._read(request)
            except AdapterError as error:
                self._note_failure(adapter.id, error)
                raise
            finally:
                self._incoming = 0
            self._requests[adapter.id] = request
            self._digests[adapter.id] = adapter.digest
            self._host[adapter.id] = None
            self._failures.pop(adapter.id, None)
            self.dirty.set()

    async def _find(self, adapter: EngineAdapter) -> Path:
        """Return the folder of its files, on this machine. Raises `AdapterError`, `FilesAway`."""
        return await self._folder_of(adapter, set(self._digests.values()))

    def _request(self, adapter: EngineAdapter, folder: Path) -> Any:
        known = self._requests.get(adapter.id)
        if known is not None and known.lora_path == str(folder):
            return known
        return self.engine.new_request(adapter.id, next(self._numbers), str(folder))

    async def _read(self, request: Any) -> None:
        self.engine.check_alive()  # an earlier death is not this adapter's fault
        name, started_s = request.lora_name, time.monotonic()
        try:
            await self.engine.load(request)
        except EngineDied:
            self._blame(name, FaultKind.CRASH, f"{ENGINE_DIED} loaded this adapter")
            raise
        seconds = time.monotonic() - started_s + self._warmed_s.pop(name, 0.0)
        self.load_s[name] = seconds
        self._metrics.loaded("disk", seconds)
        log.info("adapter %s loaded in %.3f s", name, seconds)

    async def _make_place(self) -> None:
        """Evict the least recently used adapter that runs no request, preferably one without waiting ones.

        One exists: every load holds a slot or has seen a free place, and places are at least as many.
        """
        if len(self._host) < self._places:
            return
        idle = [name for name in self._host if name not in self._slots]
        if not idle:
            raise AdapterError("every adapter in host memory is in use; raise max_cpu_loras")
        evicted = next((name for name in idle if not self.is_used(name)), idle[0])
        del self._host[evicted]  # from now on a request for it waits until it is loaded again
        await self.engine.free(self._requests[evicted])
        self._metrics.evicted("host")

    # -- removal and pins ----------------------------------------------------------------------------------

    async def remove(self, name: str) -> None:
        """Remove an adapter, unless it is used or pinned again. Raises `EngineDied`."""
        async with self._changing:
            if self.is_used(name) or name in self._pinned or name not in self._requests:
                return
            request = self._requests.pop(name)
            self._digests.pop(name, None)
            self._host.pop(name, None)
            self._failures.pop(name, None)
            self.load_s.pop(name, None)
            await self.engine.unload(request)
            self.dirty.set()
            log.info("adapter %s removed", name)

    async def pin(self, adapter: EngineAdapter) -> bool:
        """Load it and give it a slot for good; False if none is free now. Raises `AdapterError`."""
        if not self._slots.try_acquire(adapter.id):
            return False
        try:
            await self._ensure(adapter)
            async with self._changing:
                await self.engine.pin(self._requests[adapter.id])
        except BaseException:
            self._slots.release(adapter.id)
            raise
        self._pinned.add(adapter.id)
        await self.refresh()
        return True

    async def unpin(self, name: str) -> None:
        """Make the adapter evictable again. Raises `EngineDied`."""
        async with self._changing:
            await self.engine.unpin(self._requests[name])
        self._pinned.remove(name)
        self._slots.release(name)
        await self.refresh()

    # -- the worker's word ---------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Query the worker's adapters and adopt the answer. Raises `EngineDied`."""
        async with self._changing:
            truth = await self.engine.truth()
            names = {request.lora_int_id: name for name, request in self._requests.items()}
            self._host = OrderedDict.fromkeys(names[n] for n in truth.host if n in names)
            self._in_slots = tuple(names[n] for n in truth.slots if n in names)
        for seconds in truth.activation_s:
            self._metrics.loaded("host", seconds)
        self._metrics.evicted("slot", truth.slot_evictions)
        self._metrics.residents(slots=len(self._in_slots), host=len(self._host), pinned=len(truth.pinned))
