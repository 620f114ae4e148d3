"""Does what waits on disk come back whole, once, and from every start?"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from routing.usage import journal as module
from routing.usage.entries import ID, Row
from routing.usage.journal import Journal
from tests.unit.routing.usage.made import record, rows

FIVE = rows(*[record()] * 5)


def read_all(journal: Journal) -> list[Row]:
    found: list[Row] = []
    while True:
        with journal.oldest() as oldest:
            if oldest is None:
                return found
            path, some = oldest
            found += some
            journal.remove(path)


def test_what_was_appended_is_read_back_in_its_order_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "usage", "a")
    assert journal.append(FIVE[:2]) and journal.append(FIVE[2:])
    assert journal.waiting()
    assert read_all(journal) == FIVE
    assert not journal.waiting()
    assert read_all(journal) == []


def test_an_empty_folder_holds_nothing_and_is_not_made_for_that(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "usage", "a")
    assert read_all(journal) == [] and not journal.waiting()
    assert not (tmp_path / "usage").exists()


def test_the_next_start_finds_what_the_last_one_left(tmp_path: Path) -> None:
    first = Journal(tmp_path, "a")
    first.append(FIVE)
    first.close()
    assert read_all(Journal(tmp_path, "b")) == FIVE


def test_what_somebody_else_is_writing_is_left_to_them(tmp_path: Path) -> None:
    other, mine = Journal(tmp_path, "a"), Journal(tmp_path, "b")
    other.append(FIVE[:1])
    mine.append(FIVE[1:])
    assert read_all(mine) == FIVE[1:]
    other.close()
    assert read_all(mine) == FIVE[:1]


def test_what_is_being_read_is_not_given_to_another(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, "a"), Journal(tmp_path, "b")
    first.append(FIVE)
    with first.oldest() as found:
        assert found is not None
        assert read_all(second) == []
    assert read_all(second) == FIVE, "it was not removed, so it is still to be read"


def test_a_row_that_a_crash_has_cut_off_is_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path, "a")
    journal.append(FIVE)
    journal.close()
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 10)
    with caplog.at_level(logging.WARNING, "tenantry.usage"):
        assert read_all(Journal(tmp_path, "b")) == FIVE[:4]
    assert "cut it off" in caplog.text


def test_there_is_a_bound_to_what_it_takes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a", max_bytes=1000)
    assert journal.append(FIVE[:2])
    assert not journal.append(FIVE)
    assert read_all(journal) == FIVE[:2]
    assert journal.append(FIVE[:2]), "there is room again"


def test_long_journals_are_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 500)
    journal = Journal(tmp_path, "a")
    for row in FIVE:
        journal.append([row])
    assert len(list(tmp_path.iterdir())) > 1
    assert [row[ID] for row in read_all(journal)] == [row[ID] for row in FIVE]


def test_a_disk_that_fails_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "a")
    journal.append(FIVE[:1])

    def fail(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            journal.append(FIVE[1:3])
    journal.append(FIVE[3:])
    assert read_all(journal) == FIVE[:1] + FIVE[3:]


@pytest.mark.parametrize("removed", [False, True])
def test_a_file_that_a_reader_takes_before_its_writer_has_it_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    writer, reader = Journal(tmp_path, "a"), Journal(tmp_path, "b")
    lock, taken = fcntl.flock, ExitStack()

    def read_first(file: int, how: int) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", lock)
            found = taken.enter_context(reader.oldest())
            assert found is not None
            reader.remove(found[0])
            if removed:
                taken.close()
            lock(file, how)

    opened = len(os.listdir("/proc/self/fd"))
    with (
        taken,
        monkeypatch.context() as patched,
        pytest.raises(OSError, match="removed" if removed else "unavailable"),
    ):
        patched.setattr(fcntl, "flock", read_first)
        writer.append(FIVE[:2])
    assert len(os.listdir("/proc/self/fd")) == opened
    assert writer.append(FIVE[:2])
    writer.close()
    assert read_all(reader) == FIVE[:2]


def test_its_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    Journal(tmp_path / "usage", "a").append(FIVE)
    (path,) = (tmp_path / "usage").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "usage").stat().st_mode & 0o077 == 0


def test_a_file_that_is_set_aside_is_kept_and_not_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a")
    journal.append(FIVE)
    with journal.oldest() as found:
        assert found is not None
        kept = journal.set_aside(found[0])
    assert kept.exists() and read_all(journal) == []
