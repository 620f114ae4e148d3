"""Replicas join and leave while requests run: does everything come back, whoever comes and goes?"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.current import CurrentFleet
from fleet.types import Band, Caps, SchedulerSettings
from routing.errors import Unavailable
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.filters import could_serve
from routing.scheduling.selection import NO_SLOT_NEEDED, WITH_SLOT, WITHOUT_SLOT
from routing.scheduling.state import Engine, Replica, declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.fakes import FakeClock, small_fleet
from tests.unit.routing.requests import ADAPTER_IDS, request

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"
TOKENS_PER_MINUTE = 10**6
MODELS = [("a", "support"), ("a", "sales"), ("a", "plain"), ("b", "support")]


def a_replica(
    name: str, slots: int = 2, width: int = 4, *, pool: str = "shared", base_model: str = "base"
) -> Replica:
    """A replica of the pool `shared` of `small_fleet`."""
    return Replica(name, pool, Engine(name, base_model, slots, width, max_resident=4))


class Frozen:
    """Stands where the library of rates and `rates` have the module `time`."""

    def time(self) -> float:
        """Seconds since 1970."""
        return 1_800_000_000.0


def dispatcher_of(clock: FakeClock, *replicas: Replica, **caps: Any) -> Dispatcher:
    """A dispatcher over `small_fleet` with these replicas in `shared`; the pool `alone` has none."""
    fleet = small_fleet(caps=Caps(**caps))
    tenants = {name: replace(tenant, band=Band.STANDARD) for name, tenant in fleet.tenants.items()}
    chosen = SchedulerSettings(slot_wait_s=2.0)
    fleet = replace(fleet, tenants=tenants, gateway=replace(fleet.gateway, scheduler=chosen))
    return Dispatcher(CurrentFleet(fleet), replicas, clock=clock)


def be_ready(dispatcher: Dispatcher, name: str) -> None:
    """What the probe does when a replica answers."""
    pinned = ("a-sales@1",) if name.endswith("0") else ()
    dispatcher.take_residency(name, adapters=ADAPTER_IDS, pinned=pinned, host=("a-sales@1",), kv_tokens=2000)
    dispatcher.set_ready(name, True)


class Coming:
    """Everything that can happen to a dispatcher, in any order; the books are read after each step."""

    def __init__(self, chance: random.Random, *, width: int, slots: int) -> None:
        self.chance = chance
        self.clock = FakeClock()
        self.width, self.slots, self.made = width, slots, 0
        self.dispatcher = dispatcher_of(
            self.clock,
            max_concurrency=1000,
            queue_timeout_s=20.0,
            requests_per_minute=10**6,
            tokens_per_minute=TOKENS_PER_MINUTE,
        )
        self.group = self.dispatcher.groups["shared", "base"]
        self.all: list[Engine] = []  # of replicas that ever joined
        self.alive: list[Ticket] = []
        self.hedges: dict[Ticket, Ticket] = {}  # a ticket -> its hedge
        self.used_tokens: Counter[str] = Counter()
        self.left: dict[int, int] = {}  # id of a replica that has left -> sequences it still runs

    # -- what happens --------------------------------------------------------------------------------------

    def step(self) -> None:
        """Have something happen."""
        self.clock.now += self.chance.random()
        here, running = list(self.dispatcher.replicas), [t for t in self.alive if t.replica is not None]
        events = [self.arrive] * 6 + [self.sweep] + [self.join] * (len(here) < 3)
        if here:
            events += [self.be_ready] * 3 + [self.lose, self.drain, self.resume, self.leave]
        if self.alive:
            events += [self.end] * 3
        if running:
            events += [self.break_off, self.hedge]
        if self.hedges:
            events += [self.end_hedge] * 2
        self.chance.choice(events)()
        for ticket in [t for t in self.alive if t.refusal is not None]:
            self.settle(ticket, Outcome.EXPIRED)

    def join(self) -> None:
        names = {f"shared-{number}" for number in range(4)} - self.dispatcher.replicas.keys()
        replica = a_replica(self.chance.choice(sorted(names)), self.slots, self.width)
        self.all.append(replica.engine)
        self.dispatcher.join(replica)

    def leave(self) -> None:
        self.dispatcher.leave(self.anyone())

    def be_ready(self) -> None:
        be_ready(self.dispatcher, self.anyone())

    def lose(self) -> None:
        self.dispatcher.set_ready(self.anyone(), False)

    def drain(self) -> None:
        self.dispatcher.set_draining(self.anyone(), True)

    def resume(self) -> None:
        self.dispatcher.set_draining(self.anyone(), False)

    def anyone(self) -> str:
        """The name of some replica."""
        return self.chance.choice(list(self.dispatcher.replicas))

    def arrive(self) -> None:
        tenant, model = self.chance.choice(MODELS)
        sequences = self.chance.randint(1, 3)
        asked = request(tenant, model, base=model == "plain", sequences=sequences, arrived_s=self.clock.now)
        try:
            ticket = self.dispatcher.submit(asked)
        except Unavailable:
            assert all(engine.replica.draining for engine in self.group.engines), "one could have served it"
            return
        assert isinstance(ticket, Ticket)
        self.alive.append(ticket)

    def end(self) -> None:
        ticket = self.chance.choice(self.alive)
        outcome = Outcome.COMPLETED if ticket.replica else Outcome.CANCELLED
        self.settle(ticket, outcome, fault=self.chance.random() < 0.3)

    def break_off(self) -> None:
        ticket = self.chance.choice([t for t in self.alive if t.replica is not None])
        certain = self.chance.random() < 0.5
        if ticket in self.hedges or ticket.replica is None:
            return
        if certain:
            self.dispatcher.set_ready(ticket.replica.name, False)
        try:
            self.dispatcher.requeue(ticket, certain=certain, begun=self.chance.random() < 0.5)
        except Unavailable:
            self.settle(ticket, Outcome.FAILED)

    def hedge(self) -> None:
        ticket = self.chance.choice([t for t in self.alive if t.replica is not None])
        hedge = None if ticket in self.hedges else self.dispatcher.hedge(ticket)
        if hedge is not None:
            self.hedges[ticket] = hedge

    def end_hedge(self) -> None:
        ticket, hedge = self.hedges.popitem()
        if self.chance.random() < 0.5:
            self.dispatcher.swap(ticket, hedge)
        self.dispatcher.settle(hedge, Outcome.CANCELLED)

    def sweep(self) -> None:
        self.clock.now += 5.0 * self.chance.random()
        self.dispatcher.sweep()

    def settle(self, ticket: Ticket, outcome: Outcome, *, fault: bool = False) -> None:
        """End a ticket, and its hedge before it."""
        hedge = self.hedges.pop(ticket, None)
        if hedge is not None:
            self.dispatcher.settle(hedge, Outcome.CANCELLED)
        self.alive.remove(ticket)
        tenant = ticket.request.target.tenant
        prompt, completion = (10, 30) if outcome is Outcome.COMPLETED else (0, 0)
        unmetered = ticket.granted_s is not None and not prompt  # it ran, and its estimate stands
        self.used_tokens[tenant] += ticket.request.prompt_tokens if unmetered else prompt + completion
        self.dispatcher.settle(
            ticket, outcome, prompt_tokens=prompt, completion_tokens=completion, fault=fault
        )

    # -- the books -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Read all the books."""
        tickets = [*self.alive, *self.hedges.values()]
        for engine in self.all:
            self._check_engine(engine, [t for t in tickets if t.engine is engine])
        self._check_group([t for t in tickets if t.engine is not None])
        self._check_queue([t for t in self.alive if not t.is_decided])
        here = {id(replica.engine) for replica in self.dispatcher.replicas.values()}
        for engine in self.all:
            if id(engine) not in here:  # nothing new goes to one that has left
                assert engine.sequences <= self.left.get(id(engine), engine.sequences)
                assert not engine.accepts and engine.slot_drain is None
                self.left[id(engine)] = engine.sequences

    def _check_engine(self, engine: Engine, own: list[Ticket]) -> None:
        """It holds what its tickets do."""
        assert engine.sequences == sum(t.request.sequences for t in own)
        assert engine.tokens == sum(t.grant.reserved_tokens for t in own if t.grant is not None)
        leases: Counter[str] = Counter()
        for ticket in own:
            if ticket.request.target.adapter_id is not None:
                leases[ticket.request.target.adapter_id] += ticket.request.sequences
        assert {name: lease.sequences for name, lease in engine.leases.items()} == leases
        assert len(engine.leases) <= engine.slots

    def _check_group(self, running: list[Ticket]) -> None:
        """It counts what runs and who holds slots, on replicas that have left too."""
        counted: Counter[str] = Counter()
        for ticket in running:
            counted[ticket.request.target.tenant] += ticket.request.sequences
        leases = [lease for engine in self.all for lease in engine.leases.values()]
        assert self.group.floods.running == counted
        assert self.group.floods.leased == Counter(lease.tenant for lease in leases)
        assert self.group.engines == [replica.engine for replica in self.dispatcher.replicas.values()]
        assert f" in_flight={sum(counted.values())} leases={len(leases)}>" in repr(self.dispatcher)

    def _check_queue(self, waiting: list[Ticket]) -> None:
        """What waits stands in the right queue, and somebody could serve it."""
        backlog = self.group.backlog
        assert set(backlog) == set(waiting)
        for ticket in waiting:
            assert any(could_serve(engine, ticket.request) for engine in self.group.engines)
        for name, model in backlog._models.items():
            has_slot = any(engine.holds(name) for engine in self.group.engines)
            right = NO_SLOT_NEEDED if name == "base" else WITH_SLOT if has_slot else WITHOUT_SLOT
            assert model.queue == right

    def end_all(self) -> None:
        """Settle everything, have everybody leave, and see that nothing is left."""
        for ticket in list(self.alive):
            self.settle(ticket, Outcome.CANCELLED)
        self.clock.now += 30.0
        self.dispatcher.sweep()
        assert repr(self.dispatcher) == AT_REST
        for name in list(self.dispatcher.replicas):
            self.dispatcher.leave(name)
        assert all(r.sequences == r.tokens == len(r.leases) == 0 for r in self.all)
        assert not self.group.tickets and not self.group.engines
        assert not self.dispatcher._leaving and not self.dispatcher._grants._deadlines
        assert not self.dispatcher.admitted() and not self.dispatcher._accounts._versions
        self._check_rates()

    def _check_rates(self) -> None:
        """They have counted what was used: the rest may be asked for, and not a token more."""
        self.dispatcher.join(a_replica("last"))
        for tenant in ("a", "b"):
            left = TOKENS_PER_MINUTE - self.used_tokens[tenant]
            for tokens, allowed in ((left + 1, False), (left, True)):
                asked = replace(request(tenant, "support"), prompt_tokens=tokens)
                assert isinstance(self.dispatcher.submit(asked), Ticket) == allowed


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 5), slots=st.integers(1, 3))
def test_whoever_joins_and_leaves_while_requests_run_everything_comes_back(
    seed: int, width: int, slots: int
) -> None:
    with patch("limits.storage.memory.time", Frozen()), patch("routing.scheduling.rates.time", Frozen()):
        coming = Coming(random.Random(seed), width=width, slots=slots)
        for _ in range(100):
            coming.step()
            coming.check()
        coming.end_all()


# -- one at a time -----------------------------------------------------------------------------------------


def test_the_fleets_replicas_are_the_first_to_join() -> None:
    fleet = small_fleet(replicas=2)
    declared = Dispatcher(CurrentFleet(fleet), declared_replicas(fleet), clock=FakeClock())
    joined = Dispatcher(CurrentFleet(fleet), (), clock=FakeClock())
    for replica in declared_replicas(fleet):
        joined.join(replica)
    assert list(joined.replicas) == list(declared.replicas)
    for key, group in declared.groups.items():
        assert [r.name for r in joined.groups[key].engines] == [r.name for r in group.engines]


@pytest.mark.parametrize(
    ("replica", "words"),
    [
        (a_replica("shared-0"), "there is a replica 'shared-0' already"),
        (a_replica("new", base_model="another"), "pool 'shared' has no base model 'another'"),
        (a_replica("new", pool="nowhere"), "pool 'nowhere' has no base model 'base'"),
    ],
    ids=["its name is taken", "not its base model", "no such pool"],
)
def test_a_replica_that_has_no_place_is_refused_and_changes_nothing(replica: Replica, words: str) -> None:
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0"))
    with pytest.raises(ValueError, match=words):
        dispatcher.join(replica)
    assert list(dispatcher.replicas) == ["shared-0"]


def test_a_pool_without_a_replica_refuses_and_one_that_waits_for_its_first_does_not() -> None:
    clock = FakeClock()
    dispatcher = dispatcher_of(clock)
    with pytest.raises(Unavailable):
        dispatcher.submit(request())
    dispatcher.join(a_replica("shared-0"))
    ticket = dispatcher.submit(request())
    assert isinstance(ticket, Ticket) and ticket.replica is None
    be_ready(dispatcher, "shared-0")
    assert ticket.replica is not None
    dispatcher.settle(ticket, Outcome.COMPLETED)
    assert repr(dispatcher) == AT_REST


def test_who_waits_is_served_by_a_replica_that_joins() -> None:
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0", width=1))
    be_ready(dispatcher, "shared-0")
    tickets = [dispatcher.submit(request(arrived_s=1000.0)) for _ in range(2)]
    ready = a_replica("shared-1", width=1)
    ready.engine.ready, ready.engine.adapters = True, ADAPTER_IDS
    dispatcher.join(ready)
    for ticket in tickets:
        assert isinstance(ticket, Ticket) and ticket.replica is not None
        dispatcher.settle(ticket, Outcome.COMPLETED)
    assert repr(dispatcher) == AT_REST


@pytest.mark.parametrize("stays", [True, False], ids=["another one stays", "it is the last one"])
def test_what_runs_on_one_that_leaves_ends_there_and_what_waits_goes_elsewhere(stays: bool) -> None:
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0", width=1))
    be_ready(dispatcher, "shared-0")
    running, waiting = (dispatcher.submit(request()) for _ in range(2))
    assert isinstance(running, Ticket) and isinstance(waiting, Ticket)
    if stays:
        dispatcher.join(a_replica("shared-1"))  # not ready yet
    leaving = dispatcher.replicas["shared-0"]
    dispatcher.leave("shared-0")
    assert running.replica is leaving and leaving.engine.sequences == 1
    assert repr(dispatcher) == f"<Dispatcher admitted=2 queued={int(stays)} in_flight=1 leases=1>"
    if stays:
        be_ready(dispatcher, "shared-1")
        assert waiting.replica is not None and waiting.replica.name == "shared-1"
    else:
        assert waiting.refusal is not None and waiting.refusal.code == "no_replica_ready"
    dispatcher.settle(running, Outcome.COMPLETED)
    dispatcher.settle(waiting, Outcome.FAILED)
    assert leaving.engine.sequences == leaving.engine.tokens == 0 and not leaving.engine.leases
    assert repr(dispatcher) == AT_REST


def test_a_slot_of_one_that_left_is_nobodys() -> None:
    """An adapter that still runs there needs a slot of another replica."""
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0", slots=1))
    be_ready(dispatcher, "shared-0")
    dispatcher.take_residency("shared-0", adapters=ADAPTER_IDS, pinned=(), host=())
    running = dispatcher.submit(request())
    dispatcher.join(a_replica("shared-1", slots=1))
    dispatcher.leave("shared-0")
    be_ready(dispatcher, "shared-1")
    more = dispatcher.submit(request())
    assert isinstance(running, Ticket) and isinstance(more, Ticket)
    assert more.replica is dispatcher.replicas["shared-1"]
    dispatcher.settle(running, Outcome.COMPLETED)
    assert list(dispatcher.replicas["shared-1"].engine.leases) == ["a-support@1"]
    dispatcher.settle(more, Outcome.COMPLETED)
    assert repr(dispatcher) == AT_REST


def test_where_the_last_one_that_is_trusted_leaves_the_others_are_asked() -> None:
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0"), a_replica("shared-1", width=1))
    for name in list(dispatcher.replicas):
        be_ready(dispatcher, name)
    broken = dispatcher.replicas["shared-0"]
    for _ in range(3):
        broken.engine.health.failed(1000.0, broken.engine.health.began(1000.0), "it failed")
    dispatcher.sweep()
    assert not broken.engine.trusted
    running, waiting = (dispatcher.submit(request(arrived_s=1000.0)) for _ in range(2))
    assert isinstance(running, Ticket) and isinstance(waiting, Ticket) and waiting.replica is None
    dispatcher.leave("shared-1")
    assert waiting.replica is broken
    for ticket in (running, waiting):
        dispatcher.settle(ticket, Outcome.COMPLETED)
    assert repr(dispatcher) == AT_REST


def test_what_is_told_of_one_that_has_left_changes_nothing() -> None:
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0"))
    left = dispatcher.replicas["shared-0"]
    dispatcher.leave("shared-0")
    be_ready(dispatcher, "shared-0")
    dispatcher.note_gap("shared-0", 1.0)
    assert not left.ready and not dispatcher.report().pools[0].replicas


def test_leaving_takes_no_cap_with_it() -> None:
    dispatcher = dispatcher_of(FakeClock(), a_replica("shared-0"), max_concurrency=1)
    be_ready(dispatcher, "shared-0")
    ticket = dispatcher.submit(request())
    dispatcher.join(a_replica("shared-1"))
    dispatcher.leave("shared-0")
    refused = dispatcher.submit(request())
    assert isinstance(refused, Rejection) and refused.cap is Cap.CONCURRENCY, "the first one still runs"
    assert isinstance(ticket, Ticket)
    dispatcher.settle(ticket, Outcome.COMPLETED)
    assert isinstance(dispatcher.submit(request()), Ticket)
