"""What outlives the gateway? Adapters, versions, rollouts, keys and what happened to them, in a database."""

from __future__ import annotations

from routing.state.store import StateStore

__all__ = ["StateStore"]
