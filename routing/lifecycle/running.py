"""Whose requests run in each pool now?"""

from __future__ import annotations

from routing.scheduling.dispatcher import Dispatcher


def running_tenants(dispatcher: Dispatcher) -> dict[str, set[str]]:
    """Map each pool to the tenants of which something runs there."""
    running: dict[str, set[str]] = {}
    for group in dispatcher.all_groups():
        running.setdefault(group.pool, set()).update(group.floods.running)
    return running
