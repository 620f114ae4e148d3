"""How good would this replica be for this request? Each scorer gives 0..1, 1 is best. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from routing.scheduling.state import SPARE_LOAD, ReplicaState
from routing.types import Request

HOMES = 2  # replicas an adapter prefers while it is resident nowhere; one that is busy has a stand-in
HOT_LOAD = (
    0.5  # from here on an adapter's replica is worth a second slot elsewhere, if another is much emptier
)


@dataclass(frozen=True, slots=True)
class View:
    """What a scorer may know of the request and of the other replicas of the group."""

    homes: frozenset[str]  # of the request, among those that take work
    bound: float  # load up to which a preference counts


Scorer = Callable[[ReplicaState, Request, View], float]


class Place(StrEnum):
    """What an adapter has on a replica; the score of each is in `PLACE_SCORES`."""

    RUNNING = "running"  # it holds a slot here, and the replica is not hot
    RESIDENT = "resident"  # in memory here when it was last seen
    HOME = "home"  # one of its homes by rendezvous hashing
    ELSEWHERE = "elsewhere"  # nothing speaks for this replica but its load


PLACE_SCORES = {Place.RUNNING: 1.0, Place.RESIDENT: 0.5, Place.HOME: 0.25, Place.ELSEWHERE: 0.0}


def place(replica: ReplicaState, request: Request, view: View) -> Place:
    """Say what speaks for a replica. Base models run anywhere, so their tenant's prefixes decide the home."""
    adapter, load, bound = request.target.adapter_id, replica.load, view.bound
    if adapter is not None and load <= max(HOT_LOAD, bound) and replica.holds(adapter):
        return Place.RUNNING
    if load > bound:
        return Place.ELSEWHERE
    if adapter is not None and adapter in replica.resident:
        return Place.RESIDENT
    return Place.HOME if replica.name in view.homes else Place.ELSEWHERE


def here(replica: ReplicaState, request: Request) -> Place:
    """Say what an adapter has on the one replica that has come free."""
    adapter = request.target.adapter_id
    if adapter is not None and replica.holds(adapter):
        return Place.RUNNING
    return Place.RESIDENT if adapter in replica.resident else Place.ELSEWHERE


def adapter_affinity(replica: ReplicaState, request: Request, view: View) -> float:
    """Prefer where the adapter runs, then where it was last seen, then its homes."""
    return PLACE_SCORES[place(replica, request, view)]


def least_loaded(replica: ReplicaState, request: Request, view: View) -> float:
    """Prefer the replica with the most room."""
    return max(0.0, 1.0 - replica.load)


def rendezvous(replica: ReplicaState, request: Request, view: View) -> float:
    """Give every adapter its own stable order of replicas (highest random weight, Thaler 1996)."""
    return _weight(_key(request), replica.name)


@lru_cache(maxsize=2**16)
def homes(key: str, names: tuple[str, ...]) -> frozenset[str]:
    """Give every key its own replicas: the first ones in its order."""
    return frozenset(sorted(names, key=lambda name: _weight(key, name), reverse=True)[:HOMES])


@lru_cache(maxsize=2**16)
def _weight(key: str, name: str) -> float:
    return int.from_bytes(hashlib.blake2b(f"{key}|{name}".encode(), digest_size=4).digest()) / 2**32


def _key(request: Request) -> str:
    return request.target.adapter_id or request.target.tenant


def view_of(replicas: Iterable[ReplicaState], request: Request, slack: float) -> View:
    """Look at the replicas of one group that take work, for a request.

    A preference counts up to `slack` above their mean load (consistent hashing with bounded loads, Mirrokni
    2018). A replica with load to spare is never too busy: a second copy of an adapter would cost a slot.
    """
    names, sequences, room = [], 0, 0
    for replica in replicas:
        if replica.accepts:
            names.append(replica.name)
            sequences += replica.sequences
            room += replica.capacity
    mean_load = sequences / room if room else 0.0
    return View(homes(_key(request), tuple(names)), max(SPARE_LOAD, (1.0 + slack) * mean_load))
