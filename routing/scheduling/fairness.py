"""Which tenant has had the least service? Virtual token counters of one group, by tenant and weight.

Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024 (VTC). A counter grows by the
tokens served, a completion token counting twice a prompt token as in the paper. A tenant that sends a request
while nothing of it waits is lifted to the virtual time, which is the counter of the tenant that was served
last (start-time fair queueing, Goyal et al., SIGCOMM 1996), so that no tenant saves up service by asking for
little. Bands have a virtual time each: they are never compared with one another.

Bound: of two tenants of one band that both wait all the time for what both could run on, neither gets more
than the other by more than one request's price of each (Goyal, theorem 1), divided by their weights, plus
what running requests were charged wrongly until they are settled. Pure: no clock, no queue.
"""

from __future__ import annotations

from collections.abc import Mapping

COMPLETION_TOKEN_PRICE = 2.0  # the paper's w_q / w_p


def cost(prompt_tokens: float, completion_tokens: float) -> float:
    """Price of a request, in prompt tokens."""
    return prompt_tokens + COMPLETION_TOKEN_PRICE * completion_tokens


class VirtualCounters:
    """Service received per tenant, in prompt tokens divided by weight."""

    def __init__(self, weights: Mapping[str, float], bands: Mapping[str, int] | None = None) -> None:
        """`bands` gives each tenant's; without it all are in one."""
        self._weights = weights
        self._bands = bands or {}
        self._service = dict.fromkeys(weights, 0.0)
        self._virtual_time: dict[int, float] = {}  # band -> counter of the tenant served last

    def __getitem__(self, tenant: str) -> float:
        return self._service[tenant]

    def add(self, tenant: str) -> None:
        """Take a tenant in, if it is new; it has had nothing yet."""
        self._service.setdefault(tenant, 0.0)

    def forget(self, tenant: str) -> None:
        """Forget a tenant that has left."""
        del self._service[tenant]

    def change_band(self, tenant: str, before: int, now: int) -> None:
        """Let a tenant be as far ahead of its new band, or behind it, as it was with its old one."""
        ahead = self._service[tenant] - self._virtual_time.get(before, 0.0)
        self._service[tenant] = self._virtual_time.get(now, 0.0) + ahead

    def lift(self, tenant: str) -> None:
        """Raise a tenant of which nothing waits to the virtual time of its band."""
        now = self._virtual_time.get(self._bands.get(tenant, 0), 0.0)
        self._service[tenant] = max(self._service[tenant], now)

    def serve(self, tenant: str, tokens: float) -> None:
        """Charge a request that begins; the virtual time follows."""
        band, before = self._bands.get(tenant, 0), self._service[tenant]
        self._virtual_time[band] = max(self._virtual_time.get(band, 0.0), before)
        self._service[tenant] = before + tokens / self._weights[tenant]

    def correct(self, tenant: str, tokens: float) -> None:
        """Add what a request that ended used beyond its charge; negative gives an over-estimate back."""
        self._service[tenant] += tokens / self._weights[tenant]
