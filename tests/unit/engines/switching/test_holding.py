"""What of host memory may hold weights, and which make room?"""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.switching.holding import MIN_RESERVE_BYTES, HostMemory, host_memory, who_makes_room

GIB = 2**30


@pytest.mark.parametrize(
    ("held", "needed", "spare", "leave"),
    [
        ({}, 5, 5, ()),
        ({}, 6, 5, None),
        ({"a": 3, "b": 3}, 5, 5, ()),
        ({"a": 3, "b": 3}, 6, 5, ("a",)),
        ({"a": 3, "b": 3}, 11, 5, ("a", "b")),
        ({"a": 3, "b": 3}, 12, 5, None),
    ],
)
def test_those_put_longest_ago_make_room_and_none_where_it_is_in_vain(
    held: dict[str, int], needed: int, spare: int, leave: tuple[str, ...] | None
) -> None:
    assert who_makes_room(held, needed, spare) == leave


def test_a_part_stays_free_for_others() -> None:
    assert HostMemory(100 * GIB, 50 * GIB).spare_bytes == 40 * GIB
    assert HostMemory(4 * GIB, 3 * GIB).spare_bytes == 3 * GIB - MIN_RESERVE_BYTES
    assert HostMemory(4 * GIB, GIB).spare_bytes == 0


def test_the_containers_bound_counts_where_it_is_lower(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8192 kB\nMemFree: 1 kB\nMemAvailable: 4096 kB\n")
    assert host_memory(meminfo, tmp_path) == HostMemory(8192 * 1024, 4096 * 1024)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1048576\n")
    assert host_memory(meminfo, tmp_path) == HostMemory(8192 * 1024, 4096 * 1024)
    (tmp_path / "memory.max").write_text("2097152\n")
    assert host_memory(meminfo, tmp_path) == HostMemory(2097152, 1048576)
