"""Which pool gets which devices? Names, whole devices, and slices in a legal layout. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engines.devices.packing import Layout, Room, Wanted, pack
from planning.naming import clean, unique
from planning.search import divided
from planning.sharing import Sharing
from planning.units import OPEN


@dataclass(frozen=True, slots=True)
class Place:
    """Where one host of a set is."""

    kind: str  # of device
    devices: tuple[int, ...]  # numbers, counted through each kind
    profile: str = ""  # of a slice
    start: int = 0  # memory slice at which it begins


@dataclass(frozen=True, slots=True)
class Placed:
    """A set, its name, and where its hosts are."""

    name: str
    sharing: Sharing
    places: tuple[Place, ...]


def place_all(sharings: Sequence[Sharing]) -> list[Placed]:
    """Give every set a name and devices: whole ones first, then those that are divided, circle by circle."""
    names = _names(sharings)
    found: dict[int, tuple[Place, ...]] = {}
    following: Counter[str] = Counter()
    for index, one in enumerate(sharings):
        if one.profile is None:
            kind, size = one.machine.device.kind, one.loads[0].devices
            first = following[kind]
            found[index] = tuple(
                Place(kind, tuple(range(first + i * size, first + (i + 1) * size))) for i in range(one.hosts)
            )
            following[kind] += one.hosts * size
    for members in _divided(sharings).values():
        found |= _on_slices([(index, sharings[index]) for index in members], following)
    return [Placed(names[i], one, found[i]) for i, one in enumerate(sharings)]


def _divided(sharings: Sequence[Sharing]) -> dict[tuple[str, str], list[int]]:
    """Sets on slices by circle and kind of device: others' slices are on other devices."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, one in enumerate(sharings):
        if one.profile is not None:
            found[one.circle, one.machine.device.kind].append(index)
    return found


def _on_slices(
    members: Sequence[tuple[int, Sharing]], following: Counter[str]
) -> dict[int, tuple[Place, ...]]:
    device = members[0][1].machine.device
    counts: Counter[str] = Counter()
    for _, one in members:
        counts[one.profile.name if one.profile else ""] += one.hosts
    number, first = divided(device, tuple(sorted(counts.items()))), following[device.kind]
    following[device.kind] += number
    rooms = [Room(first + i, device.profiles) for i in range(number)]
    free = _by_profile(pack(rooms, [Wanted(name, count) for name, count in sorted(counts.items())]))
    found = {}
    for index, one in sorted(members, key=lambda member: member[1].hosts, reverse=True):
        name = one.profile.name if one.profile else ""
        taken = [free[name].pop(0) for _ in range(one.hosts)]
        found[index] = tuple(Place(device.kind, (gpu,), name, start) for gpu, start in taken)
    return found


def _by_profile(layouts: Iterable[Layout]) -> dict[str, list[tuple[int, int]]]:
    """(device, start) of the slices of each profile."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for layout in layouts:
        for placed in layout.slices:
            found[placed.profile.name].append((layout.room.gpu, placed.start))
    return found


def _names(sharings: Sequence[Sharing]) -> list[str]:
    """Name sets after their only base model, or after how they share; and after whose they are."""
    wished = []
    for one in sharings:
        stem = one.loads[0].unit.base.name if len(one.loads) == 1 else one.strategy.value
        whose = "" if one.circle == OPEN else f"-{one.circle.partition(' ')[2]}"
        wished.append(clean(f"{stem}{whose}", fallback="pool"))
    return unique(wished)
