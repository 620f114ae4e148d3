"""Layouts of slices are legal, complete, and on as few GPUs as can be: compared with trying everything."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.devices.layout import Gpu, Profile
from engines.devices.packing import Layout, NoRoomError, Room, Wanted, pack, place
from engines.devices.profiles import (
    BY_NAME,
    COMPUTE_SLICES,
    MEMORY_SLICES,
    MODELS,
    known_profiles,
    profiles_of,
)

H200 = profiles_of(BY_NAME["h200"])
NAMES = [profile.name for profile in H200]
# A GPU whose profiles leave gaps in other ways than NVIDIA's: the search must not count on theirs.
ODD = (
    Profile("1g.1gb", 1, 1, (0, 3), 2**30, 2),
    Profile("2g.2gb", 2, 3, (0, 1), 2 * 2**30, 1),
    Profile("3g.3gb", 3, 4, (0,), 3 * 2**30, 1),
)
COUNTS = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4), min_size=1, max_size=4)


def fits(profiles: Sequence[Profile], items: Sequence[str]) -> bool:
    """Whether slices fit one GPU: tries every place of each."""
    by_name = {profile.name: profile for profile in profiles}
    if any(name not in by_name or count > by_name[name].most for name, count in Counter(items).items()):
        return False
    for starts in itertools.product(*(by_name[name].starts for name in items)):
        taken = [
            at
            for name, start in zip(items, starts, strict=True)
            for at in range(start, start + by_name[name].size)
        ]
        if len(taken) == len(set(taken)):
            return True
    return False


def spreads(items: Sequence[str], gpus: int) -> Iterator[list[list[str]]]:
    """Every way to spread items over GPUs."""
    for chosen in itertools.product(range(gpus), repeat=len(items)):
        yield [[item for item, at in zip(items, chosen, strict=True) if at == gpu] for gpu in range(gpus)]


def fewest(rooms: Sequence[Room], items: Sequence[str]) -> int | None:
    """The least number of GPUs on which items fit, found by trying everything."""
    good = [
        sum(map(bool, spread))
        for spread in spreads(items, len(rooms))
        if all(fits(room.profiles, some) for room, some in zip(rooms, spread, strict=True))
    ]
    return min(good, default=None)


def assert_legal(layouts: Sequence[Layout]) -> None:
    for layout in layouts:
        taken = [at for placed in layout.slices for at in placed.taken]
        assert len(taken) == len(set(taken))
        assert all(placed.start in placed.profile.starts for placed in layout.slices)
        counts = Counter(placed.profile for placed in layout.slices)
        assert all(count <= profile.most for profile, count in counts.items())
        assert sum(placed.profile.compute for placed in layout.slices) <= COMPUTE_SLICES


def items_of(layouts: Sequence[Layout]) -> Counter[str]:
    return Counter(placed.profile.name for layout in layouts for placed in layout.slices)


@settings(max_examples=60, deadline=None)
@given(COUNTS.filter(lambda counts: sum(counts.values()) <= 6))
def test_one_gpu_has_room_exactly_if_some_places_do_not_overlap(counts: dict[str, int]) -> None:
    placed = place(Room(0, H200), counts)
    items = [name for name, count in counts.items() for _ in range(count)]
    assert (placed is not None) == fits(H200, items)
    if placed is not None:
        assert_legal([Layout(Room(0, H200), placed)])
        assert Counter(one.profile.name for one in placed) == Counter(items)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 2), min_size=1, max_size=3),
    st.integers(1, 3),
)
def test_several_gpus_are_filled_with_as_few_as_can_be(counts: dict[str, int], gpus: int) -> None:
    rooms = [Room(index, H200) for index in range(gpus)]
    items = [name for name, count in counts.items() for _ in range(count)]
    least = fewest(rooms, items)
    try:
        layouts = pack(rooms, [Wanted(name, count) for name, count in counts.items()])
    except NoRoomError:
        assert least is None
    else:
        assert_legal(layouts)
        assert items_of(layouts) == Counter(items)
        assert len(layouts) == least


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([ODD, H200[:3]]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["1g.1gb", "2g.2gb", "3g.3gb", *NAMES[:3]]), min_size=1, max_size=5),
    st.none() | st.integers(0, 2),
)
def test_gpus_of_different_kinds_and_slices_that_belong_to_one(
    kinds: list[tuple[Profile, ...]], items: list[str], on: int | None
) -> None:
    rooms = [Room(index, profiles) for index, profiles in enumerate(kinds)]
    wanted = [Wanted(items[0], 1, on), *(Wanted(name, 1) for name in items[1:])]
    possible = any(
        all(fits(room.profiles, some) for room, some in zip(rooms, spread, strict=True))
        for spread in spreads(items, len(rooms))
        if on is None or (on < len(rooms) and items[0] in spread[on])
    )
    try:
        layouts = pack(rooms, wanted)
    except NoRoomError:
        assert not possible
    else:
        assert possible and items_of(layouts) == Counter(items)
        if on is not None:
            assert items[0] in items_of([layout for layout in layouts if layout.room.gpu == on])


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_what_is_called_wasted_no_further_slice_can_use(counts: dict[str, int]) -> None:
    placed = place(Room(0, H200), counts)
    if placed is None:
        return
    layout = Layout(Room(0, H200), placed)
    whole = Layout(layout.room, (*layout.slices, *layout.room_left()))
    assert_legal([whole])
    assert whole.room_left() == ()
    memory, compute = layout.wasted()
    assert len(memory) == MEMORY_SLICES - sum(one.profile.size for one in whole.slices)
    assert compute == COMPUTE_SLICES - sum(one.profile.compute for one in whole.slices)


def wasted(*wanted: tuple[str, int]) -> tuple[tuple[int, ...], int]:
    (layout,) = pack([Room(0, H200)], [Wanted(*want) for want in wanted])
    return layout.wasted()


def test_known_wastes_have_their_names() -> None:
    assert wasted(("1g.18gb", 7)) == ((7,), 0)  # the eighth of the memory has no compute slice
    assert wasted(("3g.71gb", 2)) == ((), 1)
    assert wasted(("4g.71gb", 1), ("3g.71gb", 1)) == ((), 0)
    assert wasted(("1g.35gb", 4)) == ((), 3)


def test_a_small_slice_leaves_the_places_of_large_ones_free() -> None:
    (layout,) = pack([Room(0, H200)], [Wanted("1g.18gb", 1), Wanted("2g.35gb", 1)])
    assert [(placed.profile.name, placed.start) for placed in layout.slices] == [
        ("2g.35gb", 4),
        ("1g.18gb", 6),
    ]
    assert [(placed.profile.name, placed.start) for placed in layout.room_left()] == [("4g.71gb", 0)]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (
            [Wanted("1g.18gb", 8)],
            "the GPU given here has no room for 8 x 1g.18gb: ask for fewer, or name more GPUs",
        ),
        ([Wanted("9g.1gb", 1)], f"no GPU here has profile 9g.1gb; there are {', '.join(sorted(NAMES))}"),
        ([Wanted("1g.18gb", 1, 3)], "there is no GPU 3"),
        (
            [Wanted("4g.71gb", 1, 0), Wanted("4g.71gb", 1, 0)],
            "GPU 0 has no room for 2 x 4g.71gb together: ask for fewer",
        ),
        (
            [Wanted("7g.141gb", 1, 0), Wanted("1g.18gb", 1)],
            "the GPU given here has no room for 1 x 1g.18gb: ask for fewer, or name more GPUs",
        ),
    ],
)
def test_what_has_no_room_is_said(wanted: list[Wanted], why: str) -> None:
    with pytest.raises(NoRoomError) as refused:
        pack([Room(0, H200)], wanted)
    assert str(refused.value) == why


def test_a_machine_of_sixteen_gpus_is_planned() -> None:
    counts = dict(zip(NAMES, (20, 8, 8, 8, 4, 2), strict=True))
    layouts = pack([Room(i, H200) for i in range(16)], [Wanted(name, n) for name, n in counts.items()])
    assert_legal(layouts)
    assert items_of(layouts) == Counter(counts) and len(layouts) == 15


@pytest.mark.parametrize(
    ("name", "gib", "profile"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, "1g.5gb"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "1g.10gb"),
        ("NVIDIA A100 80GB PCIe", 79.2, "2g.20gb"),
        ("NVIDIA H100 80GB HBM3", 79.6, "3g.40gb"),
        ("NVIDIA H100 NVL", 93.6, "1g.12gb"),
        ("NVIDIA GH200 480GB", 95.6, "7g.96gb"),
        ("NVIDIA GH200 144G HBM3e", 140.0, "1g.18gb"),
        ("NVIDIA H200", 140.4, "3g.71gb"),
        ("NVIDIA B200", 179.1, "1g.45gb"),
    ],
)
def test_gpus_that_tell_no_profiles_are_known_by_name_and_memory(name: str, gib: float, profile: str) -> None:
    gpu = Gpu(0, "GPU-a", name, int(gib * 2**30), mig=False)
    assert profile in {one.name for one in known_profiles(gpu)}


def test_what_a_driver_tells_counts_before_what_is_known_and_unknown_gpus_have_none() -> None:
    assert known_profiles(Gpu(0, "GPU-a", "NVIDIA H200", profiles=ODD)) == ODD
    assert known_profiles(Gpu(0, "GPU-a", "NVIDIA L4", 23 * 2**30)) == ()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_known_profiles_follow_the_same_rules(model: object) -> None:
    profiles = profiles_of(model)  # type: ignore[arg-type]
    for profile in profiles:
        assert all(start + profile.size <= MEMORY_SLICES for start in profile.starts)
        assert place(Room(0, profiles), {profile.name: profile.most}) is not None
        assert place(Room(0, profiles), {profile.name: profile.most + 1}) is None
    assert len({profile.name for profile in profiles}) == len(profiles)
