"""Do the shares of all who ran add up to the time that somebody ran, whatever the order of events?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.occupancy import ShareClock
from routing.scheduling.state import Engine
from routing.scheduling.tickets import Grant, Ticket
from tests.unit.routing.requests import engine, request

MODELS = (("a", "support"), ("a", "sales"), ("b", "support"), ("a", "plain"))
STEPS = st.lists(
    st.tuples(
        st.floats(0, 100, allow_subnormal=False),  # seconds since the last step
        st.integers(0, 3),  # whose request comes
        st.integers(1, 5),  # its sequences
        st.one_of(st.none(), st.integers(0, 50)),  # or which of the running ends
    ),
    max_size=60,
)


class Slots:
    """An engine with tickets on it, and how long it and each of its slots were in use by the test's count."""

    def __init__(self) -> None:
        self.one: Engine = engine(slots=4, max_sequences=1000)
        self.now_s = 0.0
        self.running: list[Ticket] = []
        self.ended: list[Ticket] = []
        self.engine_s = self.slot_s = 0.0

    def wait(self, time_s: float) -> None:
        self.now_s += time_s
        self.engine_s += time_s if self.running else 0.0
        self.slot_s += time_s * len({t.request.target.adapter_id for t in self.running} - {None})

    def begin(self, which: int, sequences: int) -> None:
        tenant, model = MODELS[which]
        ticket = Ticket(request(tenant, model, sequences=sequences))
        self.one.acquire(ticket.request, 0, self.now_s)
        lease = self.one.leases.get(ticket.request.target.adapter_id or "")
        slot_mark_s = lease.clock.share_s if lease else 0.0
        ticket.begin(Grant(self.one, self.now_s, 0, 1, "only", self.one.clock.share_s, slot_mark_s))
        self.running.append(ticket)

    def end(self, index: int) -> None:
        ticket = self.running.pop(index % len(self.running))
        lease = self.one.leases.get(ticket.request.target.adapter_id or "")
        self.one.release(ticket.request, 0, self.now_s)
        ticket.add_time(ticket.end(), lease)
        self.ended.append(ticket)


@given(STEPS)
def test_shares_add_up_to_the_time_that_the_engine_and_its_slots_were_in_use(
    steps: list[tuple[float, int, int, int | None]],
) -> None:
    slots = Slots()
    for time_s, which, sequences, ends in steps:
        slots.wait(time_s)
        if ends is None or not slots.running:
            slots.begin(which, sequences)
        else:
            slots.end(ends)
    while slots.running:
        slots.wait(1.0)
        slots.end(0)
    assert sum(ticket.engine_s for ticket in slots.ended) == pytest.approx(slots.engine_s)
    assert sum(ticket.slot_s for ticket in slots.ended) == pytest.approx(slots.slot_s)
    assert all(ticket.engine_s >= 0 and ticket.slot_s >= 0 for ticket in slots.ended)
    assert (slots.one.sequences, slots.one.leases) == (0, {})


def test_who_runs_alone_has_all_of_the_time_and_two_have_half_of_it_each() -> None:
    slots = Slots()
    slots.begin(0, 1)
    slots.wait(10.0)
    slots.begin(2, 1)
    slots.wait(4.0)
    slots.end(0)
    slots.wait(1.0)
    slots.end(0)
    first, second = slots.ended
    assert (first.engine_s, second.engine_s) == (12.0, 3.0)
    assert (first.slot_s, second.slot_s) == (14.0, 5.0), "each has a slot of its own"


def test_a_request_with_more_sequences_has_as_much_more_of_a_slot() -> None:
    slots = Slots()
    slots.begin(0, 3)
    slots.begin(0, 1)
    slots.wait(8.0)
    slots.end(0)
    slots.end(0)
    assert [ticket.slot_s for ticket in slots.ended] == [6.0, 2.0]


def test_a_clock_stands_still_while_nothing_runs() -> None:
    clock = ShareClock()
    assert clock.read(0, 100.0) == 0.0
    assert clock.read(2, 110.0) == 5.0
    assert clock.read(0, 200.0) == 5.0
