"""How good would this engine be for this request? Each scorer gives 0..1, 1 is best. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from routing.scheduling.state import SPARE_LOAD, Engine
from routing.types import Request

HOMES = 2  # engines an adapter prefers while it is resident nowhere; one that is busy has a stand-in
HOT_LOAD = (
    0.5  # from here on an adapter's engine is worth a second slot elsewhere, if another is much emptier
)


@dataclass(frozen=True, slots=True)
class View:
    """What a scorer may know of the request and of the other engines of the group."""

    homes: frozenset[str]  # of the request, among those that take work
    bound: float  # load up to which a preference counts


Scorer = Callable[[Engine, Request, View], float]


class Place(StrEnum):
    """What an adapter has on an engine; the score of each is in `PLACE_SCORES`."""

    RUNNING = "running"  # it holds a slot here, and the engine is not hot
    RESIDENT = "resident"  # in memory here when it was last seen
    HOME = "home"  # one of its homes by rendezvous hashing
    ELSEWHERE = "elsewhere"  # nothing speaks for this engine but its load


PLACE_SCORES = {Place.RUNNING: 1.0, Place.RESIDENT: 0.5, Place.HOME: 0.25, Place.ELSEWHERE: 0.0}


def place(engine: Engine, request: Request, view: View) -> Place:
    """Say what speaks for an engine. Base models run anywhere, so their tenant's prefixes decide the home."""
    adapter, load, bound = request.target.adapter_id, engine.load, view.bound
    if adapter is not None and load <= max(HOT_LOAD, bound) and engine.holds(adapter):
        return Place.RUNNING
    if load > bound:
        return Place.ELSEWHERE
    if adapter is not None and adapter in engine.resident:
        return Place.RESIDENT
    return Place.HOME if engine.name in view.homes else Place.ELSEWHERE


def here(engine: Engine, request: Request) -> Place:
    """Say what an adapter has on the one engine that has come free."""
    adapter = request.target.adapter_id
    if adapter is not None and engine.holds(adapter):
        return Place.RUNNING
    return Place.RESIDENT if adapter in engine.resident else Place.ELSEWHERE


def adapter_affinity(engine: Engine, request: Request, view: View) -> float:
    """Prefer where the adapter runs, then where it was last seen, then its homes."""
    return PLACE_SCORES[place(engine, request, view)]


def least_loaded(engine: Engine, request: Request, view: View) -> float:
    """Prefer the engine with the most room."""
    return max(0.0, 1.0 - engine.load)


def rendezvous(engine: Engine, request: Request, view: View) -> float:
    """Give every adapter its own stable order of engines (highest random weight, Thaler 1996)."""
    return _weight(_key(request), engine.name)


@lru_cache(maxsize=2**16)
def homes(key: str, names: tuple[str, ...]) -> frozenset[str]:
    """Give every key its own engines: the first ones in its order."""
    return frozenset(sorted(names, key=lambda name: _weight(key, name), reverse=True)[:HOMES])


@lru_cache(maxsize=2**16)
def _weight(key: str, name: str) -> float:
    return int.from_bytes(hashlib.blake2b(f"{key}|{name}".encode(), digest_size=4).digest()) / 2**32


def _key(request: Request) -> str:
    return request.target.adapter_id or request.target.tenant


def view_of(engines: Iterable[Engine], request: Request, slack: float) -> View:
    """Look at the engines of one group that take work, for a request.

    A preference counts up to `slack` above their mean load (consistent hashing with bounded loads, Mirrokni
    2018). An engine with load to spare is never too busy: a second copy of an adapter would cost a slot.
    """
    names, sequences, room = [], 0, 0
    for engine in engines:
        if engine.accepts:
            names.append(engine.name)
            sequences += engine.sequences
            room += engine.capacity
    mean_load = sequences / room if room else 0.0
    return View(homes(_key(request), tuple(names)), max(SPARE_LOAD, (1.0 + slack) * mean_load))
