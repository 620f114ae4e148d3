"""How good would this engine be for this request? Each scorer gives 0..1, 1 is best. Pure."""

from __future__ import annotations

from collections.abc import Callable

from routing.scheduling.affinity import SCORES, affinity
from routing.scheduling.state import Engine
from routing.scheduling.view import View, home_key, weight
from routing.types import Request

Scorer = Callable[[Engine, Request, View], float]


def adapter_affinity(engine: Engine, request: Request, view: View) -> float:
    """Prefer where the adapter runs, then where it was last seen, then its homes."""
    return SCORES[affinity(engine, request, view)]


def least_loaded(engine: Engine, request: Request, view: View) -> float:
    """Prefer the engine with the most room."""
    return max(0.0, 1.0 - engine.load)


def rendezvous(engine: Engine, request: Request, view: View) -> float:
    """Prefer the engine that comes first in the adapter's own order."""
    return weight(home_key(request), engine.name)
