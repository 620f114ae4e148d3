"""Limits of one key beside its tenant's: all are asked, a refusal books nothing, and all comes back."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.types import Caps, KeyLimits
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request
from tests.fakes import small_fleet
from tests.unit.routing.requests import request
from tests.unit.routing.scheduling.busy import Busy

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"


def house(*, caps: Caps | None = None, width: int = 8) -> Dispatcher:
    """A dispatcher over `small_fleet`, everything ready."""
    return Busy(small_fleet(caps=caps, max_num_seqs=width)).dispatcher


def asked(key: str, limits: KeyLimits | None, *, sequences: int = 1) -> Request:
    """A request of tenant `a` with a key."""
    return replace(request("a", sequences=sequences), key=key, key_limits=limits)


def end(dispatcher: Dispatcher, *tickets: Ticket) -> None:
    """Settle tickets twice: the second time changes nothing."""
    for ticket in tickets:
        for _ in range(2):
            dispatcher.settle(ticket, Outcome.COMPLETED, prompt_tokens=10, completion_tokens=5)


def test_a_keys_concurrency_is_its_own_and_its_refusal_names_it() -> None:
    dispatcher, limits = house(), KeyLimits(max_concurrency=2)
    tickets = [dispatcher.submit(asked("k", limits)) for _ in range(2)]
    refused = dispatcher.submit(asked("k", limits))
    assert isinstance(refused, Rejection) and (refused.cap, refused.limit) == (Cap.KEY_CONCURRENCY, 2)
    assert refused.retry_after_s is not None
    assert isinstance(dispatcher.submit(asked("k", limits, sequences=3)), Rejection)
    others = [dispatcher.submit(asked("other", limits)), dispatcher.submit(asked("free", None))]
    assert all(isinstance(ticket, Ticket) for ticket in others)
    end(dispatcher, *(ticket for ticket in (*tickets, *others) if isinstance(ticket, Ticket)))
    assert repr(dispatcher) == AT_REST and dispatcher._accounts.limited_keys == 0


def test_what_waits_of_a_key_is_bounded_and_running_ones_are_not() -> None:
    dispatcher, limits = house(width=1), KeyLimits(max_queued=1)
    running, waiting = (dispatcher.submit(asked("k", limits)) for _ in range(2))
    refused = dispatcher.submit(asked("k", limits))
    assert isinstance(refused, Rejection) and refused.cap is Cap.KEY_QUEUED
    assert isinstance(running, Ticket) and isinstance(waiting, Ticket)
    end(dispatcher, running)
    more = dispatcher.submit(asked("k", limits))
    assert isinstance(more, Ticket)
    end(dispatcher, waiting, more)
    assert repr(dispatcher) == AT_REST and dispatcher._accounts.limited_keys == 0


def test_the_tenants_cap_is_asked_first() -> None:
    dispatcher, limits = house(caps=Caps(max_concurrency=1)), KeyLimits(max_concurrency=1)
    ticket = dispatcher.submit(asked("k", limits))
    refused = dispatcher.submit(asked("k", limits))
    assert isinstance(refused, Rejection) and refused.cap is Cap.CONCURRENCY
    assert isinstance(ticket, Ticket)
    end(dispatcher, ticket)


def test_a_request_that_breaks_off_and_is_hedged_counts_once_for_its_key() -> None:
    dispatcher, limits = Busy(small_fleet(replicas=3)).dispatcher, KeyLimits(max_concurrency=2)
    ticket = dispatcher.submit(asked("k", limits))
    assert isinstance(ticket, Ticket)
    hedge = dispatcher.hedge(ticket)
    assert hedge is not None
    dispatcher.swap(ticket, hedge)
    dispatcher.settle(hedge, Outcome.CANCELLED)
    dispatcher.requeue(ticket)
    second = dispatcher.submit(asked("k", limits))
    assert isinstance(second, Ticket)
    assert isinstance(dispatcher.submit(asked("k", limits)), Rejection)
    end(dispatcher, ticket, second)
    assert repr(dispatcher) == AT_REST and dispatcher._accounts.limited_keys == 0


def test_a_changed_limit_holds_for_the_next_request_and_running_ones_end_as_they_began() -> None:
    dispatcher = house()
    before = [dispatcher.submit(asked("k", None)) for _ in range(2)]  # it had none when these came
    limited = KeyLimits(max_concurrency=1)
    first, second = dispatcher.submit(asked("k", limited)), dispatcher.submit(asked("k", limited))
    assert isinstance(first, Ticket) and isinstance(second, Rejection)
    raised = dispatcher.submit(asked("k", KeyLimits(max_concurrency=2)))
    tickets = [ticket for ticket in (*before, first, raised) if isinstance(ticket, Ticket)]
    assert len(tickets) == 4
    end(dispatcher, *tickets)
    assert repr(dispatcher) == AT_REST and dispatcher._accounts.limited_keys == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 4))
def test_neither_the_tenants_cap_nor_a_keys_is_ever_passed_and_all_comes_back(
    seed: int, of_tenant: int, of_key: int, queued: int, width: int
) -> None:
    chance = random.Random(seed)
    dispatcher = house(caps=Caps(max_concurrency=of_tenant), width=width)
    limits = {"k1": KeyLimits(of_key, queued), "k2": KeyLimits(of_key + 1), "free": None}
    live: list[Ticket] = []
    for _ in range(150):
        if chance.random() < 0.6 or not live:
            key = chance.choice(list(limits))
            decision = dispatcher.submit(asked(key, limits[key], sequences=chance.choice((1, 1, 2))))
            if isinstance(decision, Ticket):
                live.append(decision)
        else:
            ticket = live.pop(chance.randrange(len(live)))
            for _ in range(chance.choice((1, 2))):
                dispatcher.settle(ticket, chance.choice(list(Outcome)))
        assert sum(ticket.request.sequences for ticket in live) <= of_tenant
        for key, own in limits.items():
            mine = [ticket for ticket in live if ticket.request.key == key]
            if own is not None and own.max_concurrency is not None:
                assert sum(ticket.request.sequences for ticket in mine) <= own.max_concurrency
            if own is not None and own.max_queued is not None:
                assert sum(not ticket.is_decided for ticket in mine) <= own.max_queued
    for ticket in live:
        dispatcher.settle(ticket, Outcome.CANCELLED)
    assert repr(dispatcher) == AT_REST and dispatcher._accounts.limited_keys == 0


@pytest.mark.parametrize("cap", [Caps(requests_per_minute=3), Caps(tokens_per_minute=30)])
def test_a_key_that_is_refused_takes_nothing_of_its_tenants_minute(cap: Caps) -> None:
    dispatcher = house(caps=cap)
    tight = KeyLimits(requests_per_minute=1, tokens_per_minute=10)
    taken = [dispatcher.submit(asked("k", tight)) for _ in range(5)]
    assert [isinstance(one, Ticket) for one in taken] == [True, False, False, False, False]
    assert all(one.cap.startswith("key_") for one in taken if isinstance(one, Rejection))
    more = [dispatcher.submit(asked("free", None)) for _ in range(3)]
    assert [isinstance(one, Ticket) for one in more] == [True, True, False], "what its tenant had left"
    end(dispatcher, *(one for one in (*taken, *more) if isinstance(one, Ticket)))
    assert repr(dispatcher) == AT_REST
