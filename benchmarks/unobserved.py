"""The service with a gateway that observes nothing, for `python -m benchmarks.observability` to compare with.

No setting switches observation off, and none should: so the one place where a settled request is counted,
logged and metered is replaced here. BentoML imports this module in place of service.py.
"""

from __future__ import annotations

import service  # isort: skip - first of all: it prepares the environment that prometheus_client is imported in
from routing.http.gateway import Gateway as GatewayApp
from routing.record import Record

Gateway = service.Gateway


def _only_judge_rollouts(gateway: GatewayApp, record: Record, *_: object) -> None:
    gateway._lifecycle.observe(record)


setattr(GatewayApp, "_settled", _only_judge_rollouts)  # noqa: B010 - a plain assignment is no type
