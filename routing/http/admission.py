"""May this request enter? Budgets of the month say so, its tenant's and its key's, then caps and rates.

Each of them takes its part when it is asked. So one that is refused by a later one gives its part of the
budgets back, and one that is let in gives it back at its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from routing.asgi import HeaderList
from routing.errors import CapReached, InvalidRequest, QuotaExceeded, RequestError, Unavailable
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.rates import Allowance
from routing.scheduling.tickets import Ticket
from routing.types import Request
from routing.usage.budget import Budgets, BudgetStatus, Level, Use

TOKENS_HEADER = b"x-tenantry-budget-remaining-tokens"
COST_HEADER = b"x-tenantry-budget-remaining-cost"
KEY_HEADER = b"x-tenantry-key-budget-remaining-tokens"
KEY = "key_"  # before the name of a limit that is the key's own
KEY_BUDGET = "key_monthly_tokens"
LONGEST_BUDGET_WAIT_S = 86_400.0  # nobody's client sleeps for weeks


_Reserved = list[tuple[Budgets, str, Use]]  # of whose budget how much


class Admission:
    """Lets requests in, and keeps what each has reserved of budgets until it ends."""

    def __init__(self, dispatcher: Dispatcher, budgets: Budgets, key_budgets: Budgets) -> None:
        """`budgets` are the tenants'."""
        self._dispatcher = dispatcher
        self._budgets = budgets
        self._key_budgets = key_budgets
        self._reserved: dict[Ticket, _Reserved] = {}

    def admit(self, request: Request, answer_headers: HeaderList) -> Ticket:
        """Return the ticket of a request that may enter; `end` must follow once it has ended.

        Headers are added that say what is left of its rates, and of the budget where that is little. Raises
        `QuotaExceeded`, `CapReached`, `Unavailable`, or `InvalidRequest` where the request alone is over a
        cap.
        """
        reserved: _Reserved = []
        try:
            if request.target.account in self._budgets:
                self._reserve(request, self._budgets, request.target.account, reserved, answer_headers)
            if request.key_limits is not None and request.key in self._key_budgets:
                self._reserve(request, self._key_budgets, request.key, reserved, answer_headers)
            decision = self._dispatcher.submit(request)
            if isinstance(decision, Rejection):
                raise _refusal(decision, request)
        except RequestError:
            _release(reserved)
            raise
        finally:
            self._tell_rates(request, answer_headers)
        if reserved:
            self._reserved[decision] = reserved
        return decision

    def count_refused(self, request: Request, answer_headers: HeaderList) -> None:
        """Count a request that is refused whatever is left: as one of its minute's, and no tokens.

        Raises `CapReached` where none is left.
        """
        account, limits = request.target.account, request.key_limits
        rejection = self._dispatcher.rates.book(account, 0, request.key, limits)
        self._tell_rates(request, answer_headers)
        if rejection is not None:
            raise _refusal(rejection, request)

    def end(self, ticket: Ticket) -> None:
        """Give back what an admitted request had reserved; what it used has been counted by then."""
        _release(self._reserved.pop(ticket, []))

    def _tell_rates(self, request: Request, answer_headers: HeaderList) -> None:
        left = self._dispatcher.rates.left(request.target.account, request.key, request.key_limits)
        if left:
            answer_headers += rate_headers(left)

    def _reserve(
        self,
        request: Request,
        budgets: Budgets,
        owner: str,
        reserved: _Reserved,
        answer_headers: HeaderList,
    ) -> None:
        """Reserve what the request is expected to use, and add it to `reserved`. Raises `QuotaExceeded`."""
        now_s, of_key = time.time(), budgets is self._key_budgets
        status = budgets.status(owner, now_s)
        if status is None:
            return
        group, price = self._dispatcher.group_of(request.target), request.target.price
        completion = math.ceil(group.expected_completion(request))
        cost = 0 if price is None else price.cost(request.prompt_tokens, completion)
        use = Use(request.prompt_tokens + completion, cost)
        granted = budgets.reserve(owner, use, now_s)
        if not granted or status.level is not Level.BELOW:
            header = TOKENS_HEADER if status.currency is None else COST_HEADER
            told = status.amount(status.remaining).encode()
            answer_headers.append((KEY_HEADER if of_key else header, told))
        if not granted:
            raise _over_budget(status, use, now_s, of_key=of_key)
        reserved.append((budgets, owner, use))


def rate_headers(left: Iterable[Allowance]) -> HeaderList:
    """Write what is left of requests and tokens per minute as OpenAI does; a time as `1m30s`, `250ms`."""
    headers: HeaderList = []
    for each in left:
        unit = b"tokens" if each.counts_tokens else b"requests"
        headers += [
            (b"x-ratelimit-limit-" + unit, b"%d" % each.limit),
            (b"x-ratelimit-remaining-" + unit, b"%d" % each.remaining),
            (b"x-ratelimit-reset-" + unit, _duration(each.reset_s).encode()),
        ]
    return headers


def _duration(seconds: float) -> str:
    """Round up: to milliseconds below a second, else to seconds."""
    if seconds < 1:
        milliseconds = math.ceil(seconds * 1000)
        return f"{milliseconds}ms" if 0 < milliseconds < 1000 else f"{milliseconds // 1000}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _release(reserved: _Reserved) -> None:
    for budgets, owner, use in reserved:
        budgets.release(owner, use)


def _refusal(rejection: Rejection, request: Request) -> RequestError:
    """Say which limit a request met: its tenant's own, or the service's."""
    cap, limit = rejection.cap, rejection.limit
    if cap is Cap.OVERLOADED:
        return Unavailable(
            "More requests wait than can be served in time. Try again later.",
            code=cap,
            retry_after_s=rejection.retry_after_s,
        )
    if rejection.retry_after_s is None:
        asked = f"asks for {request.sequences} sequences" if request.sequences > 1 else "is too large"
        return InvalidRequest(
            f"The request {asked} at once; {cap} allows {limit}.",
            param="n" if request.sequences > 1 else None,
            code=cap,
        )
    name = cap.removeprefix(KEY)
    reached = f"The cap {cap} of {limit} is reached for `{request.target.model}`."
    return CapReached(
        reached if name == cap else f"This API key's own {name} of {limit} is reached.",
        code=cap,
        retry_after_s=rejection.retry_after_s,
    )


def _over_budget(status: BudgetStatus, use: Use, now_s: float, *, of_key: bool) -> QuotaExceeded:
    """Say what is left of the month's budget, and when the next begins where that is worth waiting for."""
    wait_s = status.resets_s - now_s
    whose = "This API key's own budget of the month" if of_key else "The month's budget"
    return QuotaExceeded(
        f"{whose} of {status.amount(status.limit)} {status.unit} is used up: "
        f"{status.amount(status.remaining)} are left, and this request is expected to need "
        f"{status.amount(status.of(use))}. The next month begins in "
        f"{wait_s / 86400:.1f} days.",
        code=KEY_BUDGET if of_key else None,
        retry_after_s=wait_s if wait_s <= LONGEST_BUDGET_WAIT_S else None,
    )
