"""How good would this replica be for this request? Each scorer gives 0..1, 1 is best. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from routing.scheduling.state import ReplicaState
from routing.types import Request

Scorer = Callable[[ReplicaState, Request], float]


def adapter_affinity(replica: ReplicaState, request: Request) -> float:
    """Prefer where the adapter runs, then where it was last seen, then where a slot is free."""
    adapter = request.target.adapter_id
    if adapter is None or adapter in replica.leases:
        return 1.0
    return 0.6 if adapter in replica.resident else 0.0


def least_loaded(replica: ReplicaState, request: Request) -> float:
    """Prefer the replica with the most room."""
    return max(0.0, 1.0 - replica.load)


def rendezvous(replica: ReplicaState, request: Request) -> float:
    """Give every adapter its own stable order of replicas (highest random weight, Thaler 1996)."""
    key = f"{request.target.engine_model}|{replica.name}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest()) / 2**32
