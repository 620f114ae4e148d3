"""Does a version work on a real engine? Runs the canary on one replica, as a request like any other.

It waits its turn in the fair queue and holds a slot lease, so that a tenant who registers much pays for it
itself, and no engine gets more adapters than slots.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping

from adapters.errors import AdapterError
from adapters.residency import CanaryReport
from routing.admission import Rejection
from routing.catalog import Version
from routing.dispatcher import Dispatcher
from routing.errors import RequestError
from routing.lifecycle.registry import Registry, patiently
from routing.replicas import ReplicaClient, ReplicaDied, ReplicaSilent
from routing.tickets import Ticket
from routing.types import Outcome, Request, Target

MAX_STRIKES = 2  # engines that may die while they try a version; one may be killed by something else
PROMPT_TOKENS = 64  # about what a canary costs
RETRY_S = 0.5


class NothingSeen(AdapterError):
    """The adapter made no difference to the few prompts of its trial, and nothing else was wrong."""


class Trial:
    """Tries versions on the fleet's engines."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        clients: Mapping[str, ReplicaClient],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._clients = clients
        self._clock = clock

    async def __call__(self, version: Version) -> None:
        """Return once an engine has passed the version; waits for an engine as long as it takes.

        Raises `AdapterError` where the canary fails, or engines die of it.
        """
        entry = self._registry.entry(version)
        users = self._registry.directory.users_of(entry)
        if not users:
            raise AdapterError(f"no pool serves base model `{entry.base_model}` to anybody who may use it")
        while True:
            for tenant, pool in users:
                target = Target(
                    tenant,
                    entry.key.name,
                    entry.key.name,
                    entry.base_model,
                    pool,
                    version.number,
                    version.engine_id,
                )
                report = await self._try(version, target)
                if report is None:
                    continue
                if not report.passed:
                    raise refusal_of(report)
                return
            await asyncio.sleep(RETRY_S)

    async def _try(self, version: Version, target: Target) -> CanaryReport | None:
        """Run one canary; None where that was not possible now."""
        request = Request(f"trial-{uuid.uuid4().hex}", target, 1, PROMPT_TOKENS, self._clock())
        try:
            ticket = self._dispatcher.submit(request)
        except RequestError:
            return None
        if isinstance(ticket, Rejection):
            return None
        try:
            return await self._run(version, ticket)
        finally:
            # Not a client's request: it must not count in the means that retry advice comes from.
            self._dispatcher.settle(ticket, Outcome.CANCELLED, prompt_tokens=PROMPT_TOKENS)

    async def _run(self, version: Version, ticket: Ticket) -> CanaryReport | None:
        try:
            replica = await ticket.granted()
        except RequestError:
            return None
        try:
            return await self._clients[replica.name].try_adapter(version.engine_id)
        except ReplicaDied:
            await self._strike(version, replica.name)
        except ReplicaSilent:
            await self._note(version, f"the trial on {replica.name} took too long; it is tried again")
        return None

    async def _strike(self, version: Version, replica: str) -> None:
        """Blame the version for an engine that died; once may be chance. Raises `AdapterError`."""
        struck = await self._note(version, f"{replica} did not survive the trial", strike=True)
        if struck.strikes >= MAX_STRIKES:
            raise AdapterError(f"{struck.strikes} engines did not survive its trial")

    async def _note(self, version: Version, reason: str, *, strike: bool = False) -> Version:
        return await patiently(
            lambda: self._registry.note(self._registry.current(version), reason, strike=strike)
        )


def refusal_of(report: CanaryReport) -> AdapterError:
    """Say why a trial was not passed."""
    kind = NothingSeen if report.saw_nothing else AdapterError
    return kind(f"the trial on an engine failed: {report.reason}")
