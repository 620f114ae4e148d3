"""An engine died in a trial: is the adapter to blame? Only if the engine comes back without it.

The engine had answered for its base model before (it would not have been ready otherwise). If the one that
follows passes its self-test too, the adapter is at fault. If it does not, or died of something that no
adapter causes, the machine is at fault.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from engines.health import EngineHealth, EngineState
from routing.replicas.client import ReplicaClient
from routing.scheduling.state import Replica

WITHIN_S = 900.0  # a large model on a slow disk; a longer restart proves nothing about an adapter
ASK_INTERVAL_S = 0.5


class Cause(Enum):
    """Why a trial was cut off."""

    ADAPTER = "adapter"
    MACHINE = "machine"
    NONE = "none"  # no engine died: it lost its connection, or the engine had not been told of the adapter


@dataclass(frozen=True, slots=True)
class Before:
    """A replica just before a trial."""

    replica: Replica
    worker: str
    deaths: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a trial was cut off, and the engine's last error."""

    cause: Cause
    words: str = ""


class Aftermath:
    """Follows replicas from before a trial to after it."""

    def __init__(
        self,
        clients: Mapping[Replica, ReplicaClient],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clients = clients
        self._clock = clock

    async def before(self, replica: Replica) -> Before | None:
        """Record a replica's state; None if it is not ready."""
        health = await self.clients[replica].health()
        if health is None or health.state is not EngineState.READY:
            return None
        return Before(replica, health.worker, health.deaths, replica.engine.incarnation)

    async def find(self, before: Before) -> Finding:
        """Return once it is known whether the engine comes back."""
        deadline_s = self._clock() + WITHIN_S
        while self._clock() < deadline_s:
            if before.replica.left:
                return Finding(Cause.MACHINE, "its replica has left")
            health = await self.clients[before.replica].health()
            finding = None if health is None else self._judge(before, health)
            if finding is not None:
                return finding
            await asyncio.sleep(ASK_INTERVAL_S)
        return Finding(Cause.MACHINE, f"the engine did not come back within {WITHIN_S:g} s")

    def _judge(self, before: Before, health: EngineHealth) -> Finding | None:
        """Return the finding for a replica's state now; None: it is not known yet."""
        if health.state in (EngineState.FAILED, EngineState.DRAINING):
            return Finding(Cause.MACHINE, health.reason)
        if health.state is not EngineState.READY:
            return None
        if (health.worker, health.deaths) == (before.worker, before.deaths):
            return Finding(Cause.NONE)
        engine = before.replica.engine
        if not engine.ready or engine.incarnation == before.incarnation:
            return None  # its report of this death must arrive while the adapter is still on trial
        words = health.last_death if health.worker == before.worker else "its worker process ended too"
        return Finding(Cause.MACHINE if health.machine_to_blame else Cause.ADAPTER, words)
