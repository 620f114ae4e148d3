"""May this request enter? Its tenant's budget of the month says so, then caps and rates.

Each of them takes its part when it is asked. So one that is refused by caps or rates gives its part of the
budget back, and one that is let in gives it back at its end.
"""

from __future__ import annotations

import math
import time

from routing.asgi import HeaderList
from routing.errors import CapReached, InvalidRequest, QuotaExceeded, RequestError, Unavailable
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.tickets import Ticket
from routing.types import Request
from routing.usage.budget import Budgets, BudgetStatus, Level, Use

TOKENS_HEADER = b"x-tenantry-budget-remaining-tokens"
COST_HEADER = b"x-tenantry-budget-remaining-cost"
LONGEST_BUDGET_WAIT_S = 86_400.0  # nobody's client sleeps for weeks


class Admission:
    """Lets requests in, and keeps what each has reserved of its tenant's budget until it ends."""

    def __init__(self, dispatcher: Dispatcher, budgets: Budgets) -> None:
        self._dispatcher = dispatcher
        self._budgets = budgets
        self._reserved: dict[Ticket, Use] = {}

    def admit(self, request: Request, answer_headers: HeaderList) -> Ticket:
        """Return the ticket of a request that may enter; `end` must follow once it has ended.

        A header is added that says what is left of the budget, where that is little. Raises `QuotaExceeded`,
        `CapReached`, `Unavailable`, or `InvalidRequest` where the request alone is over a cap.
        """
        account = request.target.account
        use = self._reserve(request, answer_headers) if account in self._budgets else None
        try:
            decision = self._dispatcher.submit(request)
            if isinstance(decision, Rejection):
                raise _refusal(decision, request)
        except RequestError:
            if use is not None:
                self._budgets.release(account, use)
            raise
        if use is not None:
            self._reserved[decision] = use
        return decision

    def end(self, ticket: Ticket) -> None:
        """Give back what an admitted request had reserved; what it used has been counted by then."""
        if ticket in self._reserved:
            self._budgets.release(ticket.request.target.account, self._reserved.pop(ticket))

    def _reserve(self, request: Request, answer_headers: HeaderList) -> Use | None:
        """Reserve what the request is expected to use; returns how much that is. Raises `QuotaExceeded`."""
        account, now_s = request.target.account, time.time()
        status = self._budgets.status(account, now_s)
        if status is None:
            return None
        group, price = self._dispatcher.group_of(request.target), request.target.price
        completion = math.ceil(group.expected_completion(request))
        cost = 0 if price is None else price.cost(request.prompt_tokens, completion)
        use = Use(request.prompt_tokens + completion, cost)
        granted = self._budgets.reserve(account, use, now_s)
        if not granted or status.level is not Level.BELOW:
            name = TOKENS_HEADER if status.currency is None else COST_HEADER
            answer_headers.append((name, status.amount(status.remaining).encode()))
        if not granted:
            raise _over_budget(status, use, now_s)
        return use


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
    return CapReached(
        f"The cap {cap} of {limit} is reached for `{request.target.model}`.",
        code=cap,
        retry_after_s=rejection.retry_after_s,
    )


def _over_budget(status: BudgetStatus, use: Use, now_s: float) -> QuotaExceeded:
    """Say what is left of the month's budget, and when the next begins where that is worth waiting for."""
    wait_s = status.resets_s - now_s
    return QuotaExceeded(
        f"The month's budget of {status.amount(status.limit)} {status.unit} is used up: "
        f"{status.amount(status.remaining)} are left, and this request is expected to need "
        f"{status.amount(status.of(use))}. The next month begins in "
        f"{wait_s / 86400:.1f} days.",
        retry_after_s=wait_s if wait_s <= LONGEST_BUDGET_WAIT_S else None,
    )
