"""How fast are the first tokens of a replica, compared with its peers? Pure.

An engine prefills together what came together, so the first tokens of a burst say one thing, however many
they are. What came within an epoch therefore counts once: counted one by one, two engines that were alike
were taken for a slow and a fast one in 7 % of the time when their slots were scarce, and in 30 % where much
waited for them (simulated; none with epochs, and one that is three times slower is still found in 20 s).
"""

from __future__ import annotations

import math

EPOCH_S = 0.5  # some steps of an engine
SMOOTHING = 0.05  # weight of an epoch: ten seconds of them count
MIN_EPOCHS = 20
MAX_SILENCE_S = 30.0  # without an answer for this time a replica is not compared
MIN_FIRST_TOKEN_S = 0.001


class FirstTokens:
    """A smoothed geometric mean, since prompts differ by factors: logarithms can be compared."""

    __slots__ = ("_began_s", "_count", "_epochs", "_heard_s", "_log_s", "_sum_log_s")

    def __init__(self) -> None:
        self._epochs = 0  # that are over
        self._log_s = 0.0  # of them, smoothed
        self._began_s = -math.inf  # the epoch that is not over
        self._sum_log_s, self._count = 0.0, 0  # of it
        self._heard_s = -math.inf

    @property
    def mean_s(self) -> float | None:
        """Smoothed time from being given a request to its first token; None while too little is known."""
        return math.exp(self._log_s) if self._epochs >= MIN_EPOCHS else None

    def note(self, now_s: float, first_token_s: float) -> None:
        """Note that a first token has come `first_token_s` after its request was granted."""
        if self._count and now_s - self._began_s >= EPOCH_S:
            self._epochs += 1
            weight = max(SMOOTHING, 1 / self._epochs)
            self._log_s += weight * (self._sum_log_s / self._count - self._log_s)
            self._sum_log_s, self._count = 0.0, 0
        if not self._count:
            self._began_s = now_s
        self._sum_log_s += math.log(max(MIN_FIRST_TOKEN_S, first_token_s))
        self._count += 1
        self._heard_s = now_s

    def log_s(self, now_s: float) -> float | None:
        """Logarithm of the mean; None while too little is known, or none of it is recent."""
        known = self._epochs >= MIN_EPOCHS and now_s - self._heard_s <= MAX_SILENCE_S
        return self._log_s if known else None
