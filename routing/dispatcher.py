"""When and where does each request run? The one stateful orchestrator.

It decides synchronously and acts after: no `await` stands between reading the state and changing it, so it
needs no lock. Policies are asked, never written here. Every ticket that `submit` returns must be settled
exactly once, whatever ends it; settling is the only way capacity comes back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from routing.admission import Demand, Rejection, Usage, admit
from routing.backlog import Backlog
from routing.errors import RequestError, Unavailable
from routing.fairness import VirtualCounters, cost
from routing.scheduling.profile import AFFINITY, Profile, clear_slot
from routing.scheduling.state import ReplicaState
from routing.types import Fleet, Outcome, Request

RETRY_AFTER_NO_REPLICA_S = 5.0  # an engine restarts in tens of seconds; asking every 5 s costs little
SMOOTHING = 0.1  # weight of the newest request in a tenant's running means


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the dispatcher."""

    request: Request
    granted: asyncio.Future[ReplicaState]
    replica: ReplicaState | None = None  # holds capacity there while set
    granted_s: float | None = None
    charged_tokens: float = 0.0
    settled: Outcome | None = None

    @property
    def queued_s(self) -> float | None:
        """Seconds it waited before its last grant; None while it waits."""
        return None if self.granted_s is None else self.granted_s - self.request.arrived_s


@dataclass(slots=True)
class _Account:
    """What the dispatcher keeps per tenant."""

    usage: Usage = field(default_factory=Usage)
    mean_completion_tokens: float = 64.0


class Dispatcher:
    """Admits, queues, grants and settles the requests of one gateway."""

    def __init__(
        self,
        fleet: Fleet,
        replicas: Iterable[ReplicaState],
        *,
        clock: Callable[[], float],
        profile: Profile = AFFINITY,
    ) -> None:
        self._tenants = fleet.tenants
        self._slot_wait_s = fleet.gateway.scheduler.slot_wait_s
        self._clock = clock
        self._profile = profile
        self.replicas = {replica.name: replica for replica in replicas}
        bands = {name: tenant.band.rank for name, tenant in fleet.tenants.items()}
        self._pools: dict[str, list[ReplicaState]] = {
            pool: [r for r in self.replicas.values() if r.pool == pool] for pool in fleet.pools
        }
        self._backlogs = {pool: Backlog[Ticket](lambda t: t.request, bands) for pool in fleet.pools}
        self._counters = VirtualCounters({name: tenant.weight for name, tenant in fleet.tenants.items()})
        self._accounts = {name: _Account() for name in fleet.tenants}
        self._adapters_in_use: Counter[str] = Counter()  # adapter id -> tickets, waiting or running
        self._draining = False

    def __repr__(self) -> str:
        in_flight = sum(replica.sequences for replica in self.replicas.values())
        leases = sum(len(replica.leases) for replica in self.replicas.values())
        admitted = sum(account.usage.sequences for account in self._accounts.values())
        queued = sum(len(backlog) for backlog in self._backlogs.values())
        return f"<Dispatcher admitted={admitted} queued={queued} in_flight={in_flight} leases={leases}>"

    def submit(self, request: Request) -> Ticket | Rejection:
        """Admit the request, then grant it a replica or queue it; or say which cap stops it.

        Raises `Unavailable` where no replica of its pool is ready or the gateway is shutting down.
        """
        target = request.target
        pool, backlog = self._pools[target.pool], self._backlogs[target.pool]
        self._refuse_if_unavailable(request)
        tenant, usage = self._tenants[target.tenant], self._accounts[target.tenant].usage
        replica = None if backlog else self._profile.pick(pool, request)
        must_wait = replica is None
        demand = Demand(target.model, request.sequences, request.prompt_tokens, must_wait)
        rejection = admit(tenant.caps, usage, demand)
        if rejection is not None:
            return rejection
        if usage.sequences == 0:
            self._counters.lift(tenant.name, backlog.tenants)
        self._count(request, +1)
        ticket = Ticket(request, asyncio.get_running_loop().create_future())
        if replica is not None:
            self._grant(ticket, replica)
        else:
            self._enqueue(ticket)
            self._fill(target.pool)
        return ticket

    def give_back(self, ticket: Ticket) -> None:
        """Queue a ticket again whose replica broke before it answered; it keeps its age.

        Raises `Unavailable` where no other replica is ready; the ticket must still be settled.
        """
        broken = self._release(ticket)
        request = replace(ticket.request, failed_on=ticket.request.failed_on | {broken.name})
        ticket.request, ticket.granted_s = request, None
        ticket.granted = asyncio.get_running_loop().create_future()
        self._refuse_if_unavailable(request)
        self._enqueue(ticket)
        self._fill(request.target.pool)

    def settle(
        self, ticket: Ticket, outcome: Outcome, *, prompt_tokens: int = 0, completion_tokens: int = 0
    ) -> None:
        """End a ticket: charge what it used, give its capacity back, serve who waits. Idempotent."""
        if ticket.settled is not None:
            return
        ticket.settled = outcome
        request = ticket.request
        target = request.target
        account = self._accounts[target.tenant]
        self._dequeue(ticket)
        _close(ticket.granted)
        if ticket.replica is not None:
            self._release(ticket)
        self._count(request, -1)
        self._counters.charge(target.tenant, cost(prompt_tokens, completion_tokens) - ticket.charged_tokens)
        if outcome is Outcome.COMPLETED:
            usage, taken_s = account.usage, self._clock() - request.arrived_s
            usage.mean_request_s += SMOOTHING * (taken_s - usage.mean_request_s)
            account.mean_completion_tokens += SMOOTHING * (completion_tokens - account.mean_completion_tokens)
        self._fill(target.pool)

    def set_ready(self, name: str, ready: bool) -> None:
        """Record a replica's readiness; tickets that nobody can serve any more are told so."""
        replica = self.replicas[name]
        if replica.ready == ready:
            return
        replica.ready = ready
        if not ready:
            replica.forget_residency()
        for ticket in list(self._backlogs[replica.pool]):
            if not self._serviceable(ticket.request):
                self._refuse(ticket, _no_replica())
        self._fill(replica.pool)

    def sweep(self) -> None:
        """Expire tickets that waited past their deadline; clear slots for those that wait for one."""
        now = self._clock()
        for pool, backlog in self._backlogs.items():
            for ticket in list(backlog):
                timeout_s = self._tenants[ticket.request.target.tenant].caps.queue_timeout_s
                if now - ticket.request.arrived_s >= timeout_s:
                    self._refuse(ticket, _expired(timeout_s))
            for head in backlog.heads(self._counters.__getitem__):
                if now - head.request.arrived_s >= self._slot_wait_s:
                    clear_slot(self._pools[pool], head.request)
            self._fill(pool)

    def take_residency(
        self, name: str, *, adapters: Iterable[str], pinned: Iterable[str], host: Iterable[str]
    ) -> None:
        """Record what a replica says of its adapters; see `ReplicaState.take_residency`."""
        replica = self.replicas[name]
        known = replica.adapters, replica.pinned
        replica.take_residency(adapters, pinned, host)
        if (replica.adapters, replica.pinned) != known:
            self._fill(replica.pool)

    def is_in_use(self, adapter_id: str) -> bool:
        """Whether a request for this version waits or runs."""
        return adapter_id in self._adapters_in_use

    def drain(self) -> None:
        """Refuse whatever is queued and whatever comes; what runs goes on."""
        self._draining = True
        for backlog in self._backlogs.values():
            for ticket in list(backlog):
                self._refuse(ticket, _shutting_down())

    def queued(self) -> dict[tuple[str, str], int]:
        """Count waiting requests by (tenant, model)."""
        counts: dict[tuple[str, str], int] = {}
        for backlog in self._backlogs.values():
            for ticket in backlog:
                key = ticket.request.target.tenant, ticket.request.target.model
                counts[key] = counts.get(key, 0) + 1
        return counts

    def admitted(self) -> dict[tuple[str, str], int]:
        """Count sequences in the gateway, waiting or running, by (tenant, model)."""
        return {
            (tenant, model): sequences
            for tenant, account in self._accounts.items()
            for model, sequences in account.usage.sequences_by_model.items()
        }

    # -- decisions -----------------------------------------------------------------------------------------

    def _fill(self, pool: str) -> None:
        """Grant waiting tickets, best first, until nothing that waits can run."""
        backlog, replicas = self._backlogs[pool], self._pools[pool]
        for held in replicas:
            self._end_stale_clearing(held, backlog)
        while backlog:
            for ticket in backlog.heads(self._counters.__getitem__):
                replica = self._profile.pick(replicas, ticket.request)
                if replica is not None:
                    self._dequeue(ticket)
                    self._grant(ticket, replica)
                    break
            else:
                return

    def _grant(self, ticket: Ticket, replica: ReplicaState) -> None:
        request = ticket.request
        replica.acquire(request.target.adapter_id, request.sequences)
        ticket.replica, ticket.granted_s = replica, self._clock()
        if not ticket.charged_tokens:
            mean_completion = self._accounts[request.target.tenant].mean_completion_tokens
            ticket.charged_tokens = cost(request.prompt_tokens, int(mean_completion * request.sequences))
            self._counters.charge(request.target.tenant, ticket.charged_tokens)
        ticket.granted.set_result(replica)

    def _release(self, ticket: Ticket) -> ReplicaState:
        replica, ticket.replica = ticket.replica, None
        if replica is None:
            raise RuntimeError("a ticket without a replica holds no capacity")
        replica.release(ticket.request.target.adapter_id, ticket.request.sequences)
        return replica

    def _enqueue(self, ticket: Ticket) -> None:
        target = ticket.request.target
        self._backlogs[target.pool].push(ticket)
        self._accounts[target.tenant].usage.queued += 1

    def _dequeue(self, ticket: Ticket) -> None:
        target = ticket.request.target
        if self._backlogs[target.pool].remove(ticket):
            self._accounts[target.tenant].usage.queued -= 1

    def _refuse(self, ticket: Ticket, error: RequestError) -> None:
        """Take a ticket out of the queue and tell whoever waits on it; its owner settles it."""
        self._dequeue(ticket)
        if not ticket.granted.done():
            ticket.granted.set_exception(error)

    def _refuse_if_unavailable(self, request: Request) -> None:
        if self._draining:
            raise _shutting_down()
        if not self._serviceable(request):
            raise _no_replica()

    def _serviceable(self, request: Request) -> bool:
        return any(
            r.ready and r.base_model == request.target.base_model and r.name not in request.failed_on
            for r in self._pools[request.target.pool]
        )

    def _end_stale_clearing(self, replica: ReplicaState, backlog: Backlog[Ticket]) -> None:
        """Stop holding a victim back for somebody who no longer waits."""
        clearing = replica.clearing
        if clearing is not None and all(t.request.target.adapter_id != clearing.waiting for t in backlog):
            replica.clearing = None

    def _count(self, request: Request, sign: int) -> None:
        usage, model = self._accounts[request.target.tenant].usage, request.target.model
        usage.sequences += sign * request.sequences
        by_model = usage.sequences_by_model
        left = by_model.get(model, 0) + sign * request.sequences
        if left:
            by_model[model] = left
        else:
            by_model.pop(model, None)
        adapter = request.target.adapter_id
        if adapter is not None:
            self._adapters_in_use[adapter] += sign
            if not self._adapters_in_use[adapter]:
                del self._adapters_in_use[adapter]


def _close(granted: asyncio.Future[ReplicaState]) -> None:
    """Leave no future pending, and no exception unread, behind a ticket nobody waits on any more."""
    if not granted.done():
        granted.cancel()
    elif not granted.cancelled():
        granted.exception()


def _no_replica() -> Unavailable:
    return Unavailable(
        "No replica that serves this model is ready. Try again shortly.",
        code="no_replica_ready",
        retry_after_s=RETRY_AFTER_NO_REPLICA_S,
    )


def _expired(timeout_s: float) -> Unavailable:
    return Unavailable(
        f"The request waited {timeout_s:g} s for a free replica, the longest this tenant allows.",
        code="queue_timeout",
        retry_after_s=1.0,
    )


def _shutting_down() -> Unavailable:
    return Unavailable(
        "The gateway is shutting down.", code="shutting_down", retry_after_s=RETRY_AFTER_NO_REPLICA_S
    )
