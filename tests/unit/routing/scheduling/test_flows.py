"""In what order do a tenant's requests stand while its users are told apart?"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from routing.scheduling.backlog import Backlog
from routing.types import Request
from tests.unit.routing.requests import request

QUEUE = "need base"


class House:
    """A backlog of tenants `a` and `b`; all of it stands in one queue."""

    def __init__(self, aging: float = 0.0) -> None:
        self.backlog = Backlog[Request](
            lambda entry: entry,
            band_rank={"a": 1, "b": 1},
            service=lambda tenant: 0.0,
            aging_tokens_per_s=aging,
        )

    def push(self, *entries: Request) -> None:
        for entry in entries:
            self.backlog.push(entry, lambda: QUEUE)

    def order(self, queue: str = QUEUE) -> list[Request]:
        return [entry for *_, heads in self.backlog.in_order(queue, 1) for entry in heads]

    def of_models(self, *models: str) -> list[Request]:
        return [head for *_, heads in self.backlog.of_models(models, 1) for head in heads]

    def all_in_order(self, *, cost: float = 10.0) -> list[Request]:
        """Serve all of it, one after the other, on an engine where every model runs."""
        served = []
        while self.backlog:
            entry = self.of_models(*self.backlog.models())[0]
            self.backlog.remove(entry)
            self.backlog.serve_user(entry, cost, entry.arrived_s)
            served.append(entry)
        return served


def test_users_of_one_flow_take_turns_and_each_is_served_in_its_order() -> None:
    house = House()
    house.push(*(request(arrived_s=float(n), user="a") for n in range(3)))
    house.push(*(request(arrived_s=float(n), user="b") for n in range(3, 6)))
    served = [(entry.user, entry.arrived_s) for entry in house.all_in_order()]
    assert served == [("a", 0.0), ("b", 3.0), ("a", 1.0), ("b", 4.0), ("a", 2.0), ("b", 5.0)]
    assert house.backlog.users("a") == 0 and not house.backlog._users


def test_users_of_several_models_of_a_tenant_take_turns_too() -> None:
    house = House()
    house.push(*(request(model="support", arrived_s=float(n), user="a") for n in range(4)))
    house.push(request(model="sales", arrived_s=9.0, user="b"))
    assert [entry.user for entry in house.all_in_order()] == ["a", "b", "a", "a", "a"]


def test_requests_without_a_user_are_one_user_also_those_that_waited_before_one_was_named() -> None:
    house = House()
    house.push(*(request(arrived_s=float(n)) for n in range(3)))
    assert house.backlog.users("a") == 0
    house.push(request(arrived_s=5.0, user="u"))
    assert house.backlog.users("a") == 2
    assert [entry.user for entry in house.all_in_order()] == ["", "u", "", ""]


def test_a_tenant_ages_by_its_oldest_request_whoever_is_next() -> None:
    house = House(aging=10.0)
    house.push(request("a", arrived_s=1.0, user="old"), request("a", arrived_s=50.0, user="new"))
    house.push(request("b", arrived_s=20.0))
    user = house.backlog.serve_user(request("a", arrived_s=1.0, user="old"), 5000.0, 60.0)
    assert user is not None and user.name == "old"
    assert [(entry.target.tenant, entry.user) for entry in house.order()] == [("a", "new"), ("b", "")]


def test_waiting_makes_up_for_service_between_users_and_who_is_served_does_not_age() -> None:
    house = House(aging=10.0)
    house.push(*(request(arrived_s=0.0, user="busy") for _ in range(2)), request(arrived_s=9.0, user="late"))
    assert house.order()[0].user == "busy"
    house.backlog.serve_user(house.order()[0], 1.0, 9.0)
    assert house.order()[0].user == "late"
    late = house.backlog.serve_user(request(user="late"), 50.0, 9.0)
    assert house.order()[0].user == "busy"
    assert late is not None
    house.backlog.correct_user(late, -50.0)
    assert house.order()[0].user == "late"


def test_another_tenants_order_is_not_touched_by_names() -> None:
    house = House()
    house.push(*(request("b", arrived_s=float(n)) for n in range(3)))
    house.push(request("a", arrived_s=5.0, user="x"), request("a", arrived_s=6.0, user="y"))
    assert house.backlog.users("b") == 0 and not house.backlog.overtakes(house.order()[0])
    assert [entry.arrived_s for entry in house.all_in_order() if entry.target.tenant == "b"] == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 500.0]))
def test_the_order_is_that_of_sorting_all_anew_whatever_comes_and_goes(seed: int, aging: float) -> None:
    chance, house = random.Random(seed), House(aging)
    waiting: list[Request] = []
    models = ["support", "sales"]
    for step in range(200):
        if chance.random() < 0.55 or not waiting:
            user = chance.choice(["", "u", "v", "w"])
            waiting.append(request("a", chance.choice(models), arrived_s=step + chance.random(), user=user))
            house.push(waiting[-1])
        else:
            entry = waiting.pop(chance.randrange(len(waiting)))
            assert house.backlog.remove(entry)
            if chance.random() < 0.7:
                house.backlog.serve_user(entry, chance.uniform(1.0, 900.0), float(step))
        if chance.random() < 0.1:
            house.backlog.move(f"a-{chance.choice(models)}@1", chance.choice([QUEUE, "hold base"]))
        heads = house.of_models("a-support@1", "a-sales@1")
        queued = house.order(QUEUE) + house.order("hold base")
        assert set(map(id, heads)) == set(map(id, queued)) and house.backlog.count("a") == len(waiting)
        if not waiting:
            assert not house.backlog._users
            continue
        users = house.backlog._users.get("a")
        for model in models:
            flows = house.backlog._models.get(f"a-{model}@1")
            for flow in flows.flows.values() if flows is not None else ():
                assert sum(len(part.entries) for part in flow.users.values()) in (0, len(flow.entries))
                if users is None:
                    assert flow.head is flow.oldest
                else:
                    assert flow.order == sorted(flow.order) and flow.first is flow.order[0]
                    best = min(
                        flow.users.values(),
                        key=lambda part: (
                            part.user.service + aging * max(part.head.arrived_s, part.user.granted_s),
                            part.head.arrived_s,
                        ),
                    )
                    assert best.head is flow.head
    for entry in waiting:
        house.backlog.remove(entry)
    assert not house.backlog and not house.backlog._users and not house.backlog._entrants
