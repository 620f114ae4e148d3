"""How could these units share devices, and how many would they need? Pure.

1. Alone: an engine on each of some devices, all the time (`multi-lora`, `replica-per-model`).
2. On slices: the same on MIG slices of one profile (`mig`).
3. Beside each other: all awake on one device (`model-mesh`, as many awake as there are).
4. By turns: fewer awake than there are (`model-mesh`; `swap` with one awake). How often a model is missed
   follows from the rates (Che et al. 2002: the least recently used one goes), and what it costs from the
   switches. Where this fleet has measured how its models wake, those that go may sleep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from engines.devices.layout import Profile
from fleet.types import Strategy
from planning.loads import ENGINE_BYTES, USABLE, CostOf, Load, load_of
from planning.switching import BY_MEMORY, WAKES, Leaving, Switches, switches_of
from planning.units import Unit
from planning.values import Device, Machine

MOST_TOGETHER = 48  # units that share hosts: each host has a replica of each
MOST_HOSTS = 64


@dataclass(frozen=True, slots=True)
class Rules:
    """What a plan keeps to."""

    busy: float = 0.7  # most of a device's time that full batches may take
    switching: float = 0.2  # most of a device's time that switches may take
    active: float = 3.0  # most models a device that are asked for at once and take turns
    strategies: frozenset[Strategy] = frozenset(Strategy)  # that may be used
    awake: frozenset[str] = frozenset()  # models that must not take turns: by hand, or found in the simulator
    spare: tuple[tuple[str, float], ...] = ()  # models whose load counts so many times
    wary: bool = False  # a model takes turns only where the dearest switch that is likely is quick enough

    def times(self, unit: Unit) -> float:
        """Return by how much the load of a unit counts."""
        return max((factor for name, factor in self.spare if name in unit.models), default=1.0)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Some units, and the devices that they have together."""

    loads: tuple[Load, ...]
    machine: Machine
    strategy: Strategy
    hosts: int
    awake: int  # units awake at once on each host
    pinned: tuple[str, ...] = ()  # base models that are always awake, of those that take turns
    profile: Profile | None = None  # of the slice that each host is
    tail_s: float = 0.0  # what misses add to the first token, all requests a second together
    switching: float = 0.0  # part of a device's time that switches take
    misses: tuple[float, ...] = ()  # part of each unit's requests that find it asleep
    switches: Switches = BY_MEMORY  # how those come that take turns

    @property
    def units(self) -> tuple[Unit, ...]:
        """Who shares."""
        return tuple(load.unit for load in self.loads)

    @property
    def circle(self) -> str:
        """Whose devices these are."""
        return self.loads[0].unit.circle

    @property
    def whole_devices(self) -> int:
        """Devices that it has whole."""
        return 0 if self.profile is not None else self.hosts * self.loads[0].devices

    @property
    def takes_turns(self) -> bool:
        """Whether something of it may be asleep."""
        return self.awake < len(self.loads)

    @property
    def busy(self) -> float:
        """Part of the devices' time with full batches."""
        return sum(load.load for load in self.loads) / self.hosts

    @property
    def memory_bytes(self) -> int:
        """Memory of one of its devices, or of its slice."""
        whole = self.machine.device.memory_bytes
        return whole if self.profile is None else min(whole, self.profile.memory_bytes)

    def cache_tokens(self, load: Load) -> int:
        """Return what the cache of one unit holds: what it needs, and its part of what is left.

        What is left while the largest are awake is for all that are awake alike.
        """
        per_token = load.unit.base.kv_bytes_per_token
        largest = sorted((one.need_bytes for one in self.loads), reverse=True)[: self.awake]
        asleep = ENGINE_BYTES * (len(self.loads) - self.awake) if self.switches.sleeps else 0
        left = max(0.0, self.memory_bytes * USABLE - asleep - sum(largest)) / self.awake
        return load.kv_tokens + int(left * load.devices / per_token) if per_token else load.kv_tokens


class Sharings:
    """Answers for sets of units, each set once."""

    def __init__(self, machines: Sequence[Machine], cost_of: CostOf, duration_s: float, rules: Rules) -> None:
        self.machines, self.rules = machines, rules
        self._cost_of, self._duration_s = cost_of, duration_s
        self._loads: dict[tuple[str, str], Load] = {}
        self._found: dict[frozenset[str], tuple[Sharing, ...]] = {}

    def load(self, unit: Unit, device: Device) -> Load:
        """Return what a unit asks of a kind of device."""
        key = unit.name, device.kind
        if key not in self._loads:
            load = load_of(unit, device, self._cost_of, self._duration_s)
            self._loads[key] = replace(load, load=load.load * self.rules.times(unit))
        return self._loads[key]

    def of(self, units: Sequence[Unit]) -> tuple[Sharing, ...]:
        """Return the ways in which units can share; empty: there is none."""
        key = frozenset(unit.name for unit in units)
        if key not in self._found:
            self._found[key] = tuple(self._all(units))
        return self._found[key]

    def least(self, units: Sequence[Unit]) -> int:
        """Return a bound: no set that holds these units has fewer whole devices, if it has no slices."""
        hosts = min(
            math.ceil(sum(self.load(u, m.device).load for u in units) / self.rules.busy)
            for m in self.machines
        )
        return max(1, hosts) * max(unit.base.tensor_parallel for unit in units)

    # -- the ways ------------------------------------------------------------------------------------------

    def _all(self, units: Sequence[Unit]) -> list[Sharing]:
        found: list[Sharing | None] = []
        for machine in self.machines:
            if len(units) == 1:
                found += [self._alone(units[0], machine), *self._on_slices(units[0], machine)]
            elif self._may_share(units, machine):
                found += [self._beside(units, machine), *self._by_turns(units, machine)]
        return [one for one in found if one is not None]

    def _may_share(self, units: Sequence[Unit], machine: Machine) -> bool:
        engines = {unit.base.tensor_parallel for unit in units}
        return len({unit.circle for unit in units}) == 1 and len(engines) == 1 and len(units) <= MOST_TOGETHER

    def _alone(self, unit: Unit, machine: Machine) -> Sharing | None:
        load = self.load(unit, machine.device)
        strategy = Strategy.MULTI_LORA if unit.adapters else Strategy.REPLICA_PER_MODEL
        if load.need_bytes > machine.device.memory_bytes * USABLE or load.devices > machine.devices:
            return None
        return Sharing((load,), machine, strategy, self._hosts([load]), 1)

    def _on_slices(self, unit: Unit, machine: Machine) -> list[Sharing]:
        if Strategy.MIG not in self.rules.strategies or unit.base.tensor_parallel > 1:
            return []
        found = []
        for profile in machine.device.profiles:
            load = self.load(unit, machine.device.slice_of(profile))
            hosts = self._hosts([load])
            fits = load.need_bytes <= min(profile.memory_bytes, machine.device.memory_bytes) * USABLE
            if fits and hosts <= profile.most and self._is_quick(load):
                found.append(Sharing((load,), machine, Strategy.MIG, hosts, 1, profile=profile))
        return found

    def _is_quick(self, load: Load) -> bool:
        """Whether a prompt alone is within the objective."""
        return load.unit.ttft_s is None or load.first_s <= load.unit.ttft_s / 2

    def _beside(self, units: Sequence[Unit], machine: Machine) -> Sharing | None:
        if Strategy.MODEL_MESH not in self.rules.strategies:
            return None
        loads = tuple(self.load(unit, machine.device) for unit in units)
        if sum(load.need_bytes for load in loads) > machine.device.memory_bytes * USABLE:
            return None
        if self._hosts(loads) > 1:
            return None  # a second host would have a copy of a model only once the first is full
        pinned = tuple(load.unit.base.name for load in loads)
        return Sharing(loads, machine, Strategy.MODEL_MESH, 1, len(loads), pinned)

    def _by_turns(self, units: Sequence[Unit], machine: Machine) -> list[Sharing | None]:
        loads = tuple(self.load(unit, machine.device) for unit in units)
        if max(load.load for load in loads) > self.rules.busy:
            return []  # it would need a copy on each host all the time
        found = [self._with_switches(loads, machine, switches_of(loads, machine))]
        shapes = {load.unit.base.shape for load in loads}
        if len(shapes) > 1 and any(WAKES & load.cost.switches.keys() for load in loads):
            found.append(self._with_switches(loads, machine, switches_of(loads, machine, sleeps=True)))
        return found

    def _with_switches(self, loads: tuple[Load, ...], machine: Machine, switches: Switches) -> Sharing | None:
        """Return how units take turns, on as few hosts as their switches allow; None: on none."""
        awake = _most_awake(loads, machine.device, ENGINE_BYTES if switches.sleeps else 0)
        strategy = Strategy.SWAP if awake == 1 else Strategy.MODEL_MESH
        if not 0 < awake < len(loads) or not self._has(strategy):
            return None
        leaving = Leaving(switches)
        stay = self._staying(loads, leaving, awake)
        if len(stay) >= awake:
            return None
        costs = np.array([0.0 if load.unit.base.name in stay else leaving.usual_s(load) for load in loads])
        turning = sum(load.active for load in loads if load.unit.base.name not in stay)
        least = max(self._hosts(loads), math.ceil(turning / self.rules.active))
        shared = Sharing(loads, machine, strategy, least, awake, stay, switches=switches)
        ways = (self._turns(replace(shared, hosts=hosts), costs) for hosts in range(least, MOST_HOSTS + 1))
        return next(filter(None, ways), None)

    def _has(self, strategy: Strategy) -> bool:
        return strategy in self.rules.strategies

    def _turns(self, sharing: Sharing, costs: np.ndarray) -> Sharing | None:
        """Return the same with its misses; None where switches take too much of the hosts."""
        loads, hosts, rules = sharing.loads, sharing.hosts, self.rules
        free = np.array([load.unit.base.name not in sharing.pinned for load in loads])
        rates = np.array([load.rate_per_s for load in loads])
        misses = np.where(
            free, missed(np.where(free, rates, 0.0), sharing.awake * hosts - len(sharing.pinned)), 0.0
        )
        switching_s = float((rates * misses * np.where(misses > 0, costs, 0.0)).sum())
        if switching_s / hosts > rules.switching:
            return None
        return replace(
            sharing, tail_s=switching_s, switching=switching_s / hosts, misses=tuple(map(float, misses))
        )

    def _staying(self, loads: Sequence[Load], leaving: Leaving, most: int) -> tuple[str, ...]:
        """Return base models that must not take turns; what is `leaving` says what a switch takes.

        It was said of them, or their objective is shorter than a switch.
        """
        free = {load.unit.base.name: load for load in loads}
        stay = [name for name, load in free.items() if self.rules.awake & {*load.unit.models}]
        if self.rules.wary:
            return self._staying_warily(free, stay, leaving, most)
        for load in loads:
            leaving.add(load)
        late = [name for name, load in free.items() if self._is_late(load, leaving)]
        return tuple(dict.fromkeys((*stay, *late)))

    def _staying_warily(
        self, free: dict[str, Load], stay: list[str], leaving: Leaving, most: int
    ) -> tuple[str, ...]:
        """Return the same, up to `most`, by the dearest switch that is likely.

        Those whose shape is asked for least stay first: once they no longer go, the others' switches may be
        cheap.
        """
        for name in stay:
            del free[name]
        for load in free.values():
            leaving.add(load)
        while len(stay) < most:
            late = [name for name, load in free.items() if self._is_late(load, leaving)]
            if not late:
                break
            first = min(late, key=lambda name: (leaving.rate_of(free[name]), free[name].unit.ttft_s))
            stay.append(first)
            leaving.remove(free.pop(first))
        return tuple(stay)

    def _is_late(self, load: Load, leaving: Leaving) -> bool:
        """Whether a switch to a unit, and its prompt, take longer than its objective."""
        objective_s = load.unit.ttft_s
        if objective_s is None:
            return False
        switch_s = leaving.dearest_s(load) if self.rules.wary else leaving.usual_s(load)
        return objective_s < switch_s + load.first_s

    def _hosts(self, loads: Sequence[Load]) -> int:
        """Return how many hosts their requests keep busy enough."""
        return max(1, math.ceil(sum(load.load for load in loads) / self.rules.busy - 1e-9))


def _most_awake(loads: Sequence[Load], device: Device, asleep_bytes: int) -> int:
    """Return how many may be awake at once, whichever they are; each that sleeps keeps `asleep_bytes`."""
    sizes = sorted((load.need_bytes for load in loads), reverse=True)
    room = device.memory_bytes * USABLE
    return sum(
        held + asleep_bytes * (len(sizes) - count) <= room
        for count, held in enumerate(accumulate(sizes), start=1)
    )


def missed(rates: np.ndarray, places: float) -> np.ndarray:
    """Return the part of each model's requests that find it gone, where the least recently used one goes.

    Che's approximation: a model is there if it was asked for within a time that is the same for all, and so
    long that `places` are there on average.
    """
    asked = rates > 0
    if places >= np.count_nonzero(asked):
        return np.zeros_like(rates)
    low, high = 0.0, 1.0 / float(rates[asked].min()) * 50
    for _ in range(40):
        middle = (low + high) / 2
        if float((1 - np.exp(-rates * middle)).sum()) < places:
            low = middle
        else:
            high = middle
    return np.where(asked, np.exp(-rates * high), 0.0)
