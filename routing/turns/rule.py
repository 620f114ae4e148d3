"""Which model goes, which comes, where and when? Decided anew at every change; pure.

Nothing that is decided binds until a switch has begun: a turn that is over can go on, if those who waited
have left. A model *wants* a host if requests wait for it and it is awake nowhere, if an operator wants it, or
if it is full wherever it is awake.

1. A host that is switching decides nothing.
2. Who comes first:
   a. pinned models, then those that are wanted without a request;
   b. models that would starve: those who wait so long that only the next turns keep the limit, the longest
      waiting first (see below);
   c. models that have waited for `ROUNDS` usual turns of everybody, or for `starvation_limit_s` if that is
      less, the longest waiting first;
   d. the model whose requests are worth most per second of the host: `worth` of each that comes in time, a
      part of it if it is late already, over the seconds to drain, switch and answer.
3. Where it comes to: a host with a free place, else one where a model is idle (nothing runs, and nothing
   waits for it, or its turn is over); there the one goes that is missed least, by requests a second times its
   switch. Of hosts alike, the one that the model's name ranks first, so that the host's memory is used over
   again.
4. No host is like that: a turn ends, at most one at a host, first one that has ended already. Its model takes
   nothing new and goes when what it runs has ended. A turn ends
   a. for a model that would starve or is wanted;
   b. once it has lasted `max_turn_s`;
   c. if it has lasted `min_s`, and who waits is worth `AHEAD` times what it does itself.
5. A model that nobody has asked for in `ttl_s` goes.
A pinned model never goes.

The bound. A model waits from its oldest request on, or from the end of its last turn if that is later. With w
models that want h hosts, and d and c the longest drain and switch, the j-th longest waiting one is served in
the order of waiting once it has waited `limit - c - (d + c) * j / h`: then the turns of those before it, its
own drain and its own switch follow one another. So it is awake after `limit + d + c`, whatever the others are
worth. The limit is `starvation_limit_s`; with an objective twice that, if it is less. Where it leaves no time
for a turn of everybody, it is stretched to `STRETCH * (d + c) * w / h + c`, and `Plan.limit_s` says so:
devices that only keep turning serve nearly nobody.

Who comes by 2c comes in the order of waiting as well, and ends no turn: the bound holds with it as without.
It keeps the tail short where the limit is far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from routing.scheduling.view import weight
from routing.turns.view import TURN_ANSWERS, AwakeModel, Demand, Host, TurnSettings

# Tried in the simulator: docs/simulator.md says what else was, and what it came to.
AHEAD = 10.0  # so much more must who waits be worth before a turn ends for it
LATE = 0.6  # a late request's part of a timely one's worth
ROUNDS = 1.2  # usual turns of everybody, after which who waits longest comes first
OBJECTIVES = 2.0  # with an objective nobody is to starve for longer than so many times that
STRETCH = 1.5  # of a turn of everybody, where that is longer than the limit
SECOND_COPY = 8  # requests that wait for a model that is full wherever it is awake


class Why(StrEnum):
    """Why a model comes, goes, or does not."""

    PINNED = "pinned"  # it is always awake
    WANTED = "wanted"  # it is preloaded, or an operator woke it
    STARVING = "starving"  # it has waited as long as it may
    LONGEST = "longest"  # it has waited longest, and longer than usual turns of everybody take
    WORTH = "worth"  # its requests are worth most
    FULL = "full"  # it is full wherever it is awake
    MAX_TURN = "max_turn"  # the other one's turn was as long as it may be
    UNUSED = "unused"  # nobody has asked for it in `ttl_s`
    # Why nothing changes for a model that wants a host:
    SWITCHING = "switching"  # every host is switching
    YOUNG = "young"  # what is awake has only just come
    BEHIND = "behind"  # what is awake, or another model that waits, is worth more
    DRAINING = "draining"  # a turn has been ended for it, and what runs ends first
    NOWHERE = "nowhere"  # it cannot come to any host, or only pinned models are there


@dataclass(frozen=True, slots=True)
class Switch:
    """Have a model come, now."""

    host: str
    model: str
    instead_of: str | None  # the model that goes for it; None: there is room
    why: Why


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """A model's turn is over: it takes nothing new. Said anew each time, or it is open again."""

    host: str
    model: str
    by: str  # the model for which it ends
    why: Why


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now."""

    switches: tuple[Switch, ...] = ()
    ends: tuple[TurnEnd, ...] = ()
    sleeps: tuple[tuple[str, str], ...] = ()  # (host, model) that go to disk for nobody's sake
    held: tuple[tuple[str, Why], ...] = ()  # models that want a host and have to wait
    limit_s: float = 0.0  # the starvation limit as it counts now


_LONGEST, _STARVING, _WANTED, _PINNED = 1, 2, 3, 4  # ranks; 0: by worth

_EndKey = tuple[
    int, bool, float
]  # for whom it ends, whether it has ended already, by how much that is better


class _Candidate(NamedTuple):
    """A model that could come to a host; the greatest comes first."""

    rank: int
    value: float  # seconds waited, or worth a second
    has_place: bool
    loss: float  # of who goes, negative
    hash: float
    host: Host
    model: str
    goes: AwakeModel | None


def decide(now_s: float, hosts: Sequence[Host], demands: Iterable[Demand], settings: TurnSettings) -> Plan:
    """Say what is to be done at the hosts of one pool."""
    return _Round(now_s, hosts, {demand.model: demand for demand in demands}, settings).plan()


class _Round:
    """One decision: it works on what is left to decide."""

    def __init__(
        self, now_s: float, hosts: Sequence[Host], demands: dict[str, Demand], settings: TurnSettings
    ) -> None:
        self._now_s = now_s
        self._hosts = hosts
        self._demands = demands
        self._settings = settings
        self._wanting = [model for model, demand in demands.items() if self._wants(demand)]
        self._order = sorted(
            (m for m in self._wanting if demands[m].waiting and not self._is_awake(m)),
            key=self._waited_s,
            reverse=True,
        )
        self._switch_s = max((s for host in hosts for s in host.switch_s.values()), default=0.0)
        self._limit_s, self._starving = self._who_starves()
        self._long_s = self._what_is_long()

    def plan(self) -> Plan:
        switches = []
        hosts = {host.name: host for host in self._hosts if host.coming is None}  # 1
        while (best := max(self._candidates(hosts.values()), default=None)) is not None:
            goes = None if best.goes is None else best.goes.model
            switches.append(Switch(best.host.name, best.model, goes, self._why(best.model)))
            self._wanting.remove(best.model)
            del hosts[best.host.name]
        ends = tuple(self._ends(list(hosts.values())))
        ended_for = {end.by for end in ends}
        held = tuple((m, Why.DRAINING if m in ended_for else self._why_held(m)) for m in self._wanting)
        return Plan(tuple(switches), ends, tuple(self._unused(hosts.values())), held, self._limit_s)

    # -- who comes -----------------------------------------------------------------------------------------

    def _wants(self, demand: Demand) -> bool:
        model = demand.model
        if any(host.coming == model for host in self._hosts):
            return False
        copies = [awake for host in self._hosts for awake in host.awake if awake.model == model]
        if not copies:
            return bool(demand.waiting) or demand.pinned or demand.wanted
        return len(demand.waiting) >= SECOND_COPY and all(copy.full and not copy.shut for copy in copies)

    def _who_starves(self) -> tuple[float, frozenset[str]]:
        """The limit as it counts, and who must come next to keep it (2b)."""
        order, switch_s = self._order, self._switch_s
        turn_s = (self._settings.drain_s + switch_s) / max(1, len(self._hosts))
        limit_s = max(self._unstretched_s(), STRETCH * turn_s * len(order) + switch_s)
        starving = 0
        for number, model in enumerate(order):
            if self._waited_s(model) >= limit_s - switch_s - turn_s * number:
                starving = number + 1
        return limit_s, frozenset(order[:starving])

    def _unstretched_s(self) -> float:
        objective_s = self._settings.objective_s
        limit_s = self._settings.starvation_limit_s
        return limit_s if objective_s is None else min(limit_s, OBJECTIVES * objective_s)

    def _what_is_long(self) -> float:
        """The wait from which on models come in its order (2c)."""
        turn_s = (TURN_ANSWERS * self._settings.answer_s + self._switch_s) / max(1, len(self._hosts))
        everybody = len(self._order) + sum(len(host.awake) for host in self._hosts)
        return min(self._unstretched_s(), ROUNDS * turn_s * everybody)

    def _waited_s(self, model: str) -> float:
        demand = self._demands[model]
        return self._now_s - max(demand.waiting[0].arrived_s, demand.last_turn_s)

    def _rank(self, model: str) -> int:
        demand = self._demands[model]
        if demand.pinned or demand.wanted:
            return _PINNED if demand.pinned else _WANTED
        if model in self._starving:
            return _STARVING
        return _LONGEST if model in self._order and self._waited_s(model) >= self._long_s else 0

    def _why(self, model: str) -> Why:
        if self._is_awake(model):
            return Why.FULL
        return (Why.WORTH, Why.LONGEST, Why.STARVING, Why.WANTED, Why.PINNED)[self._rank(model)]

    def _candidates(self, hosts: Iterable[Host]) -> Iterator[_Candidate]:
        for host in hosts:
            goes = None if host.has_place else self._who_goes(host)
            if goes is None and not host.has_place:
                continue
            loss = 0.0 if goes is None else self._missed(host, goes.model)
            for model in self._wanting:
                if model in host.switch_s and not host.has(model):
                    rank = self._rank(model)
                    by_wait = rank in (_LONGEST, _STARVING)
                    value = self._waited_s(model) if by_wait else self._value(model, host, 0.0)
                    key = weight(model, host.name)
                    yield _Candidate(rank, value, host.has_place, -loss, key, host, model, goes)

    # -- who goes ------------------------------------------------------------------------------------------

    def _who_goes(self, host: Host) -> AwakeModel | None:
        """The idle model of a host that is missed least (3)."""
        idle = [awake for awake in host.awake if self._is_idle(awake)]
        return min(idle, key=lambda awake: self._missed(host, awake.model), default=None)

    def _is_idle(self, awake: AwakeModel) -> bool:
        demand = self._demands[awake.model]
        return not (awake.running or demand.pinned) and (awake.shut or not demand.waiting)

    def _missed(self, host: Host, model: str) -> float:
        return self._demands[model].rate_per_s * host.switch_s.get(model, 0.0)

    def _ends(self, hosts: Sequence[Host]) -> Iterator[TurnEnd]:
        """Turns that end for who still wants a host (4): each for one, those first that do least."""
        wanting = sorted(self._wanting, key=self._rank, reverse=True)
        found = [end for host in hosts if (end := self._end_at(host, wanting)) is not None]
        found.sort(key=lambda each: each[0], reverse=True)
        yield from (end for _, end in found[: len(wanting)])

    def _end_at(self, host: Host, wanting: Sequence[str]) -> tuple[_EndKey, TurnEnd] | None:
        able = [model for model in wanting if model in host.switch_s and not host.has(model)]
        best: tuple[_EndKey, TurnEnd] | None = None
        for awake in host.awake if able else ():
            if self._demands[awake.model].pinned:
                continue
            by = max(able, key=lambda m: (self._rank(m), self._value(m, host, awake.drain_s)))
            gain = self._value(by, host, awake.drain_s) / max(self._does(awake.model), 1e-9)
            why = self._why_ends(host, awake, by, gain)
            key = self._rank(by), awake.shut, gain
            if why is not None and (best is None or key > best[0]):
                best = key, TurnEnd(host.name, awake.model, by, why)
        return best

    def _why_ends(self, host: Host, awake: AwakeModel, by: str, gain: float) -> Why | None:
        lasted_s = self._now_s - awake.since_s
        if self._rank(by) >= _STARVING:  # 4a
            return self._why(by)
        if lasted_s >= self._settings.max_turn_s:  # 4b
            return Why.MAX_TURN
        if lasted_s >= self._least_s(host, awake.model) and gain > (1.0 if awake.shut else AHEAD):  # 4c
            return Why.WORTH
        return None

    def _least_s(self, host: Host, model: str) -> float:
        least_s = self._settings.min_s
        return host.switch_s.get(model, 0.0) if least_s is None else least_s

    def _unused(self, hosts: Iterable[Host]) -> Iterator[tuple[str, str]]:
        ttl_s = self._settings.ttl_s
        for host in hosts if ttl_s is not None else ():
            for awake in host.awake:
                demand = self._demands[awake.model]
                wanted = demand.pinned or demand.wanted or demand.waiting or awake.running
                if not wanted and self._now_s - max(awake.used_s, awake.since_s) >= (ttl_s or 0.0):  # 5
                    yield host.name, awake.model

    # -- what it is worth ----------------------------------------------------------------------------------

    def _value(self, model: str, host: Host, drain_s: float) -> float:
        """What a model's requests are worth per second of a host, all that they take counted."""
        waiting = self._demands[model].waiting
        until_s = drain_s + host.switch_s[model]
        worth = sum(self._worth(w.worth, self._now_s - w.arrived_s, until_s) for w in waiting)
        return worth / (until_s + self._settings.answer_s)

    def _does(self, model: str) -> float:
        """What a model that is awake does per second if it stays: nothing is to be paid for it."""
        demand = self._demands[model]
        worth = sum(self._worth(w.worth, self._now_s - w.arrived_s, 0.0) for w in demand.waiting)
        return demand.rate_per_s + worth / self._settings.answer_s

    def _worth(self, worth: float, age_s: float, until_s: float) -> float:
        objective_s = self._settings.objective_s
        late = objective_s is not None and age_s + until_s > objective_s
        return worth * (LATE if late else 1.0)

    # -- why not -------------------------------------------------------------------------------------------

    def _is_awake(self, model: str) -> bool:
        return any(awake.model == model for host in self._hosts for awake in host.awake)

    def _why_held(self, model: str) -> Why:
        able = [host for host in self._hosts if model in host.switch_s and not host.has(model)]
        settled = [host for host in able if host.coming is None]
        if able and not settled:
            return Why.SWITCHING
        lasted = [
            self._now_s - awake.since_s - self._least_s(host, awake.model)
            for host in settled
            for awake in host.awake
            if not self._demands[awake.model].pinned
        ]
        if not lasted:
            return Why.NOWHERE
        return Why.YOUNG if max(lasted) < 0 else Why.BEHIND
