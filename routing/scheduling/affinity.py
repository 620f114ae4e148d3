"""How near is an adapter to running on an engine, and what is that worth? Pure.

One ladder, `Affinity`, is read in two ways, which differ on purpose:

- An *arrival* chooses among engines (`affinity`). There a rung counts only while the engine is not much
  busier than the others, hashing gives new adapters a home, and the worth is a score of 0..1 (`SCORES`).
- An *engine that has come free* chooses among requests (`affinity_here`). Its load says nothing there, since
  all candidates would run on it. What is in memory leads other tenants by `locality_bonus_tokens` of service:
  it costs little, and a read from disk stalls all that the engine runs.
"""

from __future__ import annotations

from enum import StrEnum

from routing.scheduling.state import Engine
from routing.scheduling.view import View
from routing.types import Request

# From here on an adapter's engine is worth a second slot elsewhere, if another is much emptier.
HOT_LOAD = 0.5


class Affinity(StrEnum):
    """What an adapter has on an engine."""

    RUNNING = "running"  # it holds a slot here, and the engine is not hot
    RESIDENT = "resident"  # in memory here when it was last seen
    HOME = "home"  # one of its homes by rendezvous hashing
    ELSEWHERE = "elsewhere"  # nothing speaks for this engine but its load


# For arrivals: each rung is worth more than all of the load, see `profile.SLOT_LEASE`.
SCORES = {Affinity.RUNNING: 1.0, Affinity.RESIDENT: 0.5, Affinity.HOME: 0.25, Affinity.ELSEWHERE: 0.0}


def affinity(engine: Engine, request: Request, view: View) -> Affinity:
    """Say what speaks for an engine when a request comes."""
    adapter, load, bound = request.target.adapter_id, engine.load, view.load_bound
    if adapter is not None and load <= max(HOT_LOAD, bound) and engine.holds(adapter):
        return Affinity.RUNNING
    if load > bound:
        return Affinity.ELSEWHERE
    if adapter is not None and adapter in engine.resident:
        return Affinity.RESIDENT
    return Affinity.HOME if engine.name in view.homes else Affinity.ELSEWHERE


def affinity_here(engine: Engine, request: Request) -> Affinity:
    """Say what an adapter has on the one engine that has come free."""
    adapter = request.target.adapter_id
    if adapter is not None and engine.holds(adapter):
        return Affinity.RUNNING
    return Affinity.RESIDENT if adapter in engine.resident else Affinity.ELSEWHERE
