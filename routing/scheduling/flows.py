"""How does what waits stand together? Flows, users in them, and their tenant in one queue. Pure.

`backlog.py` explains the order. While a tenant's users are told apart, a flow keeps what each of them has
there beside its entries, and lends its tenant the first of these.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from sortedcontainers import SortedList

from routing.scheduling.users import User

T = TypeVar("T")
V = TypeVar("V")
# Tenant, and replicas that broke under the request: what waits for the same of them stands in one flow.
FlowKey = tuple[str, frozenset[str]]
# What user flows are sorted by: key, arrival of the first, number of its making; and the user flow.
Place = tuple[float, float, int, "UserFlow[Any]"]
# What flows are sorted by: key, arrival of the first, number of its making; and the flow.
Found = tuple[float, float, int, "Flow[T]"]


@dataclass(slots=True, eq=False)
class UserFlow(Generic[T]):
    """What one user has waiting in one flow of its tenant, first come first."""

    user: User
    flow: Flow[T]
    number: int
    entries: dict[T, float] = field(default_factory=dict)  # arrival of each
    place: Place | None = None  # where it stands in the flow

    @property
    def head(self) -> T:
        """Return its first."""
        return next(iter(self.entries))

    def sort(self, aging_tokens_per_s: float) -> None:
        """Move to where its key puts it in its flow, or out of it where nothing is left."""
        order = self.flow.order
        if self.place is not None:
            del order[bisect_left(order, self.place)]
            self.place = None
        if self.entries:
            head_s = next(iter(self.entries.values()))
            key = self.user.service + aging_tokens_per_s * max(head_s, self.user.granted_s)
            self.place = key, head_s, self.number, self
            insort(order, self.place)
        self.flow.lend_first()


@dataclass(slots=True, eq=False)
class Flow(Generic[T]):
    """What one tenant has waiting for one model, first come first."""

    tenant: str
    number: int  # of its making: a tie-break
    entries: dict[T, UserFlow[T] | None] = field(default_factory=dict)  # keeps order, removes in O(1)
    head_s: float = 0.0  # arrival of the first, by which the tenant ages
    entrant: Entrant[T] = field(init=False)  # where it stands
    # Only while the tenant's users are told apart:
    users: dict[User, UserFlow[T]] = field(default_factory=dict)
    order: list[Place] = field(default_factory=list)  # of its users
    first: Place | None = None  # of those, as its entrant knows it

    @property
    def oldest(self) -> T:
        """Return what came first."""
        return next(iter(self.entries))

    @property
    def head(self) -> T:
        """Return what runs first."""
        return self.oldest if self.first is None else self.first[3].head

    def stand(self, entry: T, user: User, arrived_s: float, number: int, aging_tokens_per_s: float) -> None:
        """Let an entry stand among those of its user here, by age; `number` is for one that has none."""
        of_user = self.users.get(user)
        if of_user is None:
            of_user = self.users[user] = UserFlow(user, self, number)
            user.flows[of_user] = None
        self.entries[entry] = of_user
        stand_by_age(of_user.entries, entry, arrived_s, of_user.entries.__getitem__)
        if of_user.head == entry:
            of_user.sort(aging_tokens_per_s)

    def leave(self, entry: T, aging_tokens_per_s: float) -> User | None:
        """Take an entry out of its user's; returns the user if nothing of it waits any more, in any flow."""
        of_user = self.entries[entry]
        if of_user is None:
            return None  # users are not told apart
        was_first, user = of_user.head == entry, of_user.user
        del of_user.entries[entry]
        if was_first:
            of_user.sort(aging_tokens_per_s)
        if of_user.entries:
            return None
        del self.users[user], user.flows[of_user]
        return None if user.flows else user

    def lend_first(self) -> None:
        """Let its entrant know which of its users is first."""
        first = self.order[0] if self.order else None
        if first is self.first:
            return
        if self.first is not None:
            self.entrant.by_user.remove(self.first)
        if first is not None:
            self.entrant.by_user.add(first)
        self.first = first


@dataclass(slots=True, eq=False)
class Model(Generic[T]):
    """What waits for one model, and the queue in which all of it stands."""

    queue: str
    flows: dict[FlowKey, Flow[T]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Entrant(Generic[T]):
    """A tenant in one queue: its flows there by age, and the key by which it is sorted."""

    tenant: str
    number: int
    flows: Any = field(default_factory=SortedList)  # of (head_s, number, flow)
    key: float | None = None
    by_user: Any = None  # SortedList of the first of each flow; None: its users are not told apart

    def add(self, flow: Flow[T]) -> None:
        """Take a flow in."""
        flow.entrant = self
        self.flows.add((flow.head_s, flow.number, flow))
        if flow.first is not None:
            self.by_user.add(flow.first)

    def remove(self, flow: Flow[T]) -> None:
        """Let a flow go."""
        self.flows.remove((flow.head_s, flow.number, flow))
        if flow.first is not None:
            self.by_user.remove(flow.first)


def stand_by_age(line: dict[T, V], entry: T, value: V, arrived_s: Callable[[T], float]) -> None:
    """Put an entry with its value into a line, before those that arrived later; nearly always at its end."""
    line[entry] = value
    own_s, later = arrived_s(entry), []
    for other in islice(reversed(line), 1, None):
        if arrived_s(other) <= own_s:
            break
        later.append(other)
    for other in reversed(later):
        line[other] = line.pop(other)


def in_order_of_users(found: list[Found[T]]) -> list[Found[T]]:
    """Let flows of one tenant change places among themselves: they stand in the order of its users."""
    of_tenant: dict[str, list[Place]] = {}
    for *_, flow in found:
        if flow.first is not None:
            of_tenant.setdefault(flow.tenant, []).append(flow.first)
    for places in of_tenant.values():
        places.sort(reverse=True)
    ordered = (f if f.first is None else of_tenant[f.tenant].pop()[3].flow for *_, f in found)
    return [(*row[:3], flow) for row, flow in zip(found, ordered, strict=True)]
