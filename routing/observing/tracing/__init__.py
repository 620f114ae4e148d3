"""Traces of requests. Off unless fleet.yaml names a collector.

context.py   the W3C header: read strictly, written anew
spans.py     a settled request as spans; pure
exporter.py  OpenTelemetry's SDK, imported only where tracing is on
tracer.py    begins and ends traces
"""

from routing.observing.tracing.context import trace_id_of
from routing.observing.tracing.spans import Trace
from routing.observing.tracing.tracer import Tracer

__all__ = ["Trace", "Tracer", "trace_id_of"]
