"""The ways in which a base model comes awake at its host, perhaps instead of another one.

A way is first asked whether it is possible between these two models, then gone. What it does in the middle
is its own affair; where it fails, nothing of an engine that it touched may be left, and the next is gone.
"""

from __future__ import annotations

from typing import Protocol

from engines.protocol import EngineOrder
from engines.supervisor import Supervisor


class SwitchFailed(Exception):
    """A way has not brought the model, which rests; says why."""


class Way(Protocol):
    """One way."""

    name: str  # one word: in logs, in metrics, and with its measured seconds in an engine's health
    usual_s: float  # what it takes elsewhere; counts until it has been measured here

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """Say why it is not possible between these two; empty: it is. Touches nothing."""
        ...

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Have a model awake, `going` having left its place; return once it is ready.

        Raises `SwitchFailed` once the model that was to come rests; the one to go rests too, or is as it was.
        """
        ...


class Cold:
    """One engine ends, then the other is started from nothing. Always possible."""

    name = "cold"
    usual_s = 30.0

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """It is always possible."""
        return ""

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Stop the one, start the other."""
        if going is not None:
            going.follow(EngineOrder.STOP)
            await going.rests()
        coming.follow(EngineOrder.START)
        if not await coming.settles():
            raise SwitchFailed(coming.health().reason)
