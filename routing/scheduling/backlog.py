"""Which requests wait, and which is next in one queue? Every step is O(log n) in what waits.

A *flow* is what one tenant has waiting for one model as engines know it: an adapter's version, or the base
model. All flows of a model stand in the same *queue*, that of the models which could run in the same places:
the owner says in which, and moves them when that changes. A queue has a row for each *band*. A few models
that have an engine to themselves, as those whose adapters hold its slots, are sorted when asked for. The
order is by band, then by how much service the tenant has had, less its age; within a tenant the oldest
request goes first, or that of the user who has had least (`users.py`) while a request that names one waits.

Age counts from the arrival of a tenant's oldest request in a queue. It enters as a rate, so two keys compare
alike at all times, and nothing has to be sorted anew as time passes.

Pure structure: it knows no replica and no clock.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from sortedcontainers import SortedList

from fleet.types import Band
from routing.scheduling.flows import Entrant, Flow, FlowKey, Model, in_order_of_users, stand_by_age
from routing.scheduling.users import User, Users
from routing.types import Request

T = TypeVar("T")
BANDS = len(Band)


class Backlog(Generic[T]):
    """Waiting entries of one group; every entry is in at most once."""

    def __init__(
        self,
        request_of: Callable[[T], Request],
        *,
        band_rank: Mapping[str, int],
        service: Callable[[str], float],
        aging_tokens_per_s: float = 0.0,
    ) -> None:
        """`band_rank` is read anew each time: a tenant's may change while nothing of it waits.

        `service` is what a tenant has had, in prompt tokens by weight; call `resort` when it changes.
        """
        self._request_of = request_of
        self._band_rank = band_rank
        self._service = service
        self.aging_tokens_per_s = aging_tokens_per_s  # to be changed while nothing waits
        self._numbers = {tenant: number for number, tenant in enumerate(band_rank)}
        self._next_number = itertools.count(len(band_rank))
        self._models: dict[str, Model[T]] = {}  # by engine model
        self._entrants: dict[str, dict[str, Entrant[T]]] = {}  # by tenant and queue
        self._queues: dict[str, list[Any]] = {}  # queue -> by band, a SortedList of (key, number, entrant)
        self._flows_in: Counter[tuple[str, int]] = Counter()  # by queue and band
        self._users: dict[str, Users] = {}  # by tenant; of those whose users are told apart
        self._made = 0
        self._size = 0
        self.sequences = self.prompt_tokens = 0  # of all that waits; tokens as they are estimated
        self._by_band = [0] * BANDS
        self._by_tenant: dict[str, int] = {}

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0

    def __iter__(self) -> Iterator[T]:
        models = self._models.values()
        return (entry for model in models for flow in model.flows.values() for entry in flow.entries)

    @property
    def counts(self) -> Mapping[str, int]:
        """Entries of each tenant that has some."""
        return self._by_tenant

    def count(self, tenant: str) -> int:
        """Entries of a tenant."""
        return self._by_tenant.get(tenant, 0)

    def users(self, tenant: str) -> int:
        """Users of a tenant that wait; 0 where none has been named."""
        users = self._users.get(tenant)
        return 0 if users is None else users.waiting

    def overtakes(self, entry: T) -> bool:
        """Whether older ones of its tenant and model wait: it is the turn of its user."""
        if not self._users:
            return False
        request = self._request_of(entry)
        if request.target.tenant not in self._users:
            return False
        model = self._models[request.target.engine_model]
        return model.flows[_flow_key(request)].oldest != entry

    def in_band(self, rank: int) -> int:
        """Entries of a band."""
        return self._by_band[rank]

    def has_flow(self, request: Request) -> bool:
        """Whether a request would have to stand behind others of its flow."""
        model = self._models.get(request.target.engine_model)
        return model is not None and _flow_key(request) in model.flows

    def models(self) -> Iterable[str]:
        """Engine models for which something waits."""
        return self._models.keys()

    def has_model(self, engine_model: str) -> bool:
        """Whether anything waits for a model."""
        return engine_model in self._models

    def count_of_model(self, engine_model: str) -> int:
        """Entries that wait for a model."""
        model = self._models.get(engine_model)
        return 0 if model is None else sum(len(flow.entries) for flow in model.flows.values())

    def heads(self, engine_model: str) -> Iterator[T]:
        """Give the oldest of each flow of a model."""
        model = self._models.get(engine_model)
        return iter(()) if model is None else (next(iter(flow.entries)) for flow in model.flows.values())

    # -- changes -------------------------------------------------------------------------------------------

    def push(self, entry: T, queue_of: Callable[[], str]) -> None:
        """Add an entry to its flow; `queue_of` is called where nothing waits for its model.

        It stands where its arrival puts it: one that comes back from a broken replica is older than others.
        """
        request = self._request_of(entry)
        tenant, name, key = request.target.tenant, request.target.engine_model, _flow_key(request)
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = Model(queue_of())
        flow = model.flows.get(key)
        if flow is None:
            self._made += 1
            flow = model.flows[key] = Flow(tenant, self._made, {entry: None}, request.arrived_s)
            self._insert(flow, model.queue)
        else:
            stand_by_age(flow.entries, entry, None, lambda other: self._request_of(other).arrived_s)
            if request.arrived_s < flow.head_s:
                self._advance(flow, request.arrived_s, model.queue)
        self._count(tenant, +1)
        self.sequences += request.sequences
        self.prompt_tokens += request.prompt_tokens
        if tenant in self._users:
            self._stand_by_user(flow, entry)
        elif request.user:
            self._tell_users_apart(tenant)

    def remove(self, entry: T) -> bool:
        """Take an entry out, wherever it stands; False where it was not waiting."""
        request = self._request_of(entry)
        tenant, name, key = request.target.tenant, request.target.engine_model, _flow_key(request)
        model = self._models.get(name)
        flow = model.flows.get(key) if model is not None else None
        if model is None or flow is None or entry not in flow.entries:
            return False
        if flow.first is not None and (user := flow.leave(entry, self.aging_tokens_per_s)) is not None:
            self._users[tenant].end_waiting(user)
        if next(iter(flow.entries)) == entry:
            del flow.entries[entry]
            if flow.entries:
                self._advance(flow, self._request_of(next(iter(flow.entries))).arrived_s, model.queue)
            else:
                self._withdraw(flow, model.queue)
                del model.flows[key]
                if not model.flows:
                    del self._models[name]
        else:
            del flow.entries[entry]
        self._count(tenant, -1)
        self.sequences -= request.sequences
        self.prompt_tokens -= request.prompt_tokens
        return True

    def move(self, engine_model: str, queue: str) -> None:
        """Move what waits for a model to another queue, if anything does."""
        model = self._models.get(engine_model)
        if model is None or model.queue == queue:
            return
        for flow in model.flows.values():
            self._withdraw(flow, model.queue)
            self._insert(flow, queue)
        model.queue = queue

    def forget_tenant(self, tenant: str) -> None:
        """Drop the number of a tenant that has left; nothing of it waits."""
        self._numbers.pop(tenant, None)

    def resort(self, tenant: str) -> None:
        """Put a tenant where it belongs after its service has changed."""
        for queue, entrant in self._entrants[tenant].items() if tenant in self._entrants else ():
            self._sort(queue, entrant)

    def serve_user(self, request: Request, tokens: float, now_s: float) -> User | None:
        """Charge a request that begins to run to its user; None where users are not told apart."""
        users = self._users.get(request.target.tenant)
        if users is None:
            return None
        user = users.serve(request.user, tokens, now_s)
        self._resort_user(user)
        return user

    def correct_user(self, user: User, tokens: float) -> None:
        """Add what a user's request that ended used beyond its charge."""
        user.service += tokens
        self._resort_user(user)

    # -- questions -----------------------------------------------------------------------------------------

    def in_order(self, queue: str, rank: int) -> Iterator[tuple[float, str, Iterator[T]]]:
        """Give (key, tenant, heads of its flows) of a queue and band, best first.

        Change nothing while it is being read.
        """
        bands = self._queues.get(queue)
        if bands is None:
            return
        for key, _, entrant in bands[rank]:
            if entrant.by_user is None:
                yield key, entrant.tenant, (next(iter(flow.entries)) for _, _, flow in entrant.flows)
            else:
                yield key, entrant.tenant, (place[3].head for place in entrant.by_user)

    def of_models(self, names: Iterable[str], rank: int) -> list[tuple[float, str, tuple[T]]]:
        """Give (key, tenant, head of flow) of some models and a band, best first."""
        found, models = [], self._models
        for name in names:
            if name in models:
                for flow in models[name].flows.values():
                    if self._band_rank[flow.tenant] == rank:
                        key = self._key(flow.tenant, flow.head_s)
                        found.append((key, flow.head_s, flow.number, flow))
        found.sort()
        if self._users:
            found = in_order_of_users(found)
            return [(key, flow.tenant, (flow.head,)) for key, _, _, flow in found]
        return [(key, flow.tenant, (next(iter(flow.entries)),)) for key, _, _, flow in found]

    def flows_in(self, queue: str, rank: int, tenant: str | None = None) -> int:
        """Count the flows in a queue and band, or those of one tenant."""
        if tenant is None:
            return self._flows_in[queue, rank]
        entrant = self._entrants.get(tenant, {}).get(queue)
        return len(entrant.flows) if entrant is not None else 0

    def tenants_in(self, queue: str, rank: int) -> int:
        """Count the tenants that have something in a queue and band."""
        bands = self._queues.get(queue)
        return len(bands[rank]) if bands is not None else 0

    def flows_ahead(self, queue: str, rank: int, tenant: str) -> int:
        """Count the flows of a queue that go before a new one of a tenant: flows of tenants go in turn."""
        own = self.flows_in(queue, rank, tenant)
        higher = sum(self.flows_in(queue, other) for other in range(rank))
        return higher + min(self.flows_in(queue, rank), self.tenants_in(queue, rank) * (own + 1))

    def has_queue(self, queue: str) -> bool:
        """Whether anything stands in a queue."""
        return queue in self._queues

    # -- order ---------------------------------------------------------------------------------------------

    def _insert(self, flow: Flow[T], queue: str) -> None:
        entrants = self._entrants.setdefault(flow.tenant, {})
        entrant = entrants.get(queue)
        if entrant is None:
            entrant = entrants[queue] = Entrant(flow.tenant, self._number_of(flow.tenant))
            if flow.tenant in self._users:
                entrant.by_user = SortedList()
        entrant.add(flow)
        self._flows_in[queue, self._band_rank[flow.tenant]] += 1
        self._sort(queue, entrant)

    def _number_of(self, tenant: str) -> int:
        number = self._numbers.get(tenant)
        if number is None:  # it has come later
            number = self._numbers[tenant] = next(self._next_number)
        return number

    def _withdraw(self, flow: Flow[T], queue: str) -> None:
        entrants = self._entrants[flow.tenant]
        entrant = entrants[queue]
        entrant.remove(flow)
        self._flows_in[queue, self._band_rank[flow.tenant]] -= 1
        self._sort(queue, entrant)
        if not entrant.flows:
            del entrants[queue]
            if not entrants:
                del self._entrants[flow.tenant]

    def _advance(self, flow: Flow[T], head_s: float, queue: str) -> None:
        """Let a flow have another head, by its arrival."""
        entrant = self._entrants[flow.tenant][queue]
        entrant.flows.remove((flow.head_s, flow.number, flow))
        entrant.flows.add((head_s, flow.number, flow))
        flow.head_s = head_s
        self._sort(queue, entrant)

    def _sort(self, queue: str, entrant: Entrant[T]) -> None:
        """Move a tenant to where its key puts it in a queue, or out of it where it has nothing there."""
        key = self._key(entrant.tenant, entrant.flows[0][0]) if entrant.flows else None
        if key == entrant.key:
            return
        rank = self._band_rank[entrant.tenant]
        bands = self._queues.get(queue)
        if bands is None:
            bands = self._queues[queue] = [SortedList() for _ in range(BANDS)]
        if entrant.key is not None:
            bands[rank].remove((entrant.key, entrant.number, entrant))
        if key is not None:
            bands[rank].add((key, entrant.number, entrant))
        elif not any(bands):
            del self._queues[queue]
        entrant.key = key

    def _key(self, tenant: str, head_s: float) -> float:
        return self._service(tenant) + self.aging_tokens_per_s * head_s

    def _count(self, tenant: str, sign: int) -> None:
        self._size += sign
        self._by_band[self._band_rank[tenant]] += sign
        left = self._by_tenant.get(tenant, 0) + sign
        if left:
            self._by_tenant[tenant] = left
        else:
            del self._by_tenant[tenant]
            self._users.pop(tenant, None)

    # -- users ---------------------------------------------------------------------------------------------

    def _tell_users_apart(self, tenant: str) -> None:
        """Begin to order a tenant's requests among its users."""
        self._users[tenant] = Users()
        for entrant in self._entrants[tenant].values():
            entrant.by_user = SortedList()
            for _, _, flow in entrant.flows:
                for entry in flow.entries:
                    self._stand_by_user(flow, entry)

    def _stand_by_user(self, flow: Flow[T], entry: T) -> None:
        request = self._request_of(entry)
        user = self._users[flow.tenant].begin_to_wait(request.user)
        self._made += 1
        flow.stand(entry, user, request.arrived_s, self._made, self.aging_tokens_per_s)

    def _resort_user(self, user: User) -> None:
        for of_user in user.flows:
            of_user.sort(self.aging_tokens_per_s)


def _flow_key(request: Request) -> FlowKey:
    return request.target.tenant, request.failed_on
