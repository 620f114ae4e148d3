"""Does admission ask budget, caps and rates in turn, and leave nothing reserved?"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from fleet.types import Budget, Caps, KeyLimits
from routing.asgi import HeaderList
from routing.errors import CapReached, InvalidRequest, QuotaExceeded, Unavailable
from routing.http.admission import LONGEST_BUDGET_WAIT_S, TOKENS_HEADER, Admission, rate_headers
from routing.scheduling.rates import Allowance
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request
from routing.usage.budget import Budgets, Use
from tests.fakes import small_fleet
from tests.unit.routing.requests import request
from tests.unit.routing.scheduling.busy import Busy


class Entrance:
    """Admission before a dispatcher over `small_fleet`; tenant `a` has a budget."""

    def __init__(self, *, monthly_tokens: int = 10**6, soft: float = 0.8, caps: Caps | None = None) -> None:
        self.dispatcher = Busy(small_fleet(caps=caps)).dispatcher
        self.budgets = Budgets({"a": Budget(monthly_tokens, soft)})
        self.key_budgets = Budgets({"limited": Budget(100)})
        self.admission = Admission(self.dispatcher, self.budgets, self.key_budgets)
        self.headers: HeaderList = []

    def admit(self, tenant: str = "a", sequences: int = 1) -> Ticket:
        """Ask for a request of a tenant."""
        return self.admission.admit(request(tenant, sequences=sequences), self.headers)

    @property
    def used_tokens(self) -> int:
        """What is used of the budget of `a`, and reserved."""
        status = self.budgets.status("a", time.time())
        assert status is not None
        return status.used


def test_what_is_let_in_reserves_its_part_of_the_budget_until_it_ends() -> None:
    entrance = Entrance()
    ticket = entrance.admit()
    assert entrance.used_tokens > 10, "prompt and the expected answer"
    entrance.dispatcher.settle(ticket, Outcome.COMPLETED)
    entrance.admission.end(ticket)
    assert entrance.used_tokens == 0
    entrance.admission.end(ticket)
    assert entrance.used_tokens == 0, "it is given back once"


@pytest.mark.parametrize(
    ("caps", "sequences", "error"),
    [
        (Caps(max_concurrency=1), 1, CapReached),
        (Caps(max_concurrency=1), 2, InvalidRequest),
        (Caps(requests_per_minute=1), 1, CapReached),
    ],
)
def test_what_caps_or_rates_refuse_has_nothing_reserved(
    caps: Caps, sequences: int, error: type[Exception]
) -> None:
    entrance = Entrance(caps=caps)
    entrance.admit()
    reserved = entrance.used_tokens
    with pytest.raises(error):
        entrance.admit(sequences=sequences)
    assert entrance.used_tokens == reserved, "that of the first alone"


def test_what_no_replica_may_serve_has_nothing_reserved() -> None:
    entrance = Entrance()
    entrance.dispatcher.drain()
    with pytest.raises(Unavailable):
        entrance.admit()
    assert entrance.used_tokens == 0


def test_what_is_over_the_budget_is_not_asked_of_caps_and_rates() -> None:
    entrance = Entrance(monthly_tokens=1, caps=Caps(requests_per_minute=1))
    with pytest.raises(QuotaExceeded) as refused:
        entrance.admit()
    told = dict(entrance.headers)
    assert (told[TOKENS_HEADER], told[b"x-ratelimit-remaining-requests"]) == (b"1", b"1")
    wait_s = refused.value.retry_after_s
    assert wait_s is None or wait_s <= LONGEST_BUDGET_WAIT_S
    assert repr(entrance.dispatcher).startswith("<Dispatcher admitted=0 ")


def test_what_is_left_is_said_from_the_soft_limit_on() -> None:
    entrance = Entrance(monthly_tokens=10_000, soft=0.5)
    entrance.admit()
    assert entrance.headers == []
    entrance.budgets.count("a", Use(5000), time.time())
    entrance.admit()
    assert [name for name, _ in entrance.headers] == [TOKENS_HEADER]


def test_who_has_no_budget_is_asked_for_none() -> None:
    entrance = Entrance(monthly_tokens=1)
    ticket = entrance.admit("b")
    entrance.admission.end(ticket)
    assert (entrance.headers, entrance.used_tokens) == ([], 0)


def limited(limits: KeyLimits) -> Request:
    """A request with a key that has limits."""
    return replace(request("a"), key="limited", key_limits=limits)


def test_a_keys_budget_is_asked_after_its_tenants_and_one_that_refuses_takes_nothing_of_the_other() -> None:
    entrance = Entrance()
    entrance.key_budgets.count("limited", Use(95), time.time())
    with pytest.raises(QuotaExceeded, match="This API key's own budget") as refused:
        entrance.admission.admit(limited(KeyLimits(monthly_tokens=100)), entrance.headers)
    assert refused.value.code == "key_monthly_tokens" and not refused.value.should_retry
    assert entrance.headers == [(b"x-tenantry-key-budget-remaining-tokens", b"5")]
    assert entrance.used_tokens == 0

    poor = Entrance(monthly_tokens=5)
    with pytest.raises(QuotaExceeded) as refused:
        poor.admission.admit(limited(KeyLimits(monthly_tokens=100)), poor.headers)
    assert refused.value.code == "insufficient_quota"
    status = poor.key_budgets.status("limited", time.time())
    assert status is not None and status.used == 0


def test_a_keys_budget_gets_its_part_back_at_the_end_and_from_one_that_a_cap_refuses() -> None:
    entrance = Entrance()
    limits = KeyLimits(max_concurrency=1, monthly_tokens=100)
    ticket = entrance.admission.admit(limited(limits), entrance.headers)
    status = entrance.key_budgets.status("limited", time.time())
    assert status is not None and status.used > 10
    with pytest.raises(CapReached) as refused:
        entrance.key_budgets.take({"limited": Budget(1000)})
        entrance.admission.admit(limited(limits), entrance.headers)
    assert refused.value.code == "key_max_concurrency"
    assert refused.value.message == "This API key's own max_concurrency of 1 is reached."
    entrance.dispatcher.settle(ticket, Outcome.COMPLETED)
    entrance.admission.end(ticket)
    entrance.admission.end(ticket)
    status = entrance.key_budgets.status("limited", time.time())
    assert status is not None and status.used == 0 and entrance.used_tokens == 0


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0s"), (0.0004, "1ms"), (0.25, "250ms"), (0.9999, "1s"), (1.0, "1s"), (8.2, "9s"),
        (59.5, "1m0s"), (90.0, "1m30s"), (3600.0, "60m0s"),
    ],
)  # fmt: skip
def test_a_time_is_written_as_openai_writes_it_and_never_too_short(seconds: float, told: str) -> None:
    assert rate_headers([Allowance(False, 10, 3, seconds)]) == [
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", told.encode()),
    ]


def test_what_is_left_of_the_rates_is_said_to_who_is_let_in_and_to_who_is_not() -> None:
    entrance = Entrance(caps=Caps(requests_per_minute=1, tokens_per_minute=1000))
    entrance.admit()
    told = dict(entrance.headers)
    assert told[b"x-ratelimit-remaining-requests"] == b"0"
    assert told[b"x-ratelimit-limit-tokens"] == b"1000"
    assert int(told[b"x-ratelimit-remaining-tokens"]) < 1000
    entrance.headers.clear()
    with pytest.raises(CapReached):
        entrance.admit()
    assert dict(entrance.headers).keys() == told.keys()


def test_who_has_no_rates_is_told_of_none() -> None:
    entrance = Entrance()
    entrance.admit()
    assert entrance.headers == []
