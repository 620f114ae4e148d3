"""Which tenant is served next? Virtual token counters: the one that has had least service for its weight.

Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024 (VTC). A counter grows by the
tokens served, a completion token counting twice a prompt token as in the paper; a tenant that comes back
from idle is lifted to the least backlogged counter, so that nobody saves up service by staying away.
Pure: no clock, no queue; the caller says who is backlogged.
"""

from __future__ import annotations

from collections.abc import Iterable

COMPLETION_TOKEN_PRICE = 2.0  # the paper's w_q / w_p


def cost(prompt_tokens: int, completion_tokens: int) -> float:
    """Price of a request, in prompt tokens."""
    return prompt_tokens + COMPLETION_TOKEN_PRICE * completion_tokens


class VirtualCounters:
    """Service received per tenant, in prompt tokens divided by weight."""

    def __init__(self, weights: dict[str, float]) -> None:
        self._weights = weights
        self._service = dict.fromkeys(weights, 0.0)

    def __getitem__(self, tenant: str) -> float:
        return self._service[tenant]

    def lift(self, tenant: str, backlogged: Iterable[str]) -> None:
        """Raise a tenant that was idle to the least counter among those that are backlogged, if any."""
        least = min((self._service[other] for other in backlogged), default=None)
        if least is not None:
            self._service[tenant] = max(self._service[tenant], least)

    def charge(self, tenant: str, tokens: float) -> None:
        """Add service; negative gives an over-estimate back."""
        self._service[tenant] += tokens / self._weights[tenant]
