"""Does a version work on a real engine? Runs the trial on one replica, as a request like any other.

It waits its turn in the fair queue and holds a slot lease, so that a tenant with many registrations pays for
them, and no engine gets more adapters than slots.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable

from adapters.errors import AdapterError
from engines.residency import ENGINE_DIED, TrialReport
from engines.words import without_paths
from routing.catalog.entries import Version
from routing.errors import RequestError
from routing.lifecycle.aftermath import Aftermath, Before, Cause
from routing.lifecycle.registry import Registry, patiently
from routing.replicas.client import ReplicaDied, ReplicaSilent
from routing.scheduling.admission import Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target

MAX_STRIKES = 2  # engines that may die while they try a version; one may be killed by something else
PROMPT_TOKENS = 64  # about the cost of a trial
RETRY_S = 0.5
CUT_OFF_RETRY_S = 2.0  # after a trial that no engine died of
MACHINE_RETRY_S = 30.0  # after an engine that died of something else; twice as long each time, since it
MAX_RETRY_S = 600.0  # may die again, and then every tenant has lost it
log = logging.getLogger("tenantry.lifecycle")


class NothingSeen(AdapterError):
    """The adapter made no difference to the few prompts of its trial, and had no other fault."""


class Trial:
    """Tries versions on the fleet's engines."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        aftermath: Aftermath,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._aftermath = aftermath
        self._clock = clock

    async def __call__(self, version: Version) -> None:
        """Return once an engine has passed the version; waits for an engine without a limit.

        Raises `AdapterError` if the trial fails, or a second engine dies of it.
        """
        entry = self._registry.entry(version)
        pauses_s = {Cause.ADAPTER: RETRY_S, Cause.NONE: CUT_OFF_RETRY_S, Cause.MACHINE: MACHINE_RETRY_S}
        while True:
            pause_s, users = RETRY_S, self._registry.directory.users_of(entry)
            if not users:  # they may have lost their pool meanwhile
                raise AdapterError(
                    f"no pool serves base model `{entry.base_model}` to anybody who may use it"
                )
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
                if isinstance(report, Before):
                    cause = await self._look_into(version, report)
                    pause_s = max(pause_s, pauses_s[cause])
                    if cause is Cause.MACHINE:
                        pauses_s[cause] = min(2 * pauses_s[cause], MAX_RETRY_S)
                elif report is not None and not report.passed:
                    raise refusal_of(report)
                elif report is not None:
                    return
            await asyncio.sleep(pause_s)

    async def _try(self, version: Version, target: Target) -> TrialReport | Before | None:
        """Run one trial. None: not possible now; `Before`: it was cut off, on that replica."""
        if not self._dispatcher.takes_work(target):
            return None  # it would wait there while another pool may be ready
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
            # Not a client's request: it must not count in the means behind retry advice.
            self._dispatcher.settle(ticket, Outcome.CANCELLED, prompt_tokens=PROMPT_TOKENS)

    async def _run(self, version: Version, ticket: Ticket) -> TrialReport | Before | None:
        try:
            replica = await ticket.granted()
        except RequestError:
            return None
        before = await self._aftermath.before(replica)
        if before is None:
            return None
        try:
            return await self._aftermath.clients[replica].try_adapter(version.engine_id)
        except ReplicaDied:
            return before
        except ReplicaSilent:
            await self._note(version, f"the trial on {replica.name} took too long; it is tried again")
        return None

    async def _look_into(self, version: Version, before: Before) -> Cause:
        """Find out why a trial was cut off. Raises `AdapterError` if it was the version's last engine."""
        finding, name = await self._aftermath.find(before), before.replica.name
        if finding.cause is Cause.MACHINE:
            log.warning("%s failed during a trial of %s: %s", name, version.adapter, finding.words)
            await self._note(version, f"waits: {name} failed, through no fault of the adapter")
        if finding.cause is Cause.ADAPTER:
            reason = f"{ENGINE_DIED} tried this adapter: {without_paths(finding.words)}"
            struck = await self._note(version, reason, strike=True)
            if struck.strikes >= MAX_STRIKES:
                raise AdapterError(reason)
        return finding.cause

    async def _note(self, version: Version, reason: str, *, strike: bool = False) -> Version:
        return await patiently(
            lambda: self._registry.note(self._registry.current(version), reason, strike=strike)
        )


def refusal_of(report: TrialReport) -> AdapterError:
    """Return the error for a failed trial."""
    kind = NothingSeen if report.saw_nothing else AdapterError
    return kind(f"the trial on an engine failed: {report.reason}")
