"""Which of BentoML's settings would do nothing, since requests go past its middleware? They are refused.

What `DirectService` passes by is here, with what takes its place. Everything else of a service's settings
works as BentoML has it: host, port, `backlog`, `ssl`, `http.cors`, `resources`, `runner_probe`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PASSED_BY = {
    "traffic.max_concurrency": "`caps` of tenants and `max_num_seqs` of base models bound what runs at once",
    "traffic.timeout": "`gateway.request_timeout_s` and `caps.queue_timeout_s` bound how long one takes",
    "http.response": "every answer has an `x-request-id`, and `gateway.tracing` sends traces",
    "tracing": "`gateway.tracing` sends traces",
    "metrics": "names and buckets of metrics are those of docs/metrics.md",
    "logging.access": "`gateway.log_requests` writes a line for each request",
    "workers": "the gateway and each engine are one process, and `pools.*.replicas` says how many engines",
    "threads": "nothing runs in threads of BentoML's",
    "max_runner_connections": "the gateway makes its own connections to engines",
    "runner_connection": "the gateway makes its own connections to engines",
    "grpc": "only HTTP is served",
    "endpoints": "probes find /livez, /healthz and /readyz",
}
# Off in our configuration.yaml, on in BentoML's defaults: either way of no consequence.
_OF_NO_CONSEQUENCE = frozenset({"metrics.enabled", "logging.access.enabled", "tracing.excluded_urls"})


def without_effect(settings: Mapping[str, Any], *usual: Mapping[str, Any]) -> list[str]:
    """Say of each setting that would do nothing what does it instead.

    Only what somebody has set counts: what is neither as one of `usual`, nor left out.
    """
    known = [dict(_leaves(each)) for each in usual]
    return [
        f"{path} is not taken here: {instead}"
        for path, value in _leaves(settings)
        if value is not None
        and path not in _OF_NO_CONSEQUENCE
        and all(value != each.get(path) for each in known)
        for instead in [_instead_of(path)]
        if instead is not None
    ]


def _instead_of(path: str) -> str | None:
    for passed_by, instead in PASSED_BY.items():
        if path == passed_by or path.startswith(f"{passed_by}."):
            return instead
    return None


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner
