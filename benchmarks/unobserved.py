"""The service with a gateway that observes nothing, for `python -m benchmarks.observability` to compare with.

No setting switches observation off, and none should: so the list of those who are told of ended requests is
replaced here. BentoML imports this module in place of service.py.
"""

from __future__ import annotations

import service  # isort: skip - first of all: it prepares the environment that prometheus_client is imported in
from typing import Any

from routing import assembly
from routing.lifecycle import Lifecycle
from routing.observing.ended import EndedRequests

Gateway = service.Gateway


def _only_judge_rollouts(at_once: list[Any], batched: list[Any]) -> EndedRequests:
    return EndedRequests([o for o in at_once if isinstance(o.__self__, Lifecycle)], [])


# The gateway's process assembles it after this; a plain assignment is no type.
setattr(assembly, "EndedRequests", _only_judge_rollouts)  # noqa: B010
