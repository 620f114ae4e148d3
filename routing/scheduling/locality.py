"""Should a request wait for an engine that has its adapter in memory? Pure.

If it does not wait, another engine reads the adapter from disk, which stalls every sequence there: 86 ms on
an H100-class GPU (measured with vLLM V1). A slot of the engine that has the adapter is often free sooner. So
for `READ_WAIT_S` a request waits for such a slot, unless an engine that runs nothing would take it. Source:
delay scheduling (Zaharia et al., EuroSys 2010).
"""

from __future__ import annotations

from routing.scheduling.filters import may_take
from routing.scheduling.state import Engine
from routing.scheduling.view import View
from routing.types import Request

READ_WAIT_S = 0.2  # some two reads


def spares_read(engine: Engine, request: Request, view: View, *, now_s: float) -> bool:
    """Whether an engine should leave a request to another one for the time being."""
    adapter = request.target.adapter_id
    if adapter is None or now_s - request.arrived_s >= READ_WAIT_S:
        return False
    if engine.sequences == 0 or adapter in engine.resident or engine.holds(adapter):
        return False
    others = (other for other in view.engines if adapter in other.resident and other.wanted)
    return any(may_take(other, request) for other in others)
