"""Ids of requests: as many digits as a UUID has, none twice."""

from __future__ import annotations

import re
from itertools import pairwise

from routing.asgi import IDS_AT_ONCE, random_id


def test_ids_are_32_hexadecimal_digits_and_none_comes_twice() -> None:
    ids = [random_id() for _ in range(4 * IDS_AT_ONCE)]
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids)
    assert len(set(ids)) == len(ids)


def test_an_id_tells_nothing_of_the_next() -> None:
    ids = [int(random_id(), 16) for _ in range(4 * IDS_AT_ONCE)]
    assert len({later - id_ for id_, later in pairwise(ids)}) == len(ids) - 1
