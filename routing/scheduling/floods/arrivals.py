"""How much has each tenant sent lately? Pure."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

REMEMBERED_S = 10.0  # for how long a tenant counts after its last request
LATELY_S = 2.0  # a request counts by exp(-age / LATELY_S)


@dataclass(slots=True)
class _Sender:
    seen_s: float  # when it last sent a request
    lately: float = 0.0  # requests, by age, at that time


class Arrivals:
    """Requests of each tenant for one group, as they come."""

    def __init__(self) -> None:
        self._senders: dict[str, _Sender] = {}

    def count(self, tenant: str, now_s: float) -> None:
        """Count a request of a tenant."""
        sender = self._senders.get(tenant)
        if sender is None:
            sender = self._senders[tenant] = _Sender(now_s)
        sender.lately = 1.0 + sender.lately * math.exp((sender.seen_s - now_s) / LATELY_S)
        sender.seen_s = now_s

    def forget(self, tenant: str) -> None:
        """Forget a tenant."""
        self._senders.pop(tenant, None)

    def tenants(self, now_s: float) -> Set[str]:
        """Return those seen in the last `REMEMBERED_S`; the others are forgotten."""
        self._senders = {t: one for t, one in self._senders.items() if now_s - one.seen_s < REMEMBERED_S}
        return self._senders.keys()

    def lately(self, tenant: str, now_s: float) -> float:
        """Requests that a tenant has sent lately, each by its age."""
        sender = self._senders.get(tenant)
        return 0.0 if sender is None else sender.lately * math.exp((sender.seen_s - now_s) / LATELY_S)
