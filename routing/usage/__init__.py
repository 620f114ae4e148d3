"""Who used how much? A record of every request that had a model, and its sums, in the state database."""

from __future__ import annotations

from routing.usage.journal import Journal
from routing.usage.ledger import Ledger
from routing.usage.store import UsageStore

__all__ = ["Journal", "Ledger", "UsageStore"]
