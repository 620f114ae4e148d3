"""Who waits, where, and in what order?"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from routing.scheduling.backlog import Backlog
from routing.types import Request
from tests.unit.routing.requests import request

QUEUE = "need base"


class House:
    """A backlog of tenants `a` and `b`, whose service a test sets; all of it stands in one queue."""

    def __init__(self, *, bands: dict[str, int] | None = None, aging: float = 0.0) -> None:
        self.service = {"a": 0.0, "b": 0.0}
        self.bands = bands or {"a": 1, "b": 1}
        self.backlog = Backlog[Request](
            lambda entry: entry,
            band_rank=self.bands,
            service=self.service.__getitem__,
            aging_tokens_per_s=aging,
        )

    def push(self, *entries: Request) -> None:
        for entry in entries:
            self.backlog.push(entry, lambda: QUEUE)

    def serve(self, tenant: str, service: float) -> None:
        self.service[tenant] = service
        self.backlog.resort(tenant)

    def order(self, queue: str = QUEUE) -> list[Request]:
        return [
            entry for rank in range(3) for *_, heads in self.backlog.in_order(queue, rank) for entry in heads
        ]

    def of_models(self, *models: str, rank: int = 1) -> list[Request]:
        return [head for *_, heads in self.backlog.of_models(models, rank) for head in heads]


def test_one_flow_is_first_come_first_served() -> None:
    house = House()
    first, second = request(arrived_s=1.0), request(arrived_s=2.0)
    house.push(first, second)
    assert house.order() == [first]
    house.backlog.remove(first)
    assert house.order() == [second]


def test_who_comes_back_from_a_broken_replica_keeps_its_age_and_holds_nobody_up() -> None:
    house = House()
    later, returned = request(arrived_s=2.0), request(arrived_s=1.0, failed_on=frozenset({"shared-0"}))
    house.push(later, returned)
    assert house.order() == [returned, later]
    assert house.backlog.has_flow(later)
    assert not house.backlog.has_flow(request(failed_on=frozenset({"shared-1"})))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["", "u", "v"]), st.booleans()), min_size=2, max_size=30
    )
)
def test_in_whatever_order_requests_come_back_the_oldest_of_a_flow_and_of_a_user_is_first(
    steps: list[tuple[int, str, bool]],
) -> None:
    house, waiting = House(aging=1.0), list[Request]()
    for number, (arrived_s, user, leaves) in enumerate(steps):
        entry = replace(request(arrived_s=float(arrived_s)), id=f"{number}", user=user)
        house.push(entry)
        waiting.append(entry)
        if leaves:
            (head,) = house.order()
            waiting.remove(head)
            house.backlog.remove(head)
        oldest: dict[str, float] = {}
        for each in waiting:
            oldest[each.user] = min(each.arrived_s, oldest.get(each.user, each.arrived_s))
        for head in house.order():
            assert head.arrived_s == oldest[head.user]
        heads = [each.arrived_s for each in house.backlog.heads("a-support@1")]
        assert heads == ([min(oldest.values())] if oldest else [])
        assert [each.arrived_s for each in house.backlog] == sorted(each.arrived_s for each in waiting)


def test_a_higher_band_comes_first_then_the_least_served_then_by_declaration() -> None:
    low, high = request("a", arrived_s=1.0), request("b", arrived_s=2.0)
    house = House(bands={"a": 2, "b": 1})
    house.push(low, high)
    house.serve("b", 9.0)
    assert house.order() == [high, low]
    assert (house.backlog.in_band(1), house.backlog.in_band(2)) == (1, 1)

    house = House()
    house.push(low, high)
    house.serve("a", 9.0)
    assert house.order() == [high, low]
    house.serve("a", 0.0)
    assert house.order() == [low, high]


def test_the_oldest_of_a_tenants_flows_goes_first() -> None:
    house = House()
    newer, older = request("a", "support", arrived_s=2.0), request("a", "sales", arrived_s=1.0)
    house.push(newer, older)
    assert house.order() == [older, newer]


def test_waiting_makes_up_for_service_at_the_rate_of_aging() -> None:
    house = House(aging=10.0)
    old, new = request("a", arrived_s=0.0), request("b", arrived_s=5.0)
    house.push(old, new)
    house.serve("a", 49.0)
    assert house.order() == [old, new]
    house.serve("a", 51.0)
    assert house.order() == [new, old]


def test_models_with_an_engine_to_themselves_are_put_in_order_when_asked_for() -> None:
    house = House(aging=10.0)
    first, second, other, elsewhere = (
        request("a", arrived_s=1.0),
        request("a", "sales", arrived_s=0.0),
        request("b", arrived_s=2.0),
        request("b", "sales"),
    )
    house.push(first, second, other, elsewhere)
    models = ("a-support@1", "a-sales@1", "b-support@1", "c-support@1")
    assert house.of_models(*models) == [second, first, other]
    house.serve("a", 15.0)
    assert house.of_models(*models) == [second, other, first], "15 tokens are a second and a half"
    assert house.of_models(*models, rank=2) == []


def test_a_lane_moves_with_everything_in_it() -> None:
    house = House()
    entry, other = request("a"), request("b")
    house.push(entry, other)
    house.backlog.move("a-support@1", "hold base")
    assert house.order() == [other]
    assert house.order("hold base") == [entry]
    house.backlog.remove(entry)
    assert house.order("hold base") == [] and not house.backlog.has_queue("hold base")
    house.backlog.move("a-support@1", QUEUE)
    assert house.order() == [other], "nothing waits in it"


def test_an_entry_is_removed_from_anywhere_and_only_once() -> None:
    house = House()
    entries = [request(arrived_s=float(i)) for i in range(3)]
    house.push(*entries)
    assert house.backlog.remove(entries[1])
    assert not house.backlog.remove(entries[1])
    assert list(house.backlog) == [entries[0], entries[2]]
    assert len(house.backlog) == house.backlog.count("a") == 2
    assert list(house.backlog.heads("a-support@1")) == [entries[0]]


def test_flows_and_tenants_of_a_queue_are_counted() -> None:
    house = House()
    entries = [request("a", "x"), request("a", "y"), request("b", "x")]
    house.push(*entries)
    rank = house.bands["a"]
    assert house.backlog.flows_in(QUEUE, rank) == 3 and house.backlog.tenants_in(QUEUE, rank) == 2
    assert house.backlog.flows_in(QUEUE, rank, "a") == 2 and house.backlog.flows_in(QUEUE, rank, "c") == 0
    house.backlog.move("a-x@1", "hold base")
    assert house.backlog.flows_in(QUEUE, rank) == 2
    for entry in entries:
        house.backlog.remove(entry)
    assert house.backlog.flows_in(QUEUE, rank) == house.backlog.tenants_in(QUEUE, rank) == 0


def test_an_empty_backlog_is_false_and_keeps_nothing() -> None:
    house = House()
    house.push(request())
    assert house.backlog
    house.backlog.remove(request())
    assert not house.backlog and len(house.backlog) == 0
    assert not house.backlog.counts and not house.backlog.has_queue(QUEUE)
    assert not list(house.backlog.models()) and house.backlog.in_band(1) == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 10.0]))
def test_every_line_is_in_order_whatever_happened(seed: int, aging: float) -> None:
    """The order kept step by step is the order that sorting anew would give."""
    chance = random.Random(seed)
    house = House(bands={"a": 1, "b": chance.choice([1, 2])}, aging=aging)
    waiting: list[Request] = []
    queues: dict[str, str] = {f"{t}-{m}@1": QUEUE for t in "ab" for m in ("x", "y", "z")}
    for step in range(80):
        match chance.choice(["push", "push", "remove", "serve", "move"]):
            case "push":
                entry = request(chance.choice("ab"), chance.choice("xyz"), arrived_s=float(step))
                waiting.append(entry)
                house.backlog.push(entry, lambda entry=entry: queues[entry.target.engine_model])  # type: ignore[misc]
            case "remove" if waiting:
                house.backlog.remove(waiting.pop(chance.randrange(len(waiting))))
            case "serve":
                house.serve(chance.choice("ab"), chance.uniform(0.0, 500.0))
            case "move":
                model = chance.choice(list(queues))
                queues[model] = chance.choice([QUEUE, "hold base", "any base"])
                house.backlog.move(model, queues[model])
        for queue in (QUEUE, "hold base", "any base"):
            assert house.order(queue) == _sorted_anew(house, waiting, queues, queue, aging)


def _sorted_anew(
    house: House,
    waiting: list[Request],
    queues: dict[str, str],
    queue: str,
    aging: float,
) -> list[Request]:
    heads: dict[str, Request] = {}
    for entry in sorted(waiting, key=lambda e: e.arrived_s):
        if queue == queues[entry.target.engine_model]:
            heads.setdefault(entry.target.engine_model, entry)
    oldest: dict[str, float] = {}
    for head in heads.values():
        tenant = head.target.tenant
        oldest[tenant] = min(oldest.get(tenant, head.arrived_s), head.arrived_s)

    def place(head: Request) -> tuple[float, ...]:
        tenant = head.target.tenant
        key = house.service[tenant] + aging * oldest[tenant]
        return house.bands[tenant], key, "ab".index(tenant), head.arrived_s

    return sorted(heads.values(), key=place)
