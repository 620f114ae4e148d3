"""Replicas join, move, vanish and leave while requests run: is anything left of one that is gone?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.health import EngineHealth, EngineState
from engines.protocol import EngineOrder
from engines.residency import DesiredAdapters, Residency
from fleet.current import CurrentFleet
from fleet.types import BaseModel, Fleet
from routing.catalog.directory import Directory
from routing.errors import Conflict, RequestError
from routing.lifecycle import RollingRestarts
from routing.replicas import prober
from routing.replicas.client import ReplicaClient
from routing.replicas.discovery import POLL_S, Addresses
from routing.replicas.registry import ReplicaRegistry
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Engine, Replica
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target
from tests.fakes import ReadyLifecycle, adapter_id, small_fleet
from tests.unit.routing.replicas.virtual import run

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"
NAMES = ("shared-0", "shared-1", "shared-2")
PLACES = tuple(f"http://10.0.0.{number}:80" for number in range(6))
A_WHILE_S = 3.0  # some probes come by


@dataclass(eq=False)
class Host:
    """The engine at one address."""

    ready: bool = True
    stopped: bool = False
    starts: int = 1
    desired: DesiredAdapters = field(default_factory=lambda: DesiredAdapters(0, ()))

    def follow(self, order: EngineOrder) -> None:
        """Do as told; a restart takes some seconds."""
        self.stopped = order in (EngineOrder.STOP, EngineOrder.LEAVE)
        self.ready = order is EngineOrder.START
        if order is EngineOrder.RESTART:
            asyncio.get_running_loop().call_later(5.0, self.come_back)

    def come_back(self) -> None:
        self.ready, self.starts = not self.stopped, self.starts + 1

    @property
    def adapters(self) -> set[str]:
        return {adapter.id for adapter in self.desired.adapters}


class FakeClient(ReplicaClient):
    """Speaks to a host of this process."""

    def __init__(
        self, world: World, name: str, url: str, token: str, *, base_model: str | None = None
    ) -> None:
        super().__init__(name, url, token, base_model=base_model)
        self.base_model = base_model
        self.host = world.hosts[url]
        self.closed = False
        world.made.append(self)

    async def health(self) -> EngineHealth | None:
        await self._travel()
        if self.host.stopped:
            return EngineHealth(EngineState.STOPPED, starts=self.host.starts)
        return EngineHealth(EngineState.READY, starts=self.host.starts) if self.host.ready else None

    async def order(
        self,
        order: EngineOrder,
        model: BaseModel | None = None,
        *,
        instead_of: str | None = None,
        files_at: str = "",
    ) -> EngineHealth:
        await self._travel()
        before = EngineHealth(EngineState.READY, starts=self.host.starts)
        self.host.follow(order)
        return before

    async def residency(self) -> Residency:
        await self._travel()
        return Residency("worker", 1, self.host.desired.revision, host=tuple(self.host.adapters))

    async def desire(self, desired: DesiredAdapters) -> Residency:
        await self._travel()
        self.host.desired = desired
        return await self.residency()

    def close(self) -> None:
        self.closed = True
        super().close()

    async def _travel(self) -> None:
        assert not self.closed, "a closed client is not used"
        await asyncio.sleep(0.01)


class FakeDiscovery:
    """Says what the test says."""

    is_static = False
    here: tuple[str, ...] = ()  # replicas whose engines start with the gateway

    def is_started_here(self, replica: str) -> bool:
        return replica in self.here

    def __init__(self) -> None:
        self.said = asyncio.Queue[Addresses]()

    async def watch(self) -> AsyncIterator[Addresses]:
        while True:
            yield await self.said.get()
            await asyncio.sleep(POLL_S)  # as of a file


class Events:
    """Keeps no event."""

    async def record(self, subject: str, text: str) -> None:
        pass


@dataclass(eq=False)
class Trip:
    """A request on its way, as a flight carries it."""

    ticket: Ticket
    sent_s: float  # from its grant
    client: ReplicaClient | None = None
    begun: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: str = ""
    replicas: list[Replica] = field(default_factory=list)


class World:
    """A registry over a real dispatcher and lifecycle, and everything that can happen to it."""

    def __init__(self, *, slots: int = 2, is_static: bool = False) -> None:
        fleet = CurrentFleet(small_fleet(slots=slots))
        self.hosts = {url: Host() for url in PLACES}
        self.made: list[FakeClient] = []
        self.addresses: dict[str, str] = {}
        self.clients: dict[Replica, ReplicaClient] = {}
        self.trips: set[Trip] = set()
        self.running: set[asyncio.Task[None]] = set()
        self.directory = Directory(fleet)
        self.dispatcher = Dispatcher(fleet, clock=asyncio.get_running_loop().time)
        self.lifecycle = ReadyLifecycle(fleet, self.directory, self.dispatcher, self.clients)
        self.lifecycle.is_reconciled = True
        self.discovery = FakeDiscovery()
        self.discovery.is_static = is_static
        self.registry = ReplicaRegistry(
            self.discovery, self.dispatcher, self.lifecycle, self, self.clients, "token"
        )
        self.restarts = RollingRestarts(
            fleet, self.dispatcher, self.clients, self.lifecycle.engines, cast(Any, Events())
        )

    # -- what happens --------------------------------------------------------------------------------------

    def join(self, name: str = "shared-0", *, width: int = 4, host: str = "") -> Replica:
        replica = Replica(name, "shared", Engine(name, "base", 2, width, max_resident=4), host=host)
        self.registry.join(replica)
        return replica

    def say(self, **urls: str | None) -> None:
        """Have discovery say where replicas are; `shared_0` is `shared-0`, None takes an address away."""
        for key, url in urls.items():
            self.addresses.pop(key.replace("_", "-"), None)
            if url is not None:
                self.addresses[key.replace("_", "-")] = url
        self.discovery.said.put_nowait(dict(self.addresses))

    def ask(self, *, begins_s: float, ends_s: float, sent_s: float = 0.0) -> Trip | None:
        """Send a request; it is sent, begun and answered each after a while. None: it is refused."""
        target = Target("a", "support", "a-support", "base", "shared", 1, adapter_id("a-support"))
        now = asyncio.get_running_loop().time()
        try:
            ticket = self.dispatcher.submit(Request("r", target, 1, 10, now))
        except RequestError:
            return None
        if not isinstance(ticket, Ticket):
            return None
        trip = Trip(ticket, sent_s)
        self.trips.add(trip)
        task = asyncio.ensure_future(self._carry(trip, begins_s, ends_s))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return trip

    async def _carry(self, trip: Trip, begins_s: float, ends_s: float) -> None:
        outcome = Outcome.COMPLETED
        try:
            while await self._is_left(trip, begins_s):
                self.dispatcher.requeue(trip.ticket)
            await asyncio.sleep(ends_s)
        except RequestError as error:
            outcome, trip.outcome = Outcome.FAILED, error.code
        self.dispatcher.settle(trip.ticket, outcome)
        if isinstance(trip.client, FakeClient):
            assert not trip.client.closed, "its client was there to the end"
            trip.client._end_use()
        trip.outcome = trip.outcome or "completed"
        self.trips.discard(trip)

    async def _is_left(self, trip: Trip, begins_s: float) -> bool:
        """Ask the engine that was granted; return whether it was left before it began to answer."""
        replica = await trip.ticket.granted()
        if trip.sent_s:
            await asyncio.sleep(trip.sent_s)
        trip.replicas.append(replica)
        client = self.clients[replica]
        assert isinstance(client, FakeClient) and not client.closed
        assert trip.ticket.request.target.adapter_id in client.host.adapters, (
            "it was told before it was asked"
        )
        trip.client, trip.begun = client, False
        client._begin_use()
        trip.moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(begins_s):
                await trip.moved.wait()
        if trip.moved.is_set():
            client._end_use()
            trip.client = None
            return True
        trip.begun = True
        return False

    def move_on(self, client: ReplicaClient) -> None:
        """Do as `RunningFlights`."""
        for trip in self.trips:
            if trip.client is client and not trip.begun and self.dispatcher.has_alternative(trip.ticket):
                trip.moved.set()

    # -- in any order --------------------------------------------------------------------------------------

    async def step(self, chance: random.Random) -> None:
        """Have something happen."""
        here = list(self.dispatcher.replicas)
        away = sorted(set(NAMES) - set(here))
        name, url = chance.choice(NAMES), chance.choice(PLACES)
        events: list[Callable[[], object]] = [
            lambda: self.ask(begins_s=60 * chance.random() ** 2, ends_s=20 * chance.random()),
            lambda: self.say(**{name: url}),
            lambda: self.say(**{name: url if chance.random() < 0.7 else None}),
            lambda: setattr(self.hosts[url], "ready", chance.random() < 0.7),
        ]
        events.append(self.restart)
        if away:
            events += [lambda: self.join(chance.choice(away))] * 2
        if here:
            events.append(lambda: self.registry.leave(chance.choice(here)))
        chance.choice([events[0]] * 4 + events)()
        if chance.random() < 0.6:
            await asyncio.sleep(4 * chance.random())
        self.dispatcher.sweep()
        for replica in self.dispatcher.replicas.values():
            assert not replica.ready or replica in self.clients

    def restart(self) -> None:
        """Restart the pool, where it is not being restarted."""
        with contextlib.suppress(Conflict):
            self.restarts.begin("shared", replica=None, drain_s=30.0)

    async def end(self) -> None:
        """Let all requests end and all replicas leave; nothing is left of them."""
        for host in self.hosts.values():
            host.ready = True
        while self.running:
            await asyncio.sleep(1.0)
            self.dispatcher.sweep()
        await self.restarts.stop()
        assert not any(replica.restarting for replica in self.dispatcher.replicas.values())
        for name in list(self.dispatcher.replicas):
            self.registry.leave(name)
        await asyncio.sleep(A_WHILE_S)
        assert repr(self.dispatcher) == AT_REST
        assert not self.clients and not self.lifecycle.engines._kept
        assert not self.registry._probers and not self.registry._leaving
        assert all(client.closed and not client.in_use for client in self.made)
        assert asyncio.all_tasks() == {asyncio.current_task(), self.registry._following}
        await self.stop()

    async def stop(self) -> None:
        await self.registry.stop()
        await self.registry.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(client.closed for client in self.made)


@contextlib.asynccontextmanager
async def a_world(**options: bool) -> AsyncIterator[World]:
    """A world whose registry follows discovery, with one replica to begin with if `joined`."""
    joined = options.pop("joined", True)
    world = World(**options)
    with patch.object(prober, "ReplicaClient", partial(FakeClient, world)):
        await world.registry.start(Fleet({}, {}, {}, {}))
        if joined:
            world.join()
            world.say(shared_0=PLACES[0], shared_1=PLACES[1])
            await asyncio.sleep(A_WHILE_S)
        yield world


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), here=st.booleans())
def test_whoever_comes_moves_restarts_and_goes_nothing_is_left_of_it(seed: int, here: bool) -> None:
    async def play() -> None:
        chance = random.Random(seed)
        async with a_world(joined=False) as world:
            world.discovery.here = NAMES if here else ()
            for _ in range(100):
                await world.step(chance)
            await world.end()

    logging.getLogger("tenantry").setLevel(logging.ERROR)
    try:
        run(play())
    finally:
        logging.getLogger("tenantry").setLevel(logging.NOTSET)


# -- it joins ----------------------------------------------------------------------------------------------


def test_a_replica_gets_requests_once_it_has_confirmed_its_adapters() -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            replica = world.join()
            trip = world.ask(begins_s=0.1, ends_s=0.1)
            assert trip is not None
            world.say(shared_0=PLACES[0])
            await asyncio.sleep(A_WHILE_S)
            assert trip.outcome == "completed" and trip.replicas == [replica]
            assert adapter_id("a-support") in world.hosts[PLACES[0]].adapters
            await world.end()

    run(play())


def test_a_look_that_fails_is_logged_once_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with a_world() as world:
            replica, failing = world.dispatcher.replicas["shared-0"], OSError("the disk is full")
            with patch.object(world.lifecycle, "sync", side_effect=failing):
                await asyncio.sleep(A_WHILE_S)
                assert replica.ready
                world.hosts[PLACES[0]].ready = False
                await asyncio.sleep(A_WHILE_S)
                assert not replica.ready, "it is still probed"
                world.hosts[PLACES[0]].ready = True
                await asyncio.sleep(A_WHILE_S)
            await asyncio.sleep(A_WHILE_S)
            assert replica.ready
            await world.end()

    run(play())
    told = [record.getMessage() for record in caplog.records if "looked at" in record.getMessage()]
    assert told == ["replica shared-0 was not looked at"] * 2, "once before it was away, and once after"


def test_a_replica_whose_address_was_known_before_it_joined_is_found_there() -> None:
    async def play() -> None:
        async with a_world() as world:
            later = world.join("shared-1")
            await asyncio.sleep(A_WHILE_S)
            assert later.ready and world.clients[later].url == PLACES[1]
            await world.end()

    run(play())


def test_replicas_of_one_host_have_its_address_and_name_their_base_models() -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            names = ("shared-0.one", "shared-0.two")
            for name in names:
                world.join(name, host="shared-0")
            world.say(shared_0=PLACES[0])
            await asyncio.sleep(A_WHILE_S)
            found = {client.name: (client.url, client.base_model) for client in world.made}
            assert found == dict.fromkeys(names, (PLACES[0], "base"))
            assert all(replica.ready for replica in world.dispatcher.replicas.values())
            await world.end()

    run(play())


def test_a_model_that_is_on_disk_is_not_started_because_it_is_seen_there() -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            world.hosts[PLACES[0]].follow(EngineOrder.STOP)
            replica = world.join("shared-0.base", host="shared-0")
            world.say(shared_0=PLACES[0])
            await asyncio.sleep(A_WHILE_S)
            assert not replica.ready and world.hosts[PLACES[0]].stopped
            assert replica.engine.told is not None and replica.engine.told.state is EngineState.STOPPED
            await world.end()

    run(play())


def test_an_engine_that_has_stopped_holds_no_adapter_and_one_that_is_silent_may() -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            world.join("shared-0.base", host="shared-0")
            world.say(shared_0=PLACES[0])
            await asyncio.sleep(A_WHILE_S)
            held = adapter_id("a-support")
            assert world.lifecycle.engines.may_hold(held)
            world.hosts[PLACES[0]].ready = False
            await asyncio.sleep(A_WHILE_S)
            assert world.lifecycle.engines.may_hold(held)
            world.hosts[PLACES[0]].follow(EngineOrder.STOP)
            await asyncio.sleep(A_WHILE_S)
            assert not world.lifecycle.engines.may_hold(held)
            world.hosts[PLACES[0]].follow(EngineOrder.START)
            world.lifecycle.engines.look_at("shared-0.base")  # who wakes one does
            await asyncio.sleep(A_WHILE_S)
            assert world.lifecycle.engines.may_hold(held)
            await world.end()

    run(play())


def test_a_restart_leaves_alone_what_is_on_disk() -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            for name, place in (("shared-0", PLACES[0]), ("shared-1", PLACES[1])):
                world.join(f"{name}.base", host=name)
                world.say(**{name.replace("-", "_"): place})
            await asyncio.sleep(A_WHILE_S)
            world.hosts[PLACES[0]].follow(EngineOrder.STOP)
            await asyncio.sleep(A_WHILE_S)
            restart = world.restarts.begin("shared", replica=None, drain_s=5.0)
            assert [step.replica for step in restart.steps] == ["shared-1.base"]
            await asyncio.sleep(20)
            assert [world.hosts[place].starts for place in PLACES[:2]] == [1, 2]
            await world.end()

    run(play())


def test_the_engine_of_each_model_of_a_host_that_starts_here_is_stopped_when_it_leaves() -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            world.discovery.here = ("shared-0",)
            world.join("shared-0.base", host="shared-0")
            world.say(shared_0=PLACES[0])
            await asyncio.sleep(A_WHILE_S)
            world.registry.leave("shared-0.base")
            await asyncio.sleep(A_WHILE_S)
            assert world.hosts[PLACES[0]].stopped
            await world.end()

    run(play())


@pytest.mark.parametrize(
    ("name", "pool", "words"),
    [("shared-0", "shared", "there is a replica"), ("new", "nowhere", "has no base model")],
    ids=["its name is taken", "no such pool"],
)
def test_a_replica_that_may_not_join_leaves_no_trace(name: str, pool: str, words: str) -> None:
    async def play() -> None:
        async with a_world() as world:
            tasks, made = asyncio.all_tasks(), len(world.made)
            with pytest.raises(ValueError, match=words):
                world.registry.join(Replica(name, pool, Engine(name, "base", 2, 4)))
            assert (asyncio.all_tasks(), len(world.made)) == (tasks, made)
            assert list(world.lifecycle.engines._kept) == list(world.dispatcher.replicas) == ["shared-0"]
            await world.end()

    run(play())


@pytest.mark.parametrize(
    ("addresses", "error", "words"),
    [
        ({"shared-0": PLACES[0]}, RuntimeError, "no address is known for shared-1"),
        ({"shared-0": PLACES[0], "shared-1": "10.0.0.1"}, ValueError, "not the address of a replica"),
    ],
    ids=["nowhere", "wrong address"],
)
def test_a_replica_that_cannot_be_reached_may_not_join(
    addresses: Addresses, error: type[Exception], words: str
) -> None:
    async def play() -> None:
        async with a_world(joined=False) as world:
            world.discovery.is_static = True
            world.registry._take(addresses)
            world.join()
            with pytest.raises(error, match=words):
                world.join("shared-1")
            assert list(world.dispatcher.replicas) == list(world.lifecycle.engines._kept) == ["shared-0"]
            await world.end()

    run(play())


# -- it leaves ---------------------------------------------------------------------------------------------


def test_what_a_leaving_replica_answers_ends_there_and_its_client_stays_so_long() -> None:
    async def play() -> None:
        async with a_world() as world:
            trip = world.ask(begins_s=0.1, ends_s=300.0)
            await asyncio.sleep(1.0)
            world.registry.leave("shared-0")
            world.join("shared-1")
            await asyncio.sleep(200.0)
            assert len(world.clients) == 2 and trip in world.trips
            await asyncio.sleep(110.0)
            assert trip is not None and (trip.outcome, len(trip.replicas)) == ("completed", 1)
            assert len(world.clients) == 1
            await world.end()

    run(play())


def test_what_a_leaving_replica_has_not_begun_is_given_to_another_after_a_while() -> None:
    async def play() -> None:
        async with a_world() as world:
            trip = world.ask(begins_s=200.0, ends_s=1.0)
            await asyncio.sleep(1.0)
            world.registry.leave("shared-0")
            world.join("shared-1")
            await asyncio.sleep(prober.LEAVE_S - A_WHILE_S)
            assert trip is not None and len(trip.replicas) == 1
            await asyncio.sleep(2 * A_WHILE_S)
            assert [replica.name for replica in trip.replicas] == ["shared-0", "shared-1"]
            await world.end()

    run(play())


def test_what_a_leaving_replica_has_not_begun_stays_there_where_no_other_can_take_it() -> None:
    async def play() -> None:
        async with a_world() as world:
            trip = world.ask(begins_s=200.0, ends_s=1.0)
            await asyncio.sleep(1.0)
            world.registry.leave("shared-0")
            await asyncio.sleep(210.0)
            assert trip is not None and (trip.outcome, len(trip.replicas)) == ("completed", 1)
            await world.end()

    run(play())


def test_what_hangs_on_a_leaving_replica_is_given_to_another_at_once() -> None:
    async def play() -> None:
        async with a_world() as world:
            world.join("shared-1", width=60)  # it starts slowly, with a part of that
            await asyncio.sleep(A_WHILE_S)
            trips = [world.ask(begins_s=200.0, ends_s=1.0) for _ in range(4)]
            await asyncio.sleep(0.5)
            world.hosts[PLACES[0]].ready = False
            world.registry.leave("shared-0")
            await asyncio.sleep(A_WHILE_S)
            for trip in trips:
                assert trip is not None and trip.replicas[-1].name == "shared-1"
            await world.end()

    run(play())


def test_a_request_that_was_granted_just_before_its_replica_left_is_sent_there() -> None:
    async def play() -> None:
        async with a_world() as world:
            trip = world.ask(begins_s=0.1, ends_s=0.1, sent_s=0.2)
            assert trip is not None and trip.ticket.replica is not None and trip.client is None
            world.registry.leave("shared-0")
            await asyncio.sleep(A_WHILE_S)
            assert (trip.outcome, len(trip.replicas)) == ("completed", 1)
            await world.end()

    run(play())


def test_a_replica_may_join_again_while_what_it_ran_before_still_ends() -> None:
    async def play() -> None:
        async with a_world() as world:
            before = world.dispatcher.replicas["shared-0"]
            trip = world.ask(begins_s=0.1, ends_s=50.0)
            await asyncio.sleep(1.0)
            world.registry.leave("shared-0")
            again = world.join()
            await asyncio.sleep(A_WHILE_S)
            other = world.ask(begins_s=0.1, ends_s=0.1)
            assert trip is not None and other is not None
            await asyncio.sleep(1.0)
            assert (trip.replicas, other.replicas) == ([before], [again])
            assert world.clients[before] is not world.clients[again]
            await asyncio.sleep(60.0)
            assert list(world.clients) == [again] and again.ready
            await world.end()

    run(play())


def test_a_replica_that_leaves_while_it_moves_takes_both_clients_with_it() -> None:
    async def play() -> None:
        async with a_world() as world:
            world.hosts[PLACES[2]].ready = False
            world.say(shared_0=PLACES[2])
            await asyncio.sleep(A_WHILE_S)
            assert len(world.made) == 2
            world.registry.leave("shared-0")
            await asyncio.sleep(A_WHILE_S)
            assert all(client.closed for client in world.made)
            await world.end()

    run(play())


def test_nobody_leaves_twice() -> None:
    async def play() -> None:
        async with a_world() as world:
            world.registry.leave("shared-0")
            with pytest.raises(LookupError, match="there is no replica 'shared-0'"):
                world.registry.leave("shared-0")
            await world.end()

    run(play())


def test_a_gateway_that_stops_while_replicas_leave_closes_their_clients() -> None:
    async def play() -> None:
        async with a_world() as world:
            world.ask(begins_s=0.1, ends_s=300.0)
            await asyncio.sleep(1.0)
            world.registry.leave("shared-0")
            await asyncio.sleep(1.0)
            for task in world.running:
                task.cancel()
            await world.stop()
            assert not world.clients

    run(play())
