"""May another request wait?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routing.scheduling.overflow import MULTIPLES, may_grow


def fill(rank: int, limit: int) -> int:
    """How much of the whole one tenant of a band can take while nobody else waits."""
    own = 0
    while may_grow(rank, own=own, adds=1, used=own, limit=limit):
        own += 1
    return own


def test_one_tenant_alone_leaves_room_for_others() -> None:
    assert [fill(rank, 1000) for rank in range(3)] == [800, 500, 200]


def test_a_quiet_tenant_finds_a_place_behind_a_flood() -> None:
    flood = fill(1, 1000)
    assert may_grow(1, own=0, adds=1, used=flood, limit=1000)
    assert may_grow(2, own=0, adds=1, used=flood, limit=1000), "of a lower band too"


def test_nothing_waits_beyond_the_limit() -> None:
    assert not may_grow(0, own=0, adds=1, used=1000, limit=1000)
    assert not may_grow(0, own=0, adds=2.0, used=999.6, limit=1000)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50), st.integers(1, 200))
def test_all_together_never_exceed_the_limit(ranks: list[int], limit: int) -> None:
    owned = [0] * len(ranks)
    moved = True
    while moved:
        moved = False
        for tenant, rank in enumerate(ranks):
            if may_grow(rank, own=owned[tenant], adds=1, used=sum(owned), limit=limit):
                owned[tenant] += 1
                moved = True
    assert sum(owned) <= limit
    assert all(own <= MULTIPLES[rank] * limit for own, rank in zip(owned, ranks, strict=True))
