"""The state database: adapters, versions, rollouts, keys and their events, across restarts."""

from __future__ import annotations

from routing.state.store import StateStore

__all__ = ["StateStore"]
