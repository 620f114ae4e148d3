"""Would a change of the fleet let a dedicated tenant share an engine with requests of others? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set

from fleet.types import Fleet, Isolation


def why_shared(before: Fleet, after: Fleet, running: Mapping[str, Set[str]]) -> list[str]:
    """Say for each pool where a dedicated tenant would meet others; `running` is tenants by pool.

    What runs ends under the isolation with which it began, what comes begins under the new one; neither may
    meet a request of another tenant.
    """
    reasons = []
    for name, pool in after.pools.items():
        here, old = running.get(name, frozenset()), before.pools.get(name)
        alone = {t for t in pool.tenants if _is_dedicated(after, t)}
        alone |= {t for t in here if old is not None and t in old.tenants and _is_dedicated(before, t)}
        for tenant in sorted(alone):
            others = sorted({*here, *pool.tenants} - {tenant})
            if others:
                reasons.append(
                    f"pool {name}: tenant {tenant} is dedicated, and requests of {', '.join(others)} would "
                    "run beside its own; move one side away with isolation `shared` first, let its requests "
                    "end, then make this change"
                )
    return reasons


def _is_dedicated(fleet: Fleet, tenant: str) -> bool:
    found = fleet.tenants.get(tenant)
    return found is not None and found.isolation is Isolation.DEDICATED
