"""What does each tenant have in the gateway, and may its next request enter?

The one place of admission. Counts are kept here; the rules are asked in this order: caps (`admission`),
shared memory (`overflow`), the pool's objective (the group's forecast), limits of the key (`admission`),
rates of the tenant and of the key (`rates`). Only keys that have limits are counted, and only while they have
something here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fleet.current import CurrentFleet
from fleet.types import Caps, Fleet, KeyLimits, tenant_of_account
from routing.scheduling.admission import Cap, Demand, Rejection, Usage, admit, admit_key
from routing.scheduling.fairness import cost
from routing.scheduling.forecast import retry_after_s, smoothed
from routing.scheduling.group import Group
from routing.scheduling.overflow import may_grow
from routing.scheduling.rates import RateLimits
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request

_NOTHING = Usage()  # of a key that has nothing here
RETRY_AFTER_FULL_S = 2.0  # a queue of thousands of requests does not empty in less


@dataclass(slots=True)
class _Account:
    """Counts of one tenant. One that takes the name of another which was removed has counts of its own."""

    usage: Usage = field(default_factory=Usage)
    queued_bytes: int = 0


class Accounts:
    """All that tenants have in one gateway."""

    def __init__(self, fleet: CurrentFleet) -> None:
        self.queued = 0  # requests of all tenants
        self._queued_bytes = 0
        self._fleet = fleet
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)  # by the tenants' accounts
        self._leaving: set[str] = set()  # those that are in the fleet no more and still have something
        self.rates = RateLimits(_caps(fleet.now))
        self._keys: dict[str, Usage] = {}  # of keys with limits that have something here
        self._versions: Counter[str] = Counter()  # adapter id -> requests, waiting or running
        self._adapter_sequences: Counter[str] = Counter()  # of adapters that have a cap

    def take_fleet(self, fleet: Fleet) -> None:
        """Let the caps of another fleet count from the next request on; what is counted stays counted."""
        caps = _caps(fleet)
        self.rates.take(caps)
        self._leaving = self._accounts.keys() - caps.keys()
        self.forget_left()

    def forget_left(self) -> None:
        """Forget the tenants that were removed and have nothing here any more."""
        for account in [each for each in self._leaving if not self._accounts[each].usage.sequences]:
            self._leaving.discard(account)
            del self._accounts[account]

    @property
    def sequences(self) -> int:
        """Sequences of all tenants, waiting or running."""
        return sum(account.usage.sequences for account in self._accounts.values())

    @property
    def limited_keys(self) -> int:
        """Keys with limits that have something here."""
        return len(self._keys)

    def is_in_use(self, adapter_id: str) -> bool:
        """Whether a request for this version waits or runs."""
        return adapter_id in self._versions

    def by_model(self) -> dict[tuple[str, str], int]:
        """Count sequences, waiting or running, by (tenant, model), those of a former tenant among them."""
        counts: Counter[tuple[str, str]] = Counter()
        for name, account in self._accounts.items():
            for model, sequences in account.usage.sequences_by_model.items():
                counts[tenant_of_account(name), model] += sequences
        return counts

    # -- may it enter --------------------------------------------------------------------------------------

    def rejection(self, request: Request, group: Group, now_s: float, *, must_wait: bool) -> Rejection | None:
        """Ask every cap in turn; rates come last, since asking books them. None: it may enter."""
        target = request.target
        caps, account = self._fleet.now.tenants[target.tenant].caps, self._accounts[target.account]
        demand = Demand(
            target.model,
            request.sequences,
            request.prompt_tokens,
            must_wait,
            target.adapter_limit,
            self._adapter_sequences.get(target.adapter or "", 0),
        )
        account.usage.forget_past(now_s)
        rejection = admit(caps, account.usage, demand)
        if rejection is not None:
            account.usage.expect(rejection, now_s)
        elif must_wait:
            rejection = self._overload(request, group, account)
        if rejection is None and request.key_limits is not None:
            rejection = self._key_rejection(request, request.key_limits, demand, now_s)
        return rejection or self.rates.book(
            target.account, request.prompt_tokens, request.key, request.key_limits
        )

    def leaves_half(self, request: Request) -> bool:
        """Whether a request would leave half of every cap and rate to others of its tenant and key."""
        target, limits = request.target, request.key_limits
        caps, usage = self._fleet.now.tenants[target.tenant].caps, self._accounts[target.account].usage
        taken = [
            (caps.max_concurrency, usage.sequences),
            (caps.max_concurrency_per_model, usage.sequences_by_model.get(target.model, 0)),
            (target.adapter_limit, self._adapter_sequences[target.adapter or ""]),
        ]
        if limits is not None:
            taken.append((limits.max_concurrency, self._keys.get(request.key, _NOTHING).sequences))
        for limit, used in taken:
            if limit is not None and used + request.sequences > max(request.sequences, limit // 2):
                return False
        left = self.rates.left(target.account, request.key, limits)
        return all(2 * allowance.remaining >= allowance.limit for allowance in left)

    def _key_rejection(
        self, request: Request, limits: KeyLimits, demand: Demand, now_s: float
    ) -> Rejection | None:
        usage = self._keys.get(request.key, _NOTHING)
        usage.forget_past(now_s)
        rejection = admit_key(limits, usage, demand)
        if rejection is not None and usage is not _NOTHING:
            usage.expect(rejection, now_s)
        return rejection

    def _overload(self, request: Request, group: Group, account: _Account) -> Rejection | None:
        """Reject a request that must wait where no memory is left for it, or it would miss the objective."""
        fleet = self._fleet.now
        rank, limit = fleet.tenants[request.target.tenant].band.rank, fleet.gateway.scheduler
        fits = may_grow(
            rank, own=account.usage.queued, adds=1, used=self.queued, limit=limit.max_queued
        ) and may_grow(
            rank,
            own=account.queued_bytes,
            adds=request.size_bytes,
            used=self._queued_bytes,
            limit=limit.max_queued_bytes,
        )
        if not fits:
            return Rejection(Cap.OVERLOADED, limit.max_queued, RETRY_AFTER_FULL_S)
        predicted_s = group.sheds(request)
        if predicted_s is None or group.slo.ttft_s is None:
            return None
        return Rejection(Cap.OVERLOADED, self.queued, retry_after_s(predicted_s, group.slo.ttft_s))

    # -- counts --------------------------------------------------------------------------------------------

    def count(self, request: Request, sign: int) -> None:
        """Count a request that enters (+1) or ends (-1)."""
        target, sequences = request.target, sign * request.sequences
        usage = self._accounts[target.account].usage
        usage.sequences += sequences
        _add(usage.sequences_by_model, target.model, sequences)
        if target.adapter_id is not None:
            _add(self._versions, target.adapter_id, sign)
        if target.adapter is not None and target.adapter_limit is not None:
            _add(self._adapter_sequences, target.adapter, sequences)
        if request.key_limits is not None:
            of_key = self._keys.get(request.key)
            if of_key is None:
                of_key = self._keys[request.key] = Usage(mean_request_s=usage.mean_request_s)
            of_key.sequences += sequences
            if not of_key.sequences:
                del self._keys[request.key]

    def count_queued(self, request: Request, sign: int) -> None:
        """Count a request that begins to wait (+1) or waits no longer (-1)."""
        account = self._accounts[request.target.account]
        account.usage.queued += sign
        account.usage.queued_tokens += sign * request.prompt_tokens
        account.queued_bytes += sign * request.size_bytes
        if request.key_limits is not None:
            self._keys[request.key].queued += sign
        self.queued += sign
        self._queued_bytes += sign * request.size_bytes

    def charge(
        self, group: Group, ticket: Ticket, used: tuple[int, int], now_s: float, *, metered: bool
    ) -> None:
        """Charge a ticket that ended what it used (prompt and completion tokens), and learn from its end.

        Only one that was completed, and was to write anything, teaches. A request that ran and was not
        metered keeps the estimate that its tenant's rate was charged.
        """
        request, (prompt_tokens, completion_tokens) = ticket.request, used
        account = request.target.account
        self.count(request, -1)
        completed = ticket.settled is Outcome.COMPLETED and request.max_completion_tokens != 0
        completed = completed and not request.spare  # lines say nothing of what people ask
        group.end(ticket, cost(prompt_tokens, completion_tokens), completion_tokens if completed else None)
        if metered:  # book what it used beyond its estimate
            beyond = prompt_tokens + completion_tokens - request.prompt_tokens
            self.rates.correct(account, beyond, request.key, request.key_limits)
        if completed:
            for usage in (self._accounts[account].usage, self._keys.get(request.key)):
                if usage is not None:
                    usage.mean_request_s = smoothed(usage.mean_request_s, now_s - request.arrived_s)


def _caps(fleet: Fleet) -> dict[str, Caps]:
    return {tenant.account: tenant.caps for tenant in fleet.tenants.values()}


def _add(counts: dict[str, int], key: str, number: int) -> None:
    """Add to a count; one that comes back to zero leaves nothing behind."""
    left = counts.get(key, 0) + number
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
