"""What the gateway knows of one replica: what it has given it, and therefore which slots are leased.

Exact, because every request to the replica goes through this gateway. Pure state: no I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from routing.types import Fleet


@dataclass(frozen=True, slots=True)
class SlotClearing:
    """A slot is being cleared: `victim` gets no new request here, the slot it leaves goes to `waiting`."""

    waiting: str
    victim: str


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
    sequences: int = 0  # in flight, all models
    adapters: frozenset[str] = frozenset()  # ids the engine has confirmed that it may serve
    pinned: frozenset[str] = frozenset()  # ids that hold a slot whether they run or not
    leases: dict[str, int] = field(default_factory=dict)  # adapter id -> sequences in flight
    resident: OrderedDict[str, None] = field(default_factory=OrderedDict)  # shadow LRU, newest last
    clearing: SlotClearing | None = None

    @property
    def free_slots(self) -> int:
        """Slots that no adapter holds, neither in flight nor pinned."""
        return self.slots - len(self.leases.keys() | self.pinned)

    @property
    def load(self) -> float:
        """Sequences in flight as a fraction of what the engine runs at once."""
        return self.sequences / self.max_sequences

    def acquire(self, adapter: str | None, sequences: int) -> None:
        """Put sequences in flight; the first one of an adapter takes a slot lease."""
        self.sequences += sequences
        if adapter is None:
            return
        self.leases[adapter] = self.leases.get(adapter, 0) + sequences
        self.resident[adapter] = None
        self.resident.move_to_end(adapter)
        while len(self.resident) > max(self.max_resident, self.slots):
            self.resident.popitem(last=False)
        if self.clearing is not None and self.clearing.waiting == adapter:
            self.clearing = None

    def release(self, adapter: str | None, sequences: int) -> None:
        """Take sequences out of flight; the last one of an adapter gives the slot lease back."""
        self.sequences -= sequences
        if adapter is None:
            return
        left = self.leases[adapter] - sequences
        if left:
            self.leases[adapter] = left
        else:
            del self.leases[adapter]

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
            state = ReplicaState(
                name=name,
                pool=pool.name,
                base_model=base_model,
                slots=model.max_loras,
                max_sequences=model.max_num_seqs,
                max_resident=model.max_cpu_loras,
            )
            states.append(state)
    return states
