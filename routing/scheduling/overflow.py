"""May another request wait, now that so many do? The memory that all tenants' queues share. Pure.

Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.
Nobody's queue may be longer than a multiple of what is still free. A flood is stopped by its own length while
room is left for everybody else, lower bands are stopped before higher ones, and nothing that waits has to be
thrown out.
"""

from __future__ import annotations

# Of the free part, by rank of the band. Alone, a tenant can fill 4/5, 1/2, 1/5 of the whole.
MULTIPLES = (4.0, 1.0, 0.25)


def has_place(rank: int, *, own: float, adds: float, used: float, limit: float) -> bool:
    """Whether a tenant with so much in the queue may add to it, where all together use so much."""
    return own + adds <= MULTIPLES[rank] * (limit - used - adds)
