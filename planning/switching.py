"""What does a switch take between models that share hosts? Pure.

A host takes the cheapest way that is allowed between two models, by what each took there before
(`engines.places`). So does a plan: of the ways whose time is known, the shortest. A fork and a waking are
known where this fleet has measured them; until then a model of another shape is a cold start. What a model
takes the very first time, before it can be held or sleep, is not told apart.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from planning.loads import Load
from planning.values import Machine, Way

# A kind of switch that fewer of a model's requests meet cannot break a promise of 99 %.
LIKELY = 0.01
_ROUNDED = 1e-9  # a part that is left of sums and differences
WAKES = frozenset({Way.WAKE1, Way.WAKE2})


@dataclass(frozen=True, slots=True)
class Switches:
    """How models of one set come."""

    in_memory: bool = True  # the memory of the host holds the weights of all
    sleeps: bool = False  # one that goes sleeps, so that its own engine waits for it

    def of(self, load: Load, *, same_shape: bool) -> float:
        """Return the seconds until a unit answers after one of its shape, or of another one, has gone.

        Infinite where no way is known.
        """
        # vLLM does not sleep at level 2 with slots for adapters (`engines.switching.sleep`).
        sleeps = self.sleeps and (self.in_memory or not load.slots)
        figure = load.cost.switch_s(same_shape=same_shape, in_host_memory=self.in_memory, sleeps=sleeps)
        return math.inf if figure is None else figure.value

    def between(self, load: Load, went: Load | None) -> float:
        """Return the seconds until a unit answers; `went` goes for it, None: there was room."""
        return self.of(load, same_shape=went is not None and is_alike(load, went))


BY_MEMORY = Switches()


def is_alike(one: Load, other: Load) -> bool:
    """Whether two units have one shape, so that one can take over the engine of the other."""
    shape = one.unit.base.shape
    return bool(shape) and shape == other.unit.base.shape


def switches_of(loads: Sequence[Load], machine: Machine, *, sleeps: bool = False) -> Switches:
    """Return how units come at a host that they share."""
    held = sum(load.unit.base.weight_bytes for load in loads)
    room = machine.host_memory_bytes * loads[0].devices / machine.devices
    return Switches(held <= room, sleeps)


@dataclass(slots=True)
class Leaving:
    """Units of which one goes whenever another comes, the more likely the more it is asked for."""

    switches: Switches
    rate_per_s: float = 0.0
    by_shape: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)  # after a like one, after another

    def add(self, load: Load) -> None:
        """Take one in."""
        self._count(load, load.rate_per_s)
        alike, other = (self.switches.of(load, same_shape=same) for same in (True, False))
        self.seconds[load.unit.base.name] = alike, other

    def remove(self, load: Load) -> None:
        """Take one out: it stays."""
        self._count(load, -load.rate_per_s)

    def usual_s(self, load: Load) -> float:
        """Return what a switch to one of them takes on average."""
        return sum(part * seconds for part, seconds in self._kinds(load) if part > _ROUNDED)

    def dearest_s(self, load: Load) -> float:
        """Return what the dearest switch takes that one of them is likely to meet."""
        return max((seconds for part, seconds in self._kinds(load) if part > LIKELY), default=0.0)

    def rate_of(self, load: Load) -> float:
        """Return how often its shape is asked for."""
        shape = load.unit.base.shape
        return self.by_shape[shape] if shape else load.rate_per_s

    def _count(self, load: Load, rate_per_s: float) -> None:
        self.rate_per_s += rate_per_s
        self.by_shape[load.unit.base.shape] += rate_per_s

    def _kinds(self, load: Load) -> tuple[tuple[float, float], ...]:
        """Return how likely a switch is after one of the same shape, and of another one, and its seconds."""
        others = self.rate_per_s - load.rate_per_s
        alike = max(self.rate_of(load) - load.rate_per_s, 0.0)
        part = min(1.0, alike / others) if others > 0 else 0.0
        alike_s, other_s = self.seconds[load.unit.base.name]
        return (part, alike_s), (1 - part, other_s)
