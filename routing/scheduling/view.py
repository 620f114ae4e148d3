"""What may a policy know of the group for which it decides? Policies only read it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from routing.scheduling.floods.detection import Floods
from routing.scheduling.state import SPARE_LOAD, Engine
from routing.types import Request

LOAD_SLACK = 0.25  # how far above the mean load a preferred engine may be, as a part of the mean
HOMES = 2  # engines an adapter prefers while it is resident nowhere; one that is busy has a stand-in


@dataclass(eq=False)
class View:
    """The engines of a group and the tenants that flood it.

    What only scorers need is computed once, when they ask for it: they get a view for each arrival.
    """

    engines: Sequence[Engine]
    floods: Floods
    home_key: str = ""  # the adapter or tenant that the decision is for

    @cached_property
    def load_bound(self) -> float:
        """Load up to which a preference counts: `LOAD_SLACK` above the mean.

        Consistent hashing with bounded loads (Mirrokni 2018). An engine with load to spare is never too busy:
        a second copy of an adapter would cost a slot.
        """
        sequences = room = 0
        for engine in self.engines:
            if engine.accepts and engine.wanted:
                sequences += engine.sequences
                room += engine.capacity
        mean_load = sequences / room if room else 0.0
        return max(SPARE_LOAD, (1.0 + LOAD_SLACK) * mean_load)

    @cached_property
    def homes(self) -> frozenset[str]:
        """Names of the engines that are home to the adapter or tenant, of those that take work and stay."""
        staying = [engine.name for engine in self.engines if engine.accepts and engine.wanted]
        return homes(self.home_key, tuple(staying))


def home_key(request: Request) -> str:
    """Return what decides the homes of a request: its adapter, or for a base model its tenant's prefixes."""
    return request.target.adapter_id or request.target.tenant


@lru_cache(maxsize=2**16)
def homes(key: str, names: tuple[str, ...]) -> frozenset[str]:
    """Give every key its own engines: the first ones in its order."""
    return frozenset(sorted(names, key=lambda name: weight(key, name), reverse=True)[:HOMES])


@lru_cache(maxsize=2**16)
def weight(key: str, name: str) -> float:
    """Give every key its own stable order of engines (highest random weight, Thaler 1996)."""
    return int.from_bytes(hashlib.blake2b(f"{key}|{name}".encode(), digest_size=4).digest()) / 2**32
