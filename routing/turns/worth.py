"""What is a waiting request worth, and how long does a model need to run empty? Pure.

A request is worth what its band and its tenant's weight say, over what its tenant has had of late. This is
proportional fairness (Kelly 1997): tenants that wait for different models share the hosts by weight, and one
that floods is worth less with every answer that it gets.
"""

from __future__ import annotations

import math

from fleet.types import Band

BAND_WORTH = {Band.HIGH: 4.0, Band.STANDARD: 1.0, Band.LOW: 0.25}
SERVICE_S = 60.0  # time over which a tenant's tokens are counted
HALVED_AT_TOKENS = 20_000.0  # of late, by weight: who has had that many is worth half
LONGEST_OF = 0.7  # the longest of n answers takes 1 + LONGEST_OF * ln(n) times as long as one


def fair_worth(band_worth: float, weight: float, served_tokens: float) -> float:
    """Worth of one request; `served_tokens` is what its tenant has had of late."""
    return band_worth * weight / (1.0 + served_tokens / weight / HALVED_AT_TOKENS)


def drain_s(running: int, answer_s: float) -> float:
    """Seconds until so many sequences have ended, as expected."""
    return answer_s * (1.0 + LONGEST_OF * math.log(running)) if running else 0.0
