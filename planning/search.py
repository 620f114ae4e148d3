"""Which units share what? The fewest devices, then the shortest tail, then the fewest moves. Pure.

The units of one circle are divided into sets; each set has devices of its own (`sharing`). Up to `EXACT`
units every division is looked at, but for those whose lower bound is not below the best: the answer is the
best there is, as far as `sharing` is right. With more, units are put together one after the other, by load
and by shape, then sets are dissolved while that helps; `Found.bound` is what no plan can do without, so the
gap is known.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from engines.devices.packing import NoRoomError, Room, Wanted, pack
from fleet.types import Strategy
from planning.sharing import Sharing, Sharings
from planning.units import NoPlanError, Unit
from planning.values import Device, Machine, Today
from planning.words import counted

EXACT = 9  # units of a circle; 21147 divisions
EXACT_WITH_SLICES = 7  # 877 divisions, each with several ways of every set
TRIED = 6  # sets that a unit is tried in, the roomiest first
ROUNDS = 3  # of moves
SCARCE_ROUNDS = 8  # of searches, each time a kind of which there are too few counts twice as much
Score = tuple[float, float, int]  # money or devices, seconds of tail a second, models that move


@dataclass(frozen=True, slots=True)
class Found:
    """A division of all units, and how good it can be at best."""

    sharings: tuple[Sharing, ...]
    score: Score
    devices: int
    money_per_hour: float | None  # None: a price is not known
    bound: int  # no plan has fewer devices
    is_exact: bool  # every division was looked at

    @property
    def gap(self) -> int:
        """Devices that a better plan could save at most."""
        return 0 if self.is_exact else self.devices - self.bound


class Search:
    """Divides units."""

    def __init__(self, units: Sequence[Unit], sharings: Sharings, today: Today | None = None) -> None:
        """`today` is where models are served now: moves count from there."""
        self._units, self._sharings, self._today = units, sharings, today
        prices = [machine.device.price_per_hour for machine in sharings.machines]
        self._has_prices = all(price is not None for price in prices)
        self.has_slices = Strategy.MIG in sharings.rules.strategies and any(
            machine.device.profiles for machine in sharings.machines
        )
        self.is_exact = True
        self._scarce: dict[str, float] = {}  # kinds of which there are too few, and what each counts then

    def best(self) -> Found:
        """Return the best division found. Raises `NoPlanError` where units do not fit."""
        self.require_places()
        refused: NoPlanError | None = None
        for _ in range(SCARCE_ROUNDS):
            sharings = [one for circle in self._circles().values() for one in self._divide(circle)]
            short = _too_many(sharings, self._sharings.machines)
            if short is None:
                self._scarce.clear()
                return self._found(sharings)
            kind, needed, most = short
            refused = refused or NoPlanError(
                f"the models need {counted(needed, 'device')} {kind}, and there are {most}: name more, allow "
                "later first tokens, or give fewer models devices of their own"
            )
            if len({machine.device.kind for machine in self._sharings.machines}) == 1:
                break
            self._scarce[kind] = 2 * self._scarce.get(kind, 1.0)
            self.is_exact = False
        raise refused or NoPlanError("no division was found")

    def require_places(self) -> None:
        """Raise `NoPlanError` for a unit that fits on no device."""
        for unit in self._units:
            if not self._sharings.of([unit]):
                raise NoPlanError(self._why_nowhere(unit))

    def bound(self) -> int:
        """Return what no plan can do without: devices for the load of each circle."""
        whole = 0
        for units in self._circles().values():
            busy = min(
                sum(self._sharings.load(u, m.device).load * u.base.tensor_parallel for u in units)
                for m in self._sharings.machines
            )
            whole += max(1, math.ceil(busy / self._sharings.rules.busy - 1e-9))
        return whole

    def score(self, sharings: Iterable[Sharing]) -> Score:
        """Return how good a division is; less is better."""
        sharings = list(sharings)
        money = sum(count * self.price(device) for device, count in devices_of(sharings).values())
        return money, sum(one.tail_s for one in sharings), sum(self._moves(one) for one in sharings)

    # -- one circle ----------------------------------------------------------------------------------------

    def _circles(self) -> Mapping[str, list[Unit]]:
        found: dict[str, list[Unit]] = defaultdict(list)
        for unit in sorted(self._units, key=self._size, reverse=True):
            found[unit.circle].append(unit)
        return found

    def _size(self, unit: Unit) -> tuple[float, int, str]:
        load = self._sharings.load(unit, self._sharings.machines[0].device)
        return load.load, load.need_bytes, unit.name

    def _divide(self, units: Sequence[Unit]) -> list[Sharing]:
        alike = sorted(units, key=lambda unit: unit.base.shape)  # they switch fastest between each other
        start = min((self._grown(units), self._grown(alike), self._apart(units)), key=self.score)
        if len(units) > (EXACT_WITH_SLICES if self.has_slices else EXACT):
            self.is_exact = False
            return self._improved(start)
        exact = _Exact(self, self._sharings, units, start)
        exact.go_on(0, [])
        return exact.best

    def _why_nowhere(self, unit: Unit) -> str:
        largest = max(self._sharings.machines, key=lambda machine: machine.device.memory_bytes)
        load = self._sharings.load(unit, largest.device)
        return (
            f"`{unit.name}` needs {load.need_bytes / 2**30:.1f} GiB on each of "
            f"{counted(load.devices, 'device')} (weights {load.weight_bytes / 2**30:.1f} GiB), and the "
            "largest "
            f"device given is {largest.device.kind} with {largest.device.memory_bytes / 2**30:.1f} GiB, "
            f"{largest.devices} of them in a machine: name a larger device, or spread it over more"
        )

    def _apart(self, units: Sequence[Unit]) -> list[Sharing]:
        return self._cheapest([[unit] for unit in units])

    def _grown(self, units: Sequence[Unit]) -> list[Sharing]:
        """Put each unit into the set where it costs least, or into one of its own."""
        sets: list[list[Unit]] = []
        found: list[Sharing] = []
        for unit in units:
            alone = self._whole([unit])
            best, gain = None, 0.0
            for index in sorted(range(len(sets)), key=lambda i: found[i].busy + found[i].switching)[:TRIED]:
                together = self._whole([*sets[index], unit])
                if together is None or alone is None:
                    continue
                saved = self._money(found[index]) + self._money(alone) - self._money(together)
                if saved > gain:
                    best, gain = (index, together), saved
            if best is not None:
                sets[best[0]].append(unit)
                found[best[0]] = best[1]
            elif alone is not None:
                sets.append([unit])
                found.append(alone)
            else:
                sets.append([unit])
                found.append(self._sharings.of([unit])[0])
        return self._cheapest(sets)

    def _improved(self, start: list[Sharing]) -> list[Sharing]:
        """Dissolve sets into others while that saves devices."""
        best, score = start, self.score(start)
        for _ in range(ROUNDS):
            before = score
            for one in sorted(best, key=lambda sharing: sharing.busy)[:TRIED]:
                rest = [[*other.units] for other in best if other is not one]
                moved = self._spread(rest, one.units)
                if moved is not None and (now := self.score(moved)) < score:
                    best, score = moved, now
                    break
            if score == before:
                break
        return best

    def _spread(self, sets: list[list[Unit]], units: Sequence[Unit]) -> list[Sharing] | None:
        """Put units into sets that need no more devices for it; None where one fits nowhere."""
        for unit in units:
            for members in sorted(sets, key=len)[: 4 * TRIED]:
                now, then = self._whole(members), self._whole([*members, unit])
                if now is not None and then is not None and self._money(then) <= self._money(now):
                    members.append(unit)
                    break
            else:
                return None
        return self._cheapest(sets)

    def _whole(self, units: Sequence[Unit]) -> Sharing | None:
        """Return the best way of a set on whole devices."""
        ways = [way for way in self._sharings.of(units) if way.profile is None]
        return min(ways, key=self._rank, default=None)

    def _cheapest(self, sets: Iterable[Sequence[Unit]]) -> list[Sharing]:
        """Choose a way for each set: whole devices, or slices where these save some."""
        found = []
        for units in sets:
            ways = self._sharings.of(units)
            found.append(min(ways, key=lambda way: (self._part(way), *self._rank(way)[1:])))
        return found

    # -- what it costs -------------------------------------------------------------------------------------

    def _rank(self, way: Sharing) -> Score:
        return self._money(way), way.tail_s, self._moves(way)

    def _part(self, way: Sharing) -> float:
        """Return what a way costs, a slice as its part of a device."""
        if way.profile is None:
            return self._money(way)
        whole = max(profile.size for profile in way.machine.device.profiles)
        return way.hosts * way.profile.size / whole * self.price(way.machine.device)

    def _money(self, way: Sharing) -> float:
        return sum(count * self.price(device) for device, count in devices_of([way]).values())

    def price(self, device: Device) -> float:
        """Return what a device counts: its price, or 1 where one is not known."""
        price = (device.price_per_hour or 0.0) if self._has_prices else 1.0
        return price * self._scarce.get(device.kind, 1.0)

    def _moves(self, way: Sharing) -> int:
        """Return how many models would be served in another way than now."""
        if self._today is None:
            return 0
        served = self._today.served
        return sum(
            not any(
                now.strategy is way.strategy and now.replicas == way.hosts for now in served.get(name, ())
            )
            for unit in way.units
            for name in unit.models
        )

    def _found(self, sharings: Sequence[Sharing]) -> Found:
        used = devices_of(sharings)
        count = sum(number for _, number in used.values())
        prices = [(device.price_per_hour, number) for device, number in used.values()]
        money = sum((p or 0.0) * n for p, n in prices) if all(p is not None for p, _ in prices) else None
        return Found(tuple(sharings), self.score(sharings), count, money, self.bound(), self.is_exact)


@dataclass(slots=True)
class _Exact:
    """Looks at every division of some units whose bound is below the best."""

    search: Search
    sharings: Sharings
    units: Sequence[Unit]
    best: list[Sharing]
    sets: list[list[Unit]] = field(default_factory=list)

    def go_on(self, index: int, sets: list[list[Unit]]) -> None:
        """Put the units from `index` on into the sets, or into new ones."""
        if self._least(sets) > self.search.score(self.best)[0]:
            return
        if index == len(self.units):
            self._take(sets)
            return
        unit = self.units[index]
        for members in sets:
            members.append(unit)
            self.go_on(index + 1, sets)
            members.pop()
        sets.append([unit])
        self.go_on(index + 1, sets)
        sets.pop()

    def _least(self, sets: Sequence[Sequence[Unit]]) -> float:
        """Return what a division that goes on from these sets costs at least."""
        if self.search.has_slices:
            return 0.0
        cheapest = min(self.search.price(machine.device) for machine in self.sharings.machines)
        return cheapest * sum(self.sharings.least(members) for members in sets)

    def _take(self, sets: Sequence[Sequence[Unit]]) -> None:
        ways = [self.sharings.of(members) for members in sets]
        if all(ways):
            self._choose(ways, [])

    def _choose(self, ways: Sequence[Sequence[Sharing]], chosen: list[Sharing]) -> None:
        """Choose a way for each further set; a part of a division is never worse than the whole of it."""
        if self.search.score(chosen) >= self.search.score(self.best):
            return
        if len(chosen) == len(ways):
            self.best = list(chosen)
            return
        for way in ways[len(chosen)]:
            self._choose(ways, [*chosen, way])


def devices_of(sharings: Iterable[Sharing]) -> dict[str, tuple[Device, int]]:
    """Count devices by kind: the whole ones, and those that are divided. Circles share none."""
    found: dict[str, tuple[Device, int]] = {}
    slices: dict[tuple[str, str], tuple[Machine, Counter[str]]] = {}
    for one in sharings:
        kind = one.machine.device.kind
        if one.profile is None:
            device, count = found.get(kind, (one.machine.device, 0))
            found[kind] = device, count + one.whole_devices
        else:
            _, counts = slices.setdefault((one.circle, kind), (one.machine, Counter()))
            counts[one.profile.name] += one.hosts
    for (_, kind), (machine, counts) in slices.items():
        device, count = found.get(kind, (machine.device, 0))
        found[kind] = device, count + divided(machine.device, tuple(sorted(counts.items())))
    return found


def _too_many(sharings: Sequence[Sharing], machines: Iterable[Machine]) -> tuple[str, int, int] | None:
    """Return (kind, devices needed, devices there are) of one of which there are too few; None: of none."""
    there: dict[str, float] = defaultdict(float)
    for machine in machines:
        there[machine.device.kind] += math.inf if machine.count is None else machine.count * machine.devices
    short = ((kind, n, int(there[kind])) for kind, (_, n) in devices_of(sharings).items() if n > there[kind])
    return next(short, None)


@lru_cache(maxsize=65536)
def divided(device: Device, counts: tuple[tuple[str, int], ...]) -> int:
    """Return how many devices are divided for some slices of each profile."""
    wanted = [Wanted(profile, count) for profile, count in counts]
    most = sum(count for _, count in counts)
    sizes = {profile.name: profile.size for profile in device.profiles}
    taken = sum(sizes.get(name, 0) * count for name, count in counts)
    least = math.ceil(taken / max(1, Room(0, device.profiles).size))
    for number in range(max(1, least), most + 1):
        try:
            pack([Room(index, device.profiles) for index in range(number)], wanted)
        except NoRoomError:
            continue
        return number
    raise ValueError(f"{device.kind} has no such slices: {counts}")
