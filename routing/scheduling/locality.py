"""Should a request wait for an engine that has its adapter in memory? Else another reads it from disk. Pure.

A read stalls every sequence of the engine, on an H100-class GPU for 86 ms (measured with vLLM V1). A slot of
the engine that has the adapter is often free sooner. So for `read_wait_s` a request waits for one of those,
unless an engine that runs nothing would take it. Source: delay scheduling (Zaharia et al., EuroSys 2010).
"""

from __future__ import annotations

from collections.abc import Iterable

from routing.scheduling.state import Engine
from routing.types import Request


def spares_read(
    engine: Engine, others: Iterable[Engine], request: Request, now_s: float, read_wait_s: float
) -> bool:
    """Whether an engine should leave a request to one of the others, for the time being."""
    adapter = request.target.adapter_id
    if adapter is None or now_s - request.arrived_s >= read_wait_s:
        return False
    if engine.sequences == 0 or adapter in engine.resident or engine.holds(adapter):
        return False
    return any(
        adapter in other.resident and other.accepts and other.trusted and other.name not in request.failed_on
        for other in others
    )
