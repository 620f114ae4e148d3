"""What the gateway knows of one replica: what it has given it, and therefore which slots are leased.

Exact, because every request to the replica goes through this gateway. Pure state: no I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from adapters.health import EngineHealth, EngineState
from routing.scheduling.health import Health
from routing.scheduling.limit import ConcurrencyLimit
from routing.scheduling.occupancy import ShareClock
from routing.scheduling.shares import Shares
from routing.types import Fleet, Request

SPARE_LOAD = 0.1  # a step with a tenth of the engine's sequences takes little longer than an empty one
KV_FULL = 0.9  # of the KV cache; beyond it vLLM begins to preempt, and a preempted request starts anew


@dataclass(slots=True)
class Lease:
    """The right of an adapter to hold a slot while it has sequences in flight."""

    tenant: str  # who was granted it; others may share it
    since_s: float
    sequences: int = 0
    clock: ShareClock = field(default_factory=ShareClock)  # of the slot


@dataclass(frozen=True, slots=True)
class SlotClearing:
    """A slot is promised to `waiting`; `victim` leaves it for that and gets no new request here meanwhile."""

    waiting: str
    tenant: str  # whose request it is promised to
    victim: str | None  # None: the slot is free already


@dataclass(slots=True)
class ReplicaState:
    """One replica as the scheduler sees it."""

    name: str
    pool: str
    base_model: str
    slots: int  # vLLM --max-loras; 0: serves no adapter
    max_sequences: int  # vLLM --max-num-seqs
    max_resident: int = 0  # vLLM --max-cpu-loras
    ready: bool = False
    engine: EngineHealth | None = None  # its own word, by the last probe; None: it gave no answer
    draining: bool = False  # an operator wants it empty: no new work, leases run out
    kv_tokens: int = 0  # what its KV cache holds; 0: it has not said
    max_model_len: int = 0  # tokens of prompt and completion together; 0: it has not said
    chars_per_token: int = 0  # of the longest in its vocabulary; 0: it has not said
    limit: ConcurrencyLimit | None = None  # K_R; None: as many as the engine runs at once
    incarnation: str = ""  # which start of its engine is meant by what is known; empty: it has not said
    trusted: bool = True  # False while its circuit breaker holds requests back
    share: float = 1.0  # part of its limit that it may use now: less while it is fresh, or slow
    sequences: int = 0  # in flight, all models
    tokens: int = 0  # in flight: prompts, and completions as they are expected
    adapters: frozenset[str] = frozenset()  # ids the engine has confirmed that it may serve
    pinned: frozenset[str] = frozenset()  # ids that hold a slot whether they run or not
    leases: dict[str, Lease] = field(default_factory=dict)  # by adapter id
    resident: OrderedDict[str, None] = field(default_factory=OrderedDict)  # shadow LRU, newest last
    clearing: SlotClearing | None = None
    shares: Shares | None = None  # of its group, which keeps them
    clock: ShareClock = field(default_factory=ShareClock)  # of the engine
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(self.name)

    @property
    def failed(self) -> bool:
        """Whether its engine does not start, by its own word."""
        return self.engine is not None and self.engine.state is EngineState.FAILED

    @property
    def reason(self) -> str:
        """Return why it is not ready, in its engine's words; for operators."""
        return self.engine.reason if self.engine is not None and not self.ready else ""

    @property
    def free_slots(self) -> int:
        """Slots that no adapter holds, neither in flight nor pinned."""
        return self.slots - (len(self.held) if self.pinned else len(self.leases))

    @property
    def promised(self) -> str | None:
        """Return the adapter that the next free slot is for, if it is for one.

        Where adapters of a tenant that floods take turns, that is the victim's slot, not one that comes free
        before it.
        """
        clearing = self.clearing
        if clearing is None:
            return None
        lease = self.leases.get(clearing.victim or "")
        takes_turns = lease is not None and lease.tenant == clearing.tenant
        if takes_turns and self.shares is not None and self.shares.keeps_slot_from(clearing.tenant):
            return None
        return clearing.waiting

    @property
    def accepts(self) -> bool:
        """Whether it may be given work at all."""
        return self.ready and not self.draining

    @property
    def capacity(self) -> int:
        """Sequences it may have in flight now; at least one."""
        limit = self.max_sequences if self.limit is None else self.limit.sequences
        return int(limit * self.share) or 1

    @property
    def load(self) -> float:
        """Sequences in flight as a fraction of what it may have."""
        return self.sequences / self.capacity

    @property
    def held(self) -> Collection[str]:
        """Adapters that hold a slot."""
        return self.leases.keys() | self.pinned if self.pinned else self.leases.keys()

    def holds(self, adapter: str) -> bool:
        """Whether an adapter has a slot here, so that it needs no other."""
        return adapter in self.leases or adapter in self.pinned

    def has_room(self, request: Request) -> bool:
        """Whether so much more would run at once; what is wider than the engine runs alone."""
        if self.sequences == 0:
            return True
        if self.sequences + request.sequences > self.capacity:
            return False
        return self.kv_tokens == 0 or self.tokens + request.prompt_tokens <= KV_FULL * self.kv_tokens

    def acquire(self, request: Request, tokens: int, now_s: float) -> bool:
        """Put a request in flight. Returns whether its adapter takes a lease with it."""
        self.clock.read(self.sequences, now_s)
        self.sequences += request.sequences
        self.tokens += tokens
        adapter = request.target.adapter_id
        if adapter is None:
            return False
        lease = self.leases.get(adapter)
        new = lease is None
        if lease is None:
            lease = self.leases[adapter] = Lease(request.target.tenant, now_s)
        lease.clock.read(lease.sequences, now_s)
        lease.sequences += request.sequences
        self.resident[adapter] = None
        self.resident.move_to_end(adapter)
        if self.clearing is not None and self.clearing.waiting == adapter:
            self.clearing = None
        return new

    def forget_oldest(self) -> None:
        """Drop from the shadow LRU what has no place in memory any more."""
        places = max(self.max_resident, self.slots)
        while len(self.resident) > places:
            self.resident.popitem(last=False)

    def release(self, request: Request, tokens: int, now_s: float) -> bool:
        """Take a request out of flight. Returns whether its adapter gives its lease back with it."""
        self.clock.read(self.sequences, now_s)
        self.sequences -= request.sequences
        self.tokens -= tokens
        adapter = request.target.adapter_id
        if adapter is None:
            return False
        lease = self.leases[adapter]
        lease.clock.read(lease.sequences, now_s)
        lease.sequences -= request.sequences
        if lease.sequences:
            return False
        del self.leases[adapter]
        return True

    def take_residency(self, adapters: Iterable[str], pinned: Iterable[str], host: Iterable[str]) -> None:
        """Take over what the engine says: it may serve these, pins these, holds these (oldest first)."""
        self.adapters = frozenset(adapters)
        self.pinned = frozenset(pinned)
        self.resident = OrderedDict.fromkeys((*host, *self.leases))

    def forget_residency(self) -> None:
        """Drop what a restarted engine no longer holds. Leases stay: their requests still settle."""
        self.resident.clear()
        self.adapters = self.pinned = frozenset()
        self.clearing = None


def replica_states(fleet: Fleet) -> list[ReplicaState]:
    """One state for each replica the fleet declares."""
    states = []
    for pool in fleet.pools.values():
        for name, base_model in pool.replica_models:
            model = fleet.base_models[base_model]
            limit = None
            if pool.slo.itl_s is not None:
                limit = ConcurrencyLimit(pool.slo.itl_s, least=model.max_loras, most=model.max_num_seqs)
            state = ReplicaState(
                name=name,
                pool=pool.name,
                base_model=base_model,
                slots=model.max_loras,
                max_sequences=model.max_num_seqs,
                max_resident=model.max_cpu_loras,
                limit=limit,
            )
            states.append(state)
    return states
