"""Who is a replica's peer? Only those of its pool that run the same base model; nobody else tells of it."""

from __future__ import annotations

import pytest

from routing.scheduling.admission import Rejection
from routing.scheduling.affinity import Affinity
from routing.scheduling.tickets import Ticket
from routing.types import Outcome
from tests.unit.routing.scheduling.whole import AT_REST, MODELS, TENANTS, Whole

each_model = pytest.mark.parametrize(
    ("model", "other"), [MODELS, MODELS[::-1]], ids=[f"of the {name}" for name in MODELS]
)


def answer_after(house: Whole, first_token_s: dict[str, float]) -> None:
    """Have requests answered for half a minute, each replica at its own pace."""
    for _ in range(60):
        tickets = [house.submit(model, tenant) for model in MODELS for tenant in TENANTS for _ in range(2)]
        began_s = house.clock.now
        for ticket in sorted(tickets, key=lambda t: first_token_s[t.replica.name if t.replica else ""]):
            assert ticket.replica is not None
            house.clock.now = began_s + first_token_s[ticket.replica.name]
            house.dispatcher.first_token(ticket)
        house.finish(*tickets)
        house.clock.now = began_s + 2.0
        house.dispatcher.sweep()


@each_model
def test_the_replica_of_a_slower_model_is_no_outlier(model: str, other: str) -> None:
    house = Whole(replicas=2)
    paces = {r.name: 1.5 if r.engine.base_model == model else 0.1 for r in house.dispatcher.replicas.values()}
    answer_after(house, paces)
    assert [(r.health.outlying, r.capacity) for r in house.of(model)] == [(False, 256), (False, 256)]


@each_model
def test_a_replica_that_is_slower_than_another_of_its_model_is_an_outlier(model: str, other: str) -> None:
    house = Whole(replicas=2)
    slow, quick = house.of(model)
    paces = dict.fromkeys((r.name for r in house.of(other)), 1.0)
    answer_after(house, {**paces, slow.name: 1.5, quick.name: 0.1})
    assert [r.capacity for r in (slow, quick, *house.of(other))] == [128, 256, 256, 256]


@each_model
@pytest.mark.parametrize("certain", [True, False], ids=["by its own sign", "by what two tenants met"])
def test_the_only_replica_of_a_model_is_asked_however_often_it_fails(
    model: str, other: str, certain: bool
) -> None:
    house = Whole()
    for tenant in TENANTS * 3:
        house.dispatcher.settle(house.submit(model, tenant), Outcome.FAILED, fault=True, certain=certain)
    ticket = house.submit(model)
    assert ticket.replica is not None, f"it waits as {ticket.waits_for}"
    house.end(ticket)


@each_model
def test_a_replica_that_fails_is_left_alone_where_its_model_has_another(model: str, other: str) -> None:
    house = Whole(replicas=2)
    broken, well = house.of(model)
    house.dispatcher.set_draining(well.name, True)
    for tenant in TENANTS * 3:
        house.dispatcher.settle(house.submit(model, tenant), Outcome.FAILED, fault=True)
    house.dispatcher.set_draining(well.name, False)
    house.dispatcher.sweep()
    tickets = [house.submit(model) for _ in range(4)]
    assert {t.replica.name for t in tickets if t.replica} == {well.name} and not broken.trusted
    house.end(*tickets)


@each_model
@pytest.mark.parametrize(("replicas", "capacity"), [(1, 256), (2, 25)], ids=["the only one", "one of two"])
def test_a_restarted_engine_starts_slowly_only_where_its_model_has_another(
    model: str, other: str, replicas: int, capacity: int
) -> None:
    house = Whole(replicas=replicas)
    restarted = house.of(model)[0]
    house.dispatcher.set_ready(restarted.name, False)
    house.clock.now += 60.0
    house.start(restarted.name, "second")
    assert restarted.capacity == capacity


@each_model
@pytest.mark.parametrize(("callers", "trusted"), [(1, False), (2, True)], ids=["one tenant", "two tenants"])
def test_one_tenants_word_is_enough_where_nobody_else_calls_the_model(
    model: str, other: str, callers: int, trusted: bool
) -> None:
    second = MODELS if callers == 2 else (other,)
    house = Whole(replicas=2, callers={"a": MODELS, "b": second})
    broken, well = house.of(model)
    house.dispatcher.set_draining(well.name, True)
    for _ in range(3):
        house.dispatcher.settle(house.submit(model), Outcome.FAILED, fault=True)
    house.dispatcher.set_draining(well.name, False)
    house.dispatcher.sweep()
    assert broken.trusted == trusted
    assert repr(house.dispatcher) == AT_REST


@each_model
@pytest.mark.parametrize("tenant", TENANTS)
def test_a_tenants_home_is_a_replica_of_the_model_it_asks_for(model: str, other: str, tenant: str) -> None:
    house = Whole(replicas=2)
    ticket = house.submit(model, tenant)
    assert ticket.picked == Affinity.HOME, "there are two of them, and a tenant has two homes"
    house.end(ticket)


@each_model
def test_load_is_compared_with_replicas_of_the_same_model(model: str, other: str) -> None:
    """A preference counts up to a quarter above the mean load: that of another model is no measure."""
    house = Whole(replicas=3, width=100)
    busy = [house.submit(other) for _ in range(300)]
    tickets = [house.submit(model) for _ in range(60)]
    by_replica = [sum(t.engine is engine for t in tickets) for engine in house.of(model)]
    assert min(by_replica) >= 10, f"its two homes are much fuller than the third: {by_replica}"
    house.end(*busy, *tickets)


@each_model
def test_a_tenant_that_waits_for_one_model_has_saved_up_nothing_of_another(model: str, other: str) -> None:
    house = Whole(width=2)
    slow = [house.submit(other, "a") for _ in range(4)]  # it waits there all the time
    served = [house.submit(model, "b") for _ in range(40)]
    for ticket in served[:20]:
        house.finish(ticket)
    late = [house.submit(model, "a") for _ in range(20)]
    for _ in range(12):
        house.finish(next(t for t in (*served, *late) if t.replica is not None and t.settled is None))
    granted = [sum(t.granted_s is not None for t in some) for some in (served[22:], late)]
    assert abs(granted[0] - granted[1]) <= 2, f"they do not take turns: {granted}"
    house.end(*slow, *served, *late)


@each_model
def test_a_flood_of_one_model_is_none_of_another(model: str, other: str) -> None:
    house = Whole(width=8)
    flood = [house.submit(other, "a") for _ in range(40)]
    flood += [house.submit(other, "b")]
    for _ in range(16):
        house.clock.now += 0.25
        house.dispatcher.sweep()
    tickets = [house.submit(model, "a") for _ in range(8)]
    assert all(t.replica is not None for t in tickets), "nobody else asks for that model"
    house.end(*flood, *tickets)


@each_model
def test_what_waits_for_one_model_makes_no_wait_for_another(model: str, other: str) -> None:
    house = Whole(width=2, ttft_slo_s=2.0)
    queue: dict[str, list[Ticket]] = {name: [house.submit(name) for _ in range(3)] for name in MODELS}
    for _ in range(12):  # each is seen to do two requests a second
        house.clock.now += 0.5
        house.dispatcher.sweep()
        for name in MODELS:
            house.finish(next(t for t in queue[name] if t.replica is not None and t.settled is None))
            more = [house.offer(name) for _ in range(8 if name == other else 1)]
            queue[name] += [t for t in more if isinstance(t, Ticket)]
    assert isinstance(house.offer(other, "a"), Rejection), "it would miss its objective there"
    ticket = house.offer(model, "a")
    assert isinstance(ticket, Ticket)
    house.end(ticket, *queue[model], *queue[other])


@each_model
def test_a_second_replica_is_asked_while_others_wait_for_another_model(model: str, other: str) -> None:
    house = Whole(replicas=2, width=2)
    crowd = [house.submit(other) for _ in range(9)]
    ticket = house.submit(model)
    hedge = house.dispatcher.hedge(ticket)
    assert hedge is not None
    house.dispatcher.settle(hedge, Outcome.CANCELLED)
    house.end(ticket, *crowd)


@each_model
def test_the_scheduler_tells_of_each_model_by_itself(model: str, other: str) -> None:
    house = Whole(width=1)
    tickets = [house.submit(model), house.submit(model), house.submit(other)]
    reports = {report.base_model: report for report in house.dispatcher.report().pools}
    assert [sum(reports[name].queued_by_band.values()) for name in (model, other)] == [1, 0]
    assert [[t.tickets for t in reports[name].tenants] for name in (model, other)] == [[2], [1]]
    assert [[r.name for r in reports[name].replicas] for name in MODELS] == [["whole-0"], ["whole-1"]]
    assert {report.name for report in reports.values()} == {"whole"}
    house.end(*tickets)
