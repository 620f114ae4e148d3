"""How does a baseline route in the simulator? It sends every call at once, where its policy says."""

from __future__ import annotations

from benchmarks.baselines import EngineLedger, Policy
from simulation.driver import Call, Driver


class SendAtOnce:
    """A router that only chooses."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.tick_s = policy, policy.scrape_s

    def start(self, driver: Driver) -> None:
        """Take the driver before the first call arrives."""
        self._driver = driver
        self.ledgers = [EngineLedger(str(i), one.settings.slots) for i, one in enumerate(driver.engines)]
        self.tick(0.0)

    def arrive(self, call: Call, now: float) -> None:
        """Send it."""
        ledger = self.policy.choose(call.adapter or call.base_model, self.ledgers)
        ledger.begin(call.adapter or call.base_model)
        self._driver.send(call, int(ledger.name))

    def first_token(self, call: Call, now: float) -> None:
        """Nothing: none of these looks at it."""

    def finished(self, call: Call, now: float) -> None:
        """Count it out."""
        self.ledgers[call.replica or 0].end(call.adapter or call.base_model)

    def tokens(self, replica: int, gap_s: float, tokens: int) -> None:
        """Nothing: none of these looks at it."""

    def tick(self, now: float) -> None:
        """Let the policy read the metrics."""
        self.policy.scrape(self._driver.engines, self.ledgers)
