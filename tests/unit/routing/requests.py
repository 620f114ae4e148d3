"""Requests and replicas for tests of policies."""

from __future__ import annotations

from routing.scheduling.floods.detection import Floods
from routing.scheduling.state import Engine, Replica
from routing.scheduling.view import View, home_key
from routing.types import Request, Target


def target(tenant: str = "a", model: str = "support", *, base: bool = False, pool: str = "shared") -> Target:
    """A target of `small_fleet`."""
    adapter = None if base else f"{tenant}-{model}"
    return Target(tenant, model, adapter, "base", pool, None if base else 1, adapter and adapter_id(adapter))


def adapter_id(adapter: str) -> str:
    """What engines call the first version of an adapter of `small_fleet`."""
    return f"{adapter}@1"


ADAPTER_IDS = frozenset(map(adapter_id, ("a-support", "a-sales", "b-support", "c-support")))


def request(  # noqa: PLR0913 - a field each
    tenant: str = "a",
    model: str = "support",
    *,
    base: bool = False,
    pool: str = "shared",
    sequences: int = 1,
    arrived_s: float = 0.0,
    failed_on: frozenset[str] = frozenset(),
    user: str = "",
) -> Request:
    """A request of `small_fleet`."""
    name = f"{tenant}-{model}-{arrived_s}"
    meant = target(tenant, model, base=base, pool=pool)
    return Request(name, meant, sequences, 10, arrived_s, failed_on, user=user)


def engine(name: str = "shared-0", *, slots: int = 2, max_sequences: int = 8, ready: bool = True) -> Engine:
    """The engine of a replica of `small_fleet`."""
    return Replica(
        name,
        "shared",
        Engine(name, "base", slots, max_sequences, max_resident=4, ready=ready, adapters=ADAPTER_IDS),
    ).engine


def view_of(*engines: Engine, floods: Floods | None = None, asked: Request | None = None) -> View:
    """What policies know of a group of these engines; without `floods` no tenant floods."""
    return View(engines, floods or Floods({}, {}), home_key(asked) if asked else "")


def run_on(one: Engine, asked: Request, *, times: int = 1) -> None:
    """Put a request in flight on an engine, so many times over."""
    for _ in range(times):
        one.acquire(asked, asked.prompt_tokens, asked.arrived_s)
        one.forget_oldest()


def end_on(one: Engine, asked: Request) -> None:
    """Take it out of flight again."""
    one.release(asked, asked.prompt_tokens, asked.arrived_s)
