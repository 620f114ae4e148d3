"""The state database: adapters, versions, rollouts, keys and their events, across restarts."""

from __future__ import annotations

from routing.state.plans import PlansStore
from routing.state.store import StateStore
from routing.state.tenants import Note, TenantWritten, changed_meanwhile
from routing.state.turns import TurnsStore

__all__ = ["Note", "PlansStore", "StateStore", "TenantWritten", "TurnsStore", "changed_meanwhile"]
