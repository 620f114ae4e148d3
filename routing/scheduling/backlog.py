"""Who waits, and who of them is next in one place? Every step is O(log n) in what waits.

What waits for the same slot is a lane: one adapter, or the base model. A lane stands in one line, of all that
could run in the same places: the owner says in which, and moves a lane when that changes. A few lanes that
have a place to themselves, as those whose adapters hold a replica's slots, are sorted when asked for. The
order is by band, then by how much service the tenant has had, less its age; within a tenant the oldest
goes first.

Age counts from the arrival of a tenant's oldest request in a line or place, or from the tenant's last grant
out of it, whichever is later: who is being served there does not age, however long its own queue is. Age
enters as a rate, so two keys compare alike at all times, and nothing has to be sorted anew as time passes.

Pure structure: it knows no replica and no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sortedcontainers import SortedList

from fleet.types import Band
from routing.types import Request

T = TypeVar("T")
BANDS = len(Band)
# Tenant, and replicas that broke under the request: within a lane, what waits for the same of them.
_FlowKey = tuple[str, frozenset[str]]


@dataclass(slots=True, eq=False)
class _Flow(Generic[T]):
    """What one tenant has waiting in one lane, first come first."""

    tenant: str
    number: int  # of its making: a tie-break
    entries: dict[T, None] = field(default_factory=dict)  # keeps order, removes in O(1)
    head_s: float = 0.0  # arrival of the first


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    """What waits for the same slot."""

    line: str
    flows: dict[_FlowKey, _Flow[T]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Share(Generic[T]):
    """What one tenant has in one line: its flows by age, and the key under which it stands there."""

    tenant: str
    number: int
    flows: Any = field(default_factory=SortedList)  # of (head_s, number, flow)
    key: float | None = None


class Backlog(Generic[T]):
    """Waiting entries of one group; every entry is in at most once."""

    def __init__(
        self,
        request_of: Callable[[T], Request],
        *,
        band_rank: dict[str, int],
        service: Callable[[str], float],
        aging_tokens_per_s: float = 0.0,
    ) -> None:
        """`service` says what a tenant has had, in prompt tokens by weight; tell `touch` when it changes."""
        self._request_of = request_of
        self._band_rank = band_rank
        self._service = service
        self._aging = aging_tokens_per_s
        self._numbers = {tenant: number for number, tenant in enumerate(band_rank)}
        self._lanes: dict[str, _Lane[T]] = {}  # by engine model
        self._shares: dict[str, dict[str, _Share[T]]] = {}  # tenant -> line -> what it has there
        self._lines: dict[str, list[Any]] = {}  # line -> for each band a SortedList of (key, number, share)
        self._flows_in: Counter[tuple[str, int]] = Counter()  # by line and band
        self._last_grant_s: dict[tuple[str, str], float] = {}  # by tenant, and line or place
        self._made = 0
        self._size = 0
        self._by_band = [0] * BANDS
        self._by_tenant: dict[str, int] = {}

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0

    def __iter__(self) -> Iterator[T]:
        lanes = self._lanes.values()
        return (entry for lane in lanes for flow in lane.flows.values() for entry in flow.entries)

    @property
    def counts(self) -> Mapping[str, int]:
        """Entries of each tenant that has some."""
        return self._by_tenant

    def count(self, tenant: str) -> int:
        """Entries of a tenant."""
        return self._by_tenant.get(tenant, 0)

    def in_band(self, rank: int) -> int:
        """Entries of a band."""
        return self._by_band[rank]

    def has_flow(self, request: Request) -> bool:
        """Whether a request would have to stand behind others of its tenant in its lane."""
        lane = self._lanes.get(request.target.engine_model)
        return lane is not None and _flow_key(request) in lane.flows

    def lanes(self) -> Iterable[str]:
        """Engine models for which something waits."""
        return self._lanes.keys()

    def waits_for(self, engine_model: str) -> bool:
        """Whether anything waits in a lane."""
        return engine_model in self._lanes

    def in_lane(self, engine_model: str) -> int:
        """Entries of a lane."""
        lane = self._lanes.get(engine_model)
        return 0 if lane is None else sum(len(flow.entries) for flow in lane.flows.values())

    def heads(self, engine_model: str) -> Iterator[T]:
        """Give the head of each flow in a lane."""
        lane = self._lanes.get(engine_model)
        return iter(()) if lane is None else (next(iter(flow.entries)) for flow in lane.flows.values())

    # -- changes -------------------------------------------------------------------------------------------

    def push(self, entry: T, line: Callable[[], str]) -> None:
        """Add an entry behind those of its flow; `line` is asked where a new lane stands."""
        request = self._request_of(entry)
        tenant, model, key = request.target.tenant, request.target.engine_model, _flow_key(request)
        lane = self._lanes.get(model)
        if lane is None:
            lane = self._lanes[model] = _Lane(line())
        flow = lane.flows.get(key)
        if flow is None:
            self._made += 1
            flow = lane.flows[key] = _Flow(tenant, self._made, {entry: None}, request.arrived_s)
            self._insert(flow, lane.line)
        else:
            flow.entries[entry] = None
        self._count(tenant, +1)

    def remove(self, entry: T) -> bool:
        """Take an entry out, wherever it stands; False where it was not waiting."""
        request = self._request_of(entry)
        tenant, model, key = request.target.tenant, request.target.engine_model, _flow_key(request)
        lane = self._lanes.get(model)
        flow = lane.flows.get(key) if lane is not None else None
        if lane is None or flow is None or entry not in flow.entries:
            return False
        if next(iter(flow.entries)) == entry:
            del flow.entries[entry]
            if flow.entries:
                self._advance(flow, self._request_of(next(iter(flow.entries))).arrived_s, lane.line)
            else:
                self._withdraw(flow, lane.line)
                del lane.flows[key]
                if not lane.flows:
                    del self._lanes[model]
        else:
            del flow.entries[entry]
        self._count(tenant, -1)
        return True

    def move(self, engine_model: str, line: str) -> None:
        """Stand a lane in another line; nothing where nothing waits in it."""
        lane = self._lanes.get(engine_model)
        if lane is None or lane.line == line:
            return
        for flow in lane.flows.values():
            self._withdraw(flow, lane.line)
            self._insert(flow, line)
        lane.line = line

    def granted(self, tenant: str, where: Iterable[str], now_s: float) -> None:
        """Note that a tenant has been served out of these lines or places: it ages anew. Tell `touch` too."""
        for name in where:
            self._last_grant_s[tenant, name] = now_s

    def forget(self, where: str) -> None:
        """Drop what is known of a line or place that is no more and in which nothing stands."""
        self._last_grant_s = {key: at_s for key, at_s in self._last_grant_s.items() if key[1] != where}

    def touch(self, tenant: str) -> None:
        """Put a tenant where it belongs after its service has changed."""
        for line, share in self._shares.get(tenant, {}).items():
            self._place(line, share)

    # -- questions -----------------------------------------------------------------------------------------

    def in_order(self, line: str, rank: int) -> Iterator[tuple[float, str, Iterator[T]]]:
        """Give (key, tenant, heads of its flows) of a line and band, best first.

        Change nothing while it is being read.
        """
        bands = self._lines.get(line)
        if bands is None:
            return
        for key, _, share in bands[rank]:
            yield key, share.tenant, (next(iter(flow.entries)) for _, _, flow in share.flows)

    def in_lanes(self, models: Iterable[str], place: str, rank: int) -> list[tuple[float, str, tuple[T]]]:
        """Give (key, tenant, head of flow) of some lanes and a band, best first; `place`: where they age."""
        found, lanes = [], self._lanes
        for model in models:
            if model in lanes:
                for flow in lanes[model].flows.values():
                    if self._band_rank[flow.tenant] == rank:
                        key = self._key(place, flow.tenant, flow.head_s)
                        found.append((key, flow.head_s, flow.number, flow))
        found.sort()
        return [(key, flow.tenant, (next(iter(flow.entries)),)) for key, _, _, flow in found]

    def flows_in(self, line: str, rank: int, tenant: str | None = None) -> int:
        """Count what stands in a line and band: lanes, once for each tenant; or those of one tenant."""
        if tenant is None:
            return self._flows_in[line, rank]
        share = self._shares.get(tenant, {}).get(line)
        return len(share.flows) if share is not None else 0

    def tenants_in(self, line: str, rank: int) -> int:
        """Count the tenants that have something in a line and band."""
        bands = self._lines.get(line)
        return len(bands[rank]) if bands is not None else 0

    def waits_in(self, line: str) -> bool:
        """Whether anything stands in a line."""
        return line in self._lines

    # -- order ---------------------------------------------------------------------------------------------

    def _insert(self, flow: _Flow[T], line: str) -> None:
        shares = self._shares.setdefault(flow.tenant, {})
        share = shares.get(line)
        if share is None:
            share = shares[line] = _Share(flow.tenant, self._numbers[flow.tenant])
        share.flows.add((flow.head_s, flow.number, flow))
        self._flows_in[line, self._band_rank[flow.tenant]] += 1
        self._place(line, share)

    def _withdraw(self, flow: _Flow[T], line: str) -> None:
        shares = self._shares[flow.tenant]
        share = shares[line]
        share.flows.remove((flow.head_s, flow.number, flow))
        self._flows_in[line, self._band_rank[flow.tenant]] -= 1
        self._place(line, share)
        if not share.flows:
            del shares[line]
            if not shares:
                del self._shares[flow.tenant]

    def _advance(self, flow: _Flow[T], head_s: float, line: str) -> None:
        """Let a flow's next entry be its head."""
        share = self._shares[flow.tenant][line]
        share.flows.remove((flow.head_s, flow.number, flow))
        share.flows.add((head_s, flow.number, flow))
        flow.head_s = head_s
        self._place(line, share)

    def _place(self, line: str, share: _Share[T]) -> None:
        """Move a tenant to where its key puts it in a line, or out of it where it has nothing there."""
        key = self._key(line, share.tenant, share.flows[0][0]) if share.flows else None
        if key == share.key:
            return
        rank = self._band_rank[share.tenant]
        bands = self._lines.get(line)
        if bands is None:
            bands = self._lines[line] = [SortedList() for _ in range(BANDS)]
        if share.key is not None:
            bands[rank].remove((share.key, share.number, share))
        if key is not None:
            bands[rank].add((key, share.number, share))
        elif not any(bands):
            del self._lines[line]
        share.key = key

    def _key(self, where: str, tenant: str, head_s: float) -> float:
        waits_since_s = max(head_s, self._last_grant_s.get((tenant, where), head_s))
        return self._service(tenant) + self._aging * waits_since_s

    def _count(self, tenant: str, sign: int) -> None:
        self._size += sign
        self._by_band[self._band_rank[tenant]] += sign
        left = self._by_tenant.get(tenant, 0) + sign
        if left:
            self._by_tenant[tenant] = left
        else:
            del self._by_tenant[tenant]


def _flow_key(request: Request) -> _FlowKey:
    return request.target.tenant, request.failed_on
