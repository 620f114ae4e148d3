"""The ways in which a base model comes awake at its host, perhaps instead of another one.

A way is first asked whether it is possible between these two models, then gone. What it does in the middle
is its own affair; where it fails, nothing of an engine that it touched may be left, and the next is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from engines.built import Source
from engines.forking.server import ForkServer
from engines.protocol import EngineOrder
from engines.supervisor import Supervisor

Leave = Callable[[Supervisor], Awaitable[None]]  # has a model go; returns once it has left its place


class SwitchFailed(Exception):
    """A way has not brought the model, which rests; says why."""


class Way(Protocol):
    """One way."""

    name: str  # one word: in logs, in metrics, and with its measured seconds in an engine's health
    usual_s: float  # what it takes elsewhere; counts until it has been measured here

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """Say why it is not possible between these two; empty: it is. Touches nothing."""
        ...

    def is_usual(self) -> bool:
        """Whether what it takes now tells what it will take the next time."""
        ...

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Have a model awake, `going` having left its place; return once it is ready.

        Raises `SwitchFailed` once the model that was to come rests; the one to go rests too, or is as it was.
        """
        ...


class Fork:
    """One engine ends, then the other is started from a process that has imported vLLM already."""

    name = "fork"
    usual_s = 4.0

    def __init__(self, server: ForkServer, leave: Leave | None = None) -> None:
        """`leave` has the model go that is awake; else its engine ends."""
        self._server = server
        self._leave = leave or end

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """Say why its core cannot be forked."""
        return coming.why_not_fork()

    def is_usual(self) -> bool:
        """Not where the fork server has to be launched first."""
        return self._server.is_running()

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Have the one go, fork the other."""
        if going is not None:
            await self._leave(going)
        await _start(coming, coming.fork)


class Cold:
    """One engine ends, then the other is started from nothing. Always possible."""

    name = "cold"
    usual_s = 30.0

    def __init__(self, leave: Leave | None = None) -> None:
        """`leave` is as `Fork` has it."""
        self._leave = leave or end

    def why_not(self, going: Supervisor | None, coming: Supervisor) -> str:
        """It is always possible."""
        return ""

    def is_usual(self) -> bool:
        """It always takes as long."""
        return True

    async def bring(self, going: Supervisor | None, coming: Supervisor) -> None:
        """Have the one go, start the other."""
        if going is not None:
            await self._leave(going)
        await _start(coming)


def name_of(supervisor: Supervisor | None) -> str | None:
    """Return the base model of a supervisor, if there is one."""
    return None if supervisor is None else supervisor.model.name


async def end(supervisor: Supervisor) -> None:
    """Have an engine end; return once nothing of it is left."""
    supervisor.follow(EngineOrder.STOP)
    await supervisor.rests()


async def _start(coming: Supervisor, source: Source | None = None) -> None:
    """Start an engine, perhaps from a `source`; one that sleeps ends first. Raises `SwitchFailed`."""
    if coming.sleeps:
        await end(coming)
    coming.follow(EngineOrder.START, source=source)
    if not await coming.settles():
        raise SwitchFailed(coming.health().reason)
