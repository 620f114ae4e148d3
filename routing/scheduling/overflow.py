"""May another request wait, or is the memory full that all tenants' queues share? Pure.

Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998. A
tenant's queue may be at most a multiple of the memory that is still free. A flood is stopped by the length of
its own queue while room is left for all others, lower bands are stopped before higher ones, and nothing that
waits has to be thrown out.
"""

from __future__ import annotations

# Multiples of the free part, by rank of the band. Alone, a tenant can fill 4/5, 1/2, 1/5 of the whole.
MULTIPLES = (4.0, 1.0, 0.25)


def may_grow(rank: int, *, own: float, adds: float, used: float, limit: float) -> bool:
    """Whether a tenant that has `own` in the queue may add to it, where all tenants together use `used`."""
    return own + adds <= MULTIPLES[rank] * (limit - used - adds)
