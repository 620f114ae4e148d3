"""What would waking a model do now? The rule is asked as if that had been ordered; nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from routing.turns.pool import PoolTurns
from routing.turns.report import WakeForecast
from routing.turns.rule import Why, decide
from routing.turns.seats import Seat

HELD = {
    Why.SWITCHING: "every host that could take it is in mid-switch",
    Why.YOUNG: "what is awake has only just come",
    Why.BEHIND: "what is awake, or another model that waits, comes before it",
    Why.DRAINING: "a turn has been ended for it, and what runs there ends first",
}
PINNED = "only pinned models are awake: unpin one"


def forecast(
    pool: PoolTurns, model: str, seats: Sequence[Seat], now_s: float, waiting: Callable[[str], int]
) -> WakeForecast:
    """Say what waking a model would do in a pool; `waiting` counts who waits for a model."""
    here = _here(pool, model)
    if here is not None:
        return here
    failed = next((f"; it failed: {seat.reason}" for seat in seats if seat.reason), "")
    wait_s = pool.until_awake_s(model, retried=True)
    demands = [replace(d, wanted=d.wanted or d.model == model) for d in pool.demands(now_s)]
    plan = decide(now_s, pool.view(now_s, retried=model), demands, pool.settings())

    def told(host: str, goes: str | None, why: str) -> WakeForecast:
        affected = {}
        if goes is not None:
            running = pool.hosts[host].seats[goes].replica.engine.sequences
            affected = {"running": running, "waiting": waiting(goes)}
        return WakeForecast(model, pool.name, host, goes, wait_s, why + failed, affected)

    for switch in plan.switches:
        if switch.model == model:
            why = "it would be tried again now" if failed else "it would come now"
            return told(switch.host, switch.instead_of, why)
    for end in plan.ends:
        if end.by == model:
            return told(end.host, end.model, "it would come once what the other one runs has ended")
    why = _why_not(pool, model, seats, dict(plan.held).get(model, Why.NOWHERE))
    return WakeForecast(model, pool.name, None, None, wait_s, why + failed, {})


def _here(pool: PoolTurns, model: str) -> WakeForecast | None:
    """Tell of a model that is awake at a host, or would be without a switch; None: there is none."""
    places = [(host, host.seats[model]) for host in pool.hosts.values() if model in host.seats]
    for host, seat in places:
        if seat.is_open:
            return WakeForecast(model, pool.name, host.name, None, 0.0, "it is awake", {})
    for host, seat in places:
        if seat in pool.to_sleep and seat.is_up and not seat.is_outdated:
            return WakeForecast(model, pool.name, host.name, None, 0.0, "its turn would go on", {})
    for host, _ in places:
        if host.coming == model:
            wait_s = pool.until_awake_s(model)
            return WakeForecast(model, pool.name, host.name, None, wait_s, "it comes already", {})
    return None


def _why_not(pool: PoolTurns, model: str, seats: Sequence[Seat], held: Why) -> str:
    """Say in a sentence why a model cannot come now."""
    if any(seat.is_absent for seat in seats):
        words = pool.absence(model).words
        return f"its files are not here: {words}" if words else "its files are not here yet"
    if all(seat.told is None for seat in seats):
        return "its host does not answer"
    if any(seat.shut_s is not None for seat in seats):
        return "its turn has just ended for another model; it comes again after that"
    return HELD.get(held, PINNED)
