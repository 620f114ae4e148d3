"""Finds a legal layout of MIG slices: which GPU gets which, and where on it. Pure.

A slice takes consecutive memory slices of one GPU, from one of the places at which its profile may start.
Compute slices need no rule of their own: where places do not overlap, no GPU has too few of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from engines.devices.layout import Profile

_NOWHERE = 10**6  # behind every memory slice
Counts = tuple[int, ...]  # of each wanted profile, in one order


class NoRoomError(Exception):
    """The wanted slices fit no layout; says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Slices of one profile, on a certain GPU or on any."""

    profile: str
    count: int
    gpu: int | None = None  # its index; None: any


@dataclass(frozen=True, slots=True)
class Room:
    """A GPU without slices, and the profiles that it has."""

    gpu: int  # its index
    profiles: tuple[Profile, ...]

    @property
    def size(self) -> int:
        """Its memory slices."""
        return max((start + p.size for p in self.profiles for start in p.starts), default=0)

    @property
    def compute(self) -> int:
        """Its compute slices: as many as its largest profile has."""
        return max((p.compute for p in self.profiles), default=0)


@dataclass(frozen=True, slots=True)
class Placed:
    """One slice at its place."""

    profile: Profile
    start: int

    @property
    def taken(self) -> range:
        """The memory slices that it takes."""
        return range(self.start, self.start + self.profile.size)


@dataclass(frozen=True, slots=True)
class Layout:
    """The slices of one GPU, by their places."""

    room: Room
    slices: tuple[Placed, ...]

    def room_left(self) -> tuple[Placed, ...]:
        """Return further slices that would use most of what is left."""
        return _fill(self.room.profiles, frozenset(self._taken(self.slices)), Counter(_names(self.slices)))

    def wasted(self) -> tuple[tuple[int, ...], int]:
        """Return the memory slices that no further slice can use, and the number of such compute slices."""
        whole = (*self.slices, *self.room_left())
        free = sorted(set(range(self.room.size)) - self._taken(whole))
        return tuple(free), self.room.compute - sum(placed.profile.compute for placed in whole)

    @staticmethod
    def _taken(slices: Sequence[Placed]) -> set[int]:
        return {at for placed in slices for at in placed.taken}


def pack(rooms: Sequence[Room], wanted: Sequence[Wanted]) -> list[Layout]:
    """Return the layout of each GPU that gets slices, on as few GPUs as possible. Raises `NoRoomError`."""
    _check_known(rooms, wanted)
    names = sorted({want.profile for want in wanted})
    fixed, free = _sorted(rooms, wanted)
    search = _Search(rooms, names, [_counts(names, fixed[room.gpu]) for room in rooms])
    goal = _counts(names, free)
    for most in range(len(rooms) + 1):
        found = search.spread(0, goal, most)
        if found is not None:
            return [layout for layout in found if layout.slices]
    gpus = "GPU" if len(rooms) == 1 else f"{len(rooms)} GPUs"
    has = "has" if len(rooms) == 1 else "have"
    raise NoRoomError(
        f"the {gpus} given here {has} no room for {_said(free)}: ask for fewer, or name more GPUs"
    )


def _sorted(rooms: Sequence[Room], wanted: Sequence[Wanted]) -> tuple[dict[int, Counter[str]], Counter[str]]:
    """Count what belongs on each GPU, and what may be anywhere. Raises `NoRoomError` for one GPU's."""
    fixed = {room.gpu: Counter[str]() for room in rooms}
    free = Counter[str]()
    for want in wanted:
        (free if want.gpu is None else fixed[want.gpu])[want.profile] += want.count
    for room in rooms:
        if place(room, fixed[room.gpu]) is None:
            raise NoRoomError(
                f"GPU {room.gpu} has no room for {_said(fixed[room.gpu])} together: ask for fewer"
            )
    return fixed, free


def place(room: Room, counts: Mapping[str, int]) -> tuple[Placed, ...] | None:
    """Return places for these slices on one empty GPU, by their starts; None where there are none."""
    profiles = {profile.name: profile for profile in room.profiles}
    todo: list[Profile] = []
    for name, count in counts.items():
        if count and (name not in profiles or count > profiles[name].most):
            return None
        todo += [profiles[name]] * count if count else []
    todo.sort(key=lambda profile: (-profile.size, -profile.compute, profile.name))
    found = _place(tuple(todo), frozenset(), _NOWHERE)
    return None if found is None else tuple(sorted(found, key=lambda placed: placed.start))


def _place(todo: tuple[Profile, ...], taken: frozenset[int], before: int) -> tuple[Placed, ...] | None:
    """Place the first from the far end, so that the beginning, where large ones start, stays free longest.

    One that is like the one before it goes `before` that, since their order makes no difference.
    """
    if not todo:
        return ()
    profile, *others = todo
    for start in reversed(profile.starts):
        placed = Placed(profile, start)
        if start < before and taken.isdisjoint(placed.taken):
            behind = start if others and others[0] == profile else _NOWHERE
            rest = _place(tuple(others), taken | set(placed.taken), behind)
            if rest is not None:
                return (placed, *rest)
    return None


class _Search:
    """Spreads slices that may be anywhere over GPUs, beside those that belong to one."""

    def __init__(self, rooms: Sequence[Room], names: Sequence[str], fixed: Sequence[Counts]) -> None:
        self._rooms, self._names, self._fixed = rooms, names, fixed
        self._failed: set[tuple[int, Counts, int]] = set()
        offered = [profile for room in rooms for profile in room.profiles]
        self._largest = [max(room.size for room in rooms[index:]) for index in range(len(rooms))]
        self._most = [max((p.most for p in offered if p.name == name), default=0) for name in names]
        self._sizes = [min((p.size for p in offered if p.name == name), default=0) for name in names]

    def spread(self, index: int, left: Counts, most: int) -> list[Layout] | None:
        """Return layouts of the GPUs from `index` on, at most `most` of which get any of those `left`."""
        if index == len(self._rooms):
            return None if any(left) else []
        if (index, left, most) in self._failed or self._is_hopeless(index, left, most):
            return None
        for taken in self._choices(index, left, most):
            # One that gets nothing: then those like it that follow get nothing either, by their order.
            after = index + 1 if any(taken) else self._after_alike(index)
            still = tuple(a - b for a, b in zip(left, taken, strict=True))
            rest = self.spread(after, still, most - int(any(taken)))
            if rest is not None:
                return [*(self._layout(at, taken) for at in range(index, after)), *rest]
        self._failed.add((index, left, most))
        return None

    def _choices(self, index: int, left: Counts, most: int) -> Iterator[Counts]:
        """What a GPU may take of those left: as much as there is room for, in every way, or nothing.

        Less than that need not be tried: whatever fits elsewhere fits there still.
        """
        if most and any(left):
            alike = Room(0, self._rooms[index].profiles)  # so that it is looked for once for all GPUs like it
            possible = tuple(map(min, left, self._most))
            yield from _maximal(alike, tuple(self._names), self._fixed[index], possible)
        yield tuple(0 for _ in left)

    def _is_hopeless(self, index: int, left: Counts, most: int) -> bool:
        """Whether those left are larger together than what there is room for."""
        return _size(left, self._sizes) > min(most, len(self._rooms) - index) * self._largest[index]

    def _after_alike(self, index: int) -> int:
        """Return the index behind those that have the same profiles, and the same slices already."""
        after = index + 1
        while (
            after < len(self._rooms)
            and self._rooms[index].profiles == self._rooms[after].profiles
            and self._fixed[index] == self._fixed[after]
        ):
            after += 1
        return after

    def _layout(self, index: int, taken: Counts) -> Layout:
        room = self._rooms[index]
        both = (a + b for a, b in zip(taken, self._fixed[index], strict=True))
        slices = place(room, dict(zip(self._names, both, strict=True)))
        if slices is None:
            raise AssertionError("what was chosen has places")
        return Layout(room, slices)


@lru_cache(maxsize=4096)
def _maximal(room: Room, names: tuple[str, ...], fixed: Counts, left: Counts) -> tuple[Counts, ...]:
    """Every choice that fits beside the `fixed` ones and to which no more can be added; largest first."""
    fitting = _fitting(room, names, fixed, left)
    maximal = [counts for counts in fitting if any(counts) and fitting.isdisjoint(_one_more(counts))]
    of_room = {profile.name: profile.size for profile in room.profiles}
    sizes = [of_room.get(name, 0) for name in names]
    return tuple(sorted(maximal, key=lambda counts: (-_size(counts, sizes), counts)))


def _fitting(room: Room, names: Sequence[str], fixed: Counts, left: Counts) -> set[Counts]:
    """Every choice of those left for which there are places beside the `fixed` ones."""
    fitting: set[Counts] = set()
    todo = [tuple(0 for _ in names)]
    while todo:
        counts = todo.pop()
        if counts in fitting:
            continue
        both = (a + b for a, b in zip(counts, fixed, strict=True))
        if place(room, dict(zip(names, both, strict=True))) is None:
            continue
        fitting.add(counts)
        todo += [more for more in _one_more(counts) if all(a <= b for a, b in zip(more, left, strict=True))]
    return fitting


def _one_more(counts: Counts) -> list[Counts]:
    return [(*counts[:i], count + 1, *counts[i + 1 :]) for i, count in enumerate(counts)]


def _size(counts: Counts, sizes: Sequence[int]) -> int:
    return sum(count * size for count, size in zip(counts, sizes, strict=True))


def _fill(profiles: tuple[Profile, ...], taken: frozenset[int], used: Counter[str]) -> tuple[Placed, ...]:
    """Return the slices that use most memory slices of those free, then most compute slices, then fewest."""
    best: tuple[Placed, ...] = ()
    for profile in profiles:
        for start in profile.starts if used[profile.name] < profile.most else ():
            placed = Placed(profile, start)
            # In one order only: what follows lies behind.
            if taken.isdisjoint(placed.taken):
                behind = taken | set(range(start + profile.size))
                found = (placed, *_fill(profiles, behind, used + Counter([profile.name])))
                best = max(best, found, key=_worth)
    return best


def _worth(slices: Sequence[Placed]) -> tuple[int, int, int]:
    memory, compute = sum(p.profile.size for p in slices), sum(p.profile.compute for p in slices)
    return memory, compute, -len(slices)


def _check_known(rooms: Sequence[Room], wanted: Sequence[Wanted]) -> None:
    """Raise `NoRoomError` for a profile or a GPU that is not there."""
    gpus = {room.gpu: room for room in rooms}
    for want in wanted:
        if want.gpu is not None and want.gpu not in gpus:
            raise NoRoomError(f"there is no GPU {want.gpu}")
        among = rooms if want.gpu is None else [gpus[want.gpu]]
        known = sorted({profile.name for room in among for profile in room.profiles})
        if want.profile not in known:
            raise NoRoomError(
                f"no GPU here has profile {want.profile}; there are {', '.join(known) or 'none'}"
            )


def _counts(names: Sequence[str], counter: Counter[str]) -> Counts:
    return tuple(counter[name] for name in names)


def _names(slices: Sequence[Placed]) -> list[str]:
    return [placed.profile.name for placed in slices]


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in counts.items() if count)
