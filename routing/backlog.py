"""Who waits for a replica, and in what order? Per tenant and adapter a FIFO, bands strictly first.

Pure structure: it knows no replica and no clock. Between tenants the caller's counters decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from routing.types import Request

T = TypeVar("T")
# Tenant, engine model, replicas that broke under it: what waits for the same replicas waits in one line.
FlowKey = tuple[str, str, frozenset[str]]


class Backlog(Generic[T]):
    """Waiting entries of one pool; every entry is in at most once."""

    def __init__(self, request_of: Callable[[T], Request], band_rank: dict[str, int]) -> None:
        self._request_of = request_of
        self._band_rank = band_rank
        self._flows: dict[FlowKey, dict[T, None]] = {}  # a dict keeps order and removes in O(1)

    def __len__(self) -> int:
        return sum(len(flow) for flow in self._flows.values())

    def __bool__(self) -> bool:
        return bool(self._flows)

    def __iter__(self) -> Iterator[T]:
        return (entry for flow in self._flows.values() for entry in flow)

    @property
    def tenants(self) -> set[str]:
        """Tenants that have something waiting."""
        return {tenant for tenant, _, _ in self._flows}

    def push(self, entry: T) -> None:
        """Add an entry behind those of its flow."""
        self._flows.setdefault(self._flow_key(entry), {})[entry] = None

    def remove(self, entry: T) -> bool:
        """Take an entry out, wherever it stands; False where it was not waiting."""
        key = self._flow_key(entry)
        flow = self._flows.get(key)
        if flow is None or entry not in flow:
            return False
        del flow[entry]
        if not flow:
            del self._flows[key]
        return True

    def heads(self, service: Callable[[str], float]) -> list[T]:
        """List the first entry of every flow: higher band first, then least served tenant, then oldest."""

        def order(head: T) -> tuple[int, float, float]:
            request = self._request_of(head)
            tenant = request.target.tenant
            return self._band_rank[tenant], service(tenant), request.arrived_s

        return sorted((next(iter(flow)) for flow in self._flows.values()), key=order)

    def _flow_key(self, entry: T) -> FlowKey:
        request = self._request_of(entry)
        return request.target.tenant, request.target.engine_model, request.failed_on
