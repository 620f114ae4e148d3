"""What the scheduler promises, whatever comes: fair shares, no starving, slots kept, everything back."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.current import CurrentFleet
from fleet.types import (
    Adapter,
    Band,
    BaseModel,
    Caps,
    Fleet,
    GatewaySettings,
    Pool,
    SchedulerSettings,
    Strategy,
    Tenant,
)
from routing.errors import Unavailable
from routing.scheduling import locality
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.fairness import cost
from routing.scheduling.state import declared_replicas
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Request, Target
from tests.fakes import FakeClock

AT_REST = "<Dispatcher admitted=0 queued=0 in_flight=0 leases=0>"
NEUTRAL = {"aging_tokens_per_s": 0.0, "locality_bonus_tokens": 0.0}
WIDE = Caps(max_concurrency=10**6, max_queued=10**6, queue_timeout_s=3600.0)


@pytest.fixture(scope="module", autouse=True)
def shares_are_not_bent() -> Iterator[None]:
    """Leave out what is meant to bend the shares: they are promised without it, and without `NEUTRAL`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locality, "READ_WAIT_S", 0.0)
        yield


class Fair:
    """One pool and one adapter for each tenant, unless they share; everything is ready."""

    def __init__(
        self,
        weights: dict[str, float],
        *,
        replicas: int = 1,
        slots: int = 64,
        width: int = 4,
        bands: dict[str, Band] | None = None,
        **scheduler: float,
    ) -> None:
        base = BaseModel("base", "/models/base", max_loras=slots, max_num_seqs=width, max_cpu_loras=slots)
        tenants = {
            name: Tenant(
                name,
                frozenset(),
                {"m": name},
                band=(bands or {}).get(name, Band.STANDARD),
                weight=weight,
                caps=WIDE,
            )
            for name, weight in weights.items()
        }
        pool = Pool("pool", Strategy.MULTI_LORA, ("base",), replicas, (), tuple(tenants))
        chosen = SchedulerSettings(**{**NEUTRAL, **scheduler})  # type: ignore[arg-type]
        fleet = Fleet(
            {"base": base},
            {name: Adapter(name, f"/adapters/{name}", "base") for name in tenants},
            tenants,
            {"pool": pool},
            GatewaySettings(scheduler=chosen),
        )
        self.clock = FakeClock()
        self.dispatcher = Dispatcher(CurrentFleet(fleet), declared_replicas(fleet), clock=self.clock)
        self.service: Counter[str] = Counter()  # price of what was granted, as estimated
        self.of_users: Counter[str] = Counter()  # the same, by user
        self.running: list[Ticket] = []
        self.ids = [f"{name}@1" for name in tenants]
        for name in self.dispatcher.replicas:
            self.bring_up(name)

    def bring_up(self, replica: str) -> None:
        self.dispatcher.take_residency(replica, adapters=self.ids, pinned=(), host=())
        self.dispatcher.set_ready(replica, True)

    def submit(self, tenant: str, prompt_tokens: int = 100, user: str = "") -> Ticket:
        target = Target(tenant, "m", tenant, "base", "pool", 1, f"{tenant}@1")
        asked = Request(f"{tenant}-{self.clock.now}", target, 1, prompt_tokens, self.clock.now)
        ticket = self.dispatcher.submit(replace(asked, max_completion_tokens=1, user=user))
        assert isinstance(ticket, Ticket)
        ticket.when_decided(lambda: self._decided(ticket))
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """Settle a running ticket; it used exactly what was expected."""
        self.running.remove(ticket)
        prompt = ticket.request.prompt_tokens
        self.dispatcher.settle(ticket, Outcome.COMPLETED, prompt_tokens=prompt, completion_tokens=1)

    def _decided(self, ticket: Ticket) -> None:
        if ticket.replica is not None:
            self.running.append(ticket)
            self.service[ticket.request.target.tenant] += int(ticket.charged_tokens)
            self.of_users[ticket.request.user] += int(ticket.charged_tokens)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.floats(0.5, 4.0), min_size=2, max_size=5),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_tenants_that_always_wait_get_service_by_weight(
    seed: int, weights: list[float], replicas: int, width: int
) -> None:
    """|Si/wi - Sj/wj| <= li/wi + lj/wj, l the dearest request (Goyal et al. 1996, theorem 1)."""
    chance = random.Random(seed)
    by_name = {f"t{i}": weight for i, weight in enumerate(weights)}
    fair = Fair(by_name, replicas=replicas, width=width)
    blocker = [fair.submit("t0") for _ in range(replicas * width)]  # the contest begins when all are there
    dearest = cost(400, 1)
    for _ in range(150):
        for name in by_name:
            fair.submit(name, chance.randint(1, 400))
    for ticket in blocker:
        fair.finish(ticket)
    fair.service.clear()
    for _ in range(100):
        fair.clock.now += chance.random()
        fair.finish(chance.choice(fair.running))
    for one, w in by_name.items():
        for other, v in by_name.items():
            gap = abs(fair.service[one] / w - fair.service[other] / v)
            assert gap <= 2 * (dearest / w + dearest / v), "once for either end of the interval"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 3), st.integers(1, 4))
def test_users_of_a_tenant_that_always_wait_get_service_alike(
    seed: int, users: int, replicas: int, width: int
) -> None:
    """|Si - Sj| <= li + lj, l the dearest request: the bound between tenants, one level down."""
    chance = random.Random(seed)
    names = [f"u{number}" for number in range(users)]
    fair = Fair({"a": 1.0, "b": 1.0}, replicas=replicas, width=width)
    blocker = [fair.submit("a") for _ in range(replicas * width)]
    for name in names:  # one after the other, not by turns
        for _ in range(100):
            fair.submit("a", chance.randint(1, 400), name)
    for ticket in blocker:
        fair.finish(ticket)
    fair.of_users.clear()
    for _ in range(60):
        fair.clock.now += chance.random()
        fair.finish(chance.choice(fair.running))
    served = [fair.of_users[name] for name in names]
    assert max(served) - min(served) <= 2 * 2 * cost(400, 1), "once for either end of the interval"
    while fair.running:
        fair.finish(fair.running[0])
    assert repr(fair.dispatcher) == AT_REST
    assert all(group.backlog.users("a") == 0 for group in fair.dispatcher.groups.values())


@pytest.mark.parametrize("aging", [0.0, 500.0])
def test_a_user_with_one_request_does_not_wait_for_another_users_five_hundred(aging: float) -> None:
    fair = Fair({"a": 1.0}, width=1, aging_tokens_per_s=aging)
    for _ in range(500):
        fair.submit("a", user="batch")
    fair.clock.now += 60.0
    asked = fair.submit("a", user="person")
    for _ in range(2):
        fair.finish(fair.running[0])
    assert asked.replica is not None
    decision = fair.dispatcher.report().decisions[0]
    assert decision.request_id == asked.request.id and decision.reason.endswith(", its user's turn")
    while fair.running:
        fair.finish(fair.running[0])
    assert repr(fair.dispatcher) == AT_REST


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_who_leaves_and_comes_back_gains_nothing_over_a_user_that_waits(seed: int, width: int) -> None:
    chance = random.Random(seed)
    fair = Fair({"a": 1.0}, width=width)
    for _ in range(300):
        fair.submit("a", 100, "steady")
    fair.submit("a", 100, "fickle")
    fair.of_users.clear()
    ended = 0
    while fair.dispatcher.groups["pool", "base"].backlog.count("a") > 10:
        ticket = chance.choice(fair.running)
        fair.finish(ticket)
        ended += 1
        if ticket.request.user == "fickle":
            fair.submit("a", chance.randint(1, 400), "fickle")
    assert fair.of_users["fickle"] <= fair.of_users["steady"] + 2 * cost(400, 1) + 2 * cost(100, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 2), st.sampled_from([0.0, 500.0]))
def test_nobody_starves_however_few_slots_there_are(
    seed: int, slots: int, replicas: int, aging: float
) -> None:
    """Eight adapters that always have something waiting: each is served again within a bounded time."""
    chance = random.Random(seed)
    names = {f"t{i}": 1.0 for i in range(8)}
    fair = Fair(names, replicas=replicas, slots=slots, width=4, aging_tokens_per_s=aging, slot_wait_s=5.0)
    last = dict.fromkeys(names, 0.0)
    for step in range(600):
        fair.clock.now += 0.25
        for name in names:
            if fair.dispatcher.groups["pool", "base"].backlog.count(name) < 3:
                fair.submit(name, chance.randint(1, 400))
        if fair.running:
            done = chance.choice(fair.running)
            fair.finish(done)
        fair.dispatcher.sweep()
        for ticket in fair.running:
            last[ticket.request.target.tenant] = step * 0.25
    served = [name for name in names if last[name] > 75.0]
    assert len(served) == 8, f"not served in the second half: {sorted(names.keys() - set(served))}"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_whatever_comes_goes_or_breaks_slots_are_kept_and_all_comes_back(
    seed: int, slots: int, replicas: int, width: int
) -> None:
    chance = random.Random(seed)
    names = {f"t{i}": chance.choice([0.5, 1.0, 2.0]) for i in range(6)}
    bands = {name: chance.choice(list(Band)) for name in names}
    fair = Fair(names, replicas=replicas, slots=slots, width=width, bands=bands, slot_wait_s=2.0)
    alive: list[Ticket] = []
    for _ in range(200):
        fair.clock.now += 0.3 * chance.random()
        _event(fair, alive, list(names), chance)
        for engine in fair.dispatcher.groups["pool", "base"].engines:
            assert len(engine.leases) <= engine.slots
            assert 0 <= engine.sequences <= engine.max_sequences
            assert sum(lease.sequences for lease in engine.leases.values()) == engine.sequences
    for ticket in alive:
        fair.dispatcher.settle(ticket, Outcome.CANCELLED)
    assert repr(fair.dispatcher) == AT_REST
    report = fair.dispatcher.report()
    assert not report.pools[0].tenants and not report.pools[0].waiting
    floods = fair.dispatcher.groups["pool", "base"].floods
    assert not floods.leased and not floods.running
    assert all(r.tokens == 0 and r.slot_drains_for is None for r in report.pools[0].replicas)


def _event(fair: Fair, alive: list[Ticket], names: list[str], chance: random.Random) -> None:
    """Arrive, end, leave, or lose or regain a replica."""
    dispatcher = fair.dispatcher
    kinds = ["arrive"] * 6 + ["end"] * 4 + ["leave", "break", "lose", "regain", "sweep"]
    match chance.choice(kinds):
        case "arrive":
            alive.append(fair.submit(chance.choice(names), chance.randint(1, 400)))
        case "end" | "leave" as how if alive:
            ticket = alive.pop(chance.randrange(len(alive)))
            outcome = Outcome.COMPLETED if how == "end" and ticket.replica else Outcome.CANCELLED
            dispatcher.settle(ticket, outcome, prompt_tokens=10, completion_tokens=10)
        case "break" if running := [ticket for ticket in alive if ticket.replica is not None]:
            ticket = chance.choice(running)
            try:
                dispatcher.requeue(ticket)
            except Unavailable:
                alive.remove(ticket)
                dispatcher.settle(ticket, Outcome.FAILED)
        case "lose":
            dispatcher.set_ready(chance.choice(list(dispatcher.replicas)), False)
        case "regain":
            fair.bring_up(chance.choice(list(dispatcher.replicas)))
        case "sweep":
            dispatcher.sweep()
    for ticket in [t for t in alive if t.refusal is not None]:
        alive.remove(ticket)
        dispatcher.settle(ticket, Outcome.FAILED)
