"""What does the gateway know of one replica and its engine? What it was given, and which slots are leased.

Exact, because every request to the engine goes through this gateway. Pure state: no I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from engines.health import EngineHealth, EngineState
from engines.settings import digest_of
from fleet.types import BaseModel, Fleet, Pool, Slo
from routing.scheduling.health.health import Health
from routing.scheduling.health.limit import ConcurrencyLimit
from routing.scheduling.occupancy import ShareClock
from routing.types import Request

SPARE_LOAD = 0.1  # a step with a tenth of the engine's sequences takes little longer than an empty one


@dataclass(slots=True)
class Lease:
    """The right of an adapter to a slot while it has sequences in flight."""

    tenant: str  # whose request took it; requests of others may run in it too
    since_s: float
    sequences: int = 0
    clock: ShareClock = field(default_factory=ShareClock)  # of the slot
    spare: int = 0  # of the sequences, those of batches
    taken_to_spare: bool = False  # by a line of a batch, so that it counts for no tenant

    @property
    def is_spare(self) -> bool:
        """Whether only lines of batches run in it."""
        return self.spare == self.sequences


@dataclass(frozen=True, slots=True)
class SlotDrain:
    """A slot is promised to `adapter`. `evicted` loses it: until it is empty it gets no new request here."""

    adapter: str
    tenant: str  # of the request for which it drains
    evicted: str | None  # None: the slot is free already


@dataclass(frozen=True, slots=True)
class RunningSettings:
    """Of the settings with which an engine runs, those that bound what it may be given."""

    digest: str  # of all of them
    slots: int
    max_sequences: int
    max_resident: int


@dataclass(slots=True, eq=False)
class Replica:
    """A place where an engine of one base model runs: at a host, a process on devices of its own."""

    name: str
    pool: str
    engine: Engine
    draining: bool = False  # an operator wants it empty: no new work, leases run out
    restarting: bool = False  # its engine is about to restart: it is not ready, what it runs ends first
    returns: bool = False  # from then on until it is ready again: requests for it come, and wait
    left: bool = False  # it takes part no more; another one may have its name
    host: str = ""  # whose address it has, with a replica of each base model; its own name: it is alone there
    asleep: bool = False  # at a shared host: its model's turn is not now, so that it takes nothing new
    awake_since_s: float = 0.0  # when its turn began last; monotonic
    barred: bool = False  # asleep, and it cannot come: it has failed too often
    orders: int = 0  # that its engine come or go; what was heard before the last one counts for nothing

    def __post_init__(self) -> None:
        self.engine.replica = self
        self.host = self.host or self.name
        self.asleep = self.asleep or self.shares_host

    @property
    def shares_host(self) -> bool:
        """Whether other base models have replicas at its host, so that it is on disk until it is woken."""
        return self.host != self.name

    def engine_for(self, base_model: str) -> Engine | None:
        """Return the engine that serves a base model here, if one does."""
        return self.engine if self.engine.base_model == base_model else None

    @property
    def is_on_disk(self) -> bool:
        """Whether its engine said that it waits for its turn, by the last probe."""
        told = self.engine.told
        return self.shares_host and told is not None and told.state is EngineState.STOPPED

    @property
    def ready(self) -> bool:
        """Whether its engine is."""
        return self.engine.ready


@dataclass(slots=True, eq=False)
class Engine:
    """One engine as the scheduler sees it. It goes by the name of the replica in which it runs."""

    name: str
    base_model: str
    slots: int  # vLLM --max-loras of what runs; 0: serves no adapter
    max_sequences: int  # vLLM --max-num-seqs
    max_resident: int = 0  # vLLM --max-cpu-loras
    declared: BaseModel | None = None  # as the fleet has it now; None: not known
    settings: str = ""  # digest of those with which it runs; empty: it has not said
    ready: bool = False
    told: EngineHealth | None = None  # what it said of itself when it was probed last; None: no answer
    kv_tokens: int = 0  # what its KV cache holds; 0: it has not said
    max_model_len: int = 0  # tokens of prompt and completion together; 0: it has not said
    chars_per_token: int = 0  # of the longest in its vocabulary; 0: it has not said
    limit: ConcurrencyLimit | None = None  # K_R; None: as many as it runs at once
    incarnation: str = ""  # the start of it to which all this applies; empty: it has not said
    wanted: bool = (
        True  # False where its pool needs no replica of so high a number now: it goes before others
    )
    trusted: bool = True  # False while its circuit breaker holds requests back
    ramp: float = 1.0  # part of its limit that it may use now: less while it is fresh, or slow
    sequences: int = 0  # in flight, all models
    spare: int = 0  # of the sequences, those of batches
    tokens: int = 0  # in flight: prompts, and completions as they are expected
    adapters: frozenset[str] = frozenset()  # ids that it has confirmed that it may serve
    pinned: frozenset[str] = frozenset()  # ids that hold a slot whether they run or not
    leases: dict[str, Lease] = field(default_factory=dict)  # by adapter id
    resident: OrderedDict[str, None] = field(default_factory=OrderedDict)  # shadow LRU, newest last
    slot_drain: SlotDrain | None = None  # one at a time
    clock: ShareClock = field(default_factory=ShareClock)
    health: Health = field(init=False)
    replica: Replica = field(init=False, repr=False)  # where it runs; a replica sets it

    def __post_init__(self) -> None:
        self.health = Health(self.name)

    @property
    def failed(self) -> bool:
        """Whether it says that it does not start."""
        return self.told is not None and self.told.state is EngineState.FAILED

    @property
    def is_away(self) -> bool:
        """Whether it is not there, and need not be."""
        return not self.wanted and self.told is None

    @property
    def is_between_turns(self) -> bool:
        """Whether it is not ready because its host runs others instead, or brings it; it has not failed."""
        told = self.told
        return (
            self.replica.shares_host
            and not self.ready
            and told is not None
            and told.state not in (EngineState.FAILED, EngineState.SILENT)
        )

    @property
    def reason(self) -> str:
        """Return why it is not ready, in its own words; for operators."""
        if self.replica.restarting and self.sequences:
            return "it is to restart, and what it runs ends first"
        return self.told.reason if self.told is not None and not self.ready else ""

    @property
    def is_outdated(self) -> bool:
        """Whether it runs with other settings than its base model has in the fleet now."""
        return bool(self.settings) and self.declared is not None and self.settings != digest_of(self.declared)

    @property
    def free_slots(self) -> int:
        """Slots that no adapter holds, neither in flight nor pinned."""
        return self.slots - (len(self.in_slots) if self.pinned else len(self.leases))

    @property
    def accepts(self) -> bool:
        """Whether it may be given work at all."""
        return self.ready and not self.replica.draining and not self.replica.asleep

    @property
    def may_wake(self) -> bool:
        """Whether it takes nothing only because its model's turn is not now."""
        replica = self.replica
        return replica.asleep and not (replica.draining or replica.barred or self.failed)

    @property
    def capacity(self) -> int:
        """Sequences it may have in flight now; at least one."""
        limit = self.max_sequences if self.limit is None else self.limit.sequences
        return int(limit * self.ramp) or 1

    @property
    def load(self) -> float:
        """Sequences in flight as a fraction of what it may have."""
        return self.sequences / self.capacity

    @property
    def in_slots(self) -> Collection[str]:
        """Adapters that hold a slot: leased or pinned."""
        return self.leases.keys() | self.pinned if self.pinned else self.leases.keys()

    def holds(self, adapter: str) -> bool:
        """Whether an adapter has a slot here, so that it needs no other."""
        return adapter in self.leases or adapter in self.pinned

    def acquire(self, request: Request, tokens: int, now_s: float) -> bool:
        """Put a request in flight. Returns whether its adapter takes a lease with it."""
        self.clock.read(self.sequences, now_s)
        spare = request.sequences if request.spare else 0
        self.sequences += request.sequences
        self.spare += spare
        self.tokens += tokens
        adapter = request.target.adapter_id
        if adapter is None:
            return False
        lease = self.leases.get(adapter)
        new = lease is None
        if lease is None:
            lease = self.leases[adapter] = Lease(request.target.tenant, now_s)
            lease.taken_to_spare = request.spare
        lease.clock.read(lease.sequences, now_s)
        lease.sequences += request.sequences
        lease.spare += spare
        self.resident[adapter] = None
        self.resident.move_to_end(adapter)
        if self.slot_drain is not None and self.slot_drain.adapter == adapter:
            self.slot_drain = None
        return new

    def forget_oldest(self) -> None:
        """Drop from the shadow LRU what the engine's memory no longer holds."""
        most = max(self.max_resident, self.slots)
        while len(self.resident) > most:
            self.resident.popitem(last=False)

    def release(self, request: Request, tokens: int, now_s: float) -> bool:
        """Take a request out of flight. Returns whether its adapter gives its lease back with it."""
        self.clock.read(self.sequences, now_s)
        spare = request.sequences if request.spare else 0
        self.sequences -= request.sequences
        self.spare -= spare
        self.tokens -= tokens
        adapter = request.target.adapter_id
        if adapter is None:
            return False
        lease = self.leases[adapter]
        lease.clock.read(lease.sequences, now_s)
        lease.sequences -= request.sequences
        lease.spare -= spare
        if lease.sequences:
            return False
        del self.leases[adapter]
        return True

    def take_settings(self, running: RunningSettings) -> None:
        """Take over with which settings it runs; its limit is sought anew where they differ in that."""
        before = self.slots, self.max_sequences
        self.settings, self.max_resident = running.digest, running.max_resident
        self.slots, self.max_sequences = running.slots, running.max_sequences
        if self.limit is not None and before != (self.slots, self.max_sequences):
            self.limit = ConcurrencyLimit(self.limit.slo_s, least=self.slots, most=self.max_sequences)

    def take_residency(self, adapters: Iterable[str], pinned: Iterable[str], host: Iterable[str]) -> None:
        """Take over what the engine says it may serve, pins, and has in memory (oldest first)."""
        self.adapters = frozenset(adapters)
        self.pinned = frozenset(pinned)
        self.resident = OrderedDict.fromkeys((*host, *self.leases))

    def forget_residency(self) -> None:
        """Drop what may not hold after a restart. Leases stay: their requests still settle."""
        self.settings = ""
        self.resident.clear()
        self.adapters = self.pinned = frozenset()
        self.slot_drain = None


def longest_prompt(engines: Iterable[Engine]) -> tuple[int, int]:
    """Return most tokens of a prompt, and most characters of a token, as some engines say; or 0."""
    told = ((engine.max_model_len, engine.chars_per_token) for engine in engines if engine.max_model_len)
    return next(told, (0, 0))


def limit_for(slo: Slo, slots: int, max_sequences: int) -> ConcurrencyLimit | None:
    """Make the limit of an engine whose pool has an objective for the time between tokens."""
    if slo.itl_s is None:
        return None
    return ConcurrencyLimit(slo.itl_s, least=slots, most=max_sequences)


def declared_replicas(fleet: Fleet) -> list[Replica]:
    """Make the replicas that the fleet declares, each with its engine."""
    return [
        Replica(name, pool.name, _engine(name, pool, fleet.base_models[base_model]), host=host.name)
        for pool in fleet.pools.values()
        for host in pool.hosts
        for name, base_model in host.replicas
    ]


def _engine(name: str, pool: Pool, model: BaseModel) -> Engine:
    return Engine(
        name=name,
        base_model=model.name,
        slots=model.max_loras,
        max_sequences=model.max_num_seqs,
        max_resident=model.max_cpu_loras,
        declared=model,
        limit=limit_for(pool.slo, model.max_loras, model.max_num_seqs),
    )
