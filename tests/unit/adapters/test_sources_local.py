"""An adapter in a folder of this machine: copied whole, unchanged, and nothing else with it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError, ChecksumMismatch, SourceUnavailable, StoreFull
from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from adapters.sources import FetchSettings, FetchStopped
from tests.unit.adapters.remotes import Follower, contents, served


@pytest.fixture
def source(tmp_path: Path) -> Path:
    served(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


def test_the_two_files_are_copied_and_nothing_else(source: Path, into: Path) -> None:
    expected = contents(source)
    (source / "README.md").write_text("not served")
    into.mkdir()
    (into / "old").write_text("of another fetch")
    follower = Follower()
    follower.fetch(f"file://{source}", into)
    assert contents(into) == expected
    size = sum(map(len, expected.values()))
    assert follower.seen[-1] == (size, size)


def test_a_link_inside_the_folder_is_followed_and_one_out_of_it_refused(
    source: Path, into: Path, tmp_path: Path
) -> None:
    weights = source / WEIGHTS_FILE
    weights.rename(source / "real.safetensors")
    weights.symlink_to("real.safetensors")
    Follower().fetch(str(source), into)
    assert not (into / WEIGHTS_FILE).is_symlink()
    shutil.move(source / "real.safetensors", tmp_path / "real.safetensors")
    weights.unlink()
    weights.symlink_to(tmp_path / "real.safetensors")
    with pytest.raises(AdapterError, match="link that leaves the folder"):
        Follower().fetch(str(source), into)


def test_a_pipe_is_refused_and_does_not_hang(source: Path, into: Path) -> None:
    (source / WEIGHTS_FILE).unlink()
    os.mkfifo(source / WEIGHTS_FILE)
    with pytest.raises(AdapterError, match="is no file"):
        Follower().fetch(str(source), into)


@pytest.mark.parametrize("swap", ["pipe", "link", "gone"])
def test_a_file_replaced_after_the_check_is_not_read(
    source: Path, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    manifest = inspect_adapter(source)

    def inspect_then_swap(folder: Path) -> object:
        (source / WEIGHTS_FILE).unlink()
        if swap == "pipe":
            os.mkfifo(source / WEIGHTS_FILE)
        elif swap == "link":
            (source / WEIGHTS_FILE).symlink_to(secret)
        return manifest

    monkeypatch.setattr("adapters.checkpoint.inspect_adapter", inspect_then_swap)
    with pytest.raises(SourceUnavailable, match="changed while it was copied"):
        Follower().fetch(str(source), into)
    assert contents(into) == {}


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, into: Path) -> None:
    with pytest.raises(AdapterError, match="not a folder"):
        Follower().fetch(str(tmp_path / "nowhere"), into)


def test_a_folder_that_is_too_large_is_refused(source: Path, into: Path) -> None:
    with pytest.raises(AdapterError, match="larger than 1 KiB"):
        Follower().fetch(str(source), into, max_bytes=1024)


def test_the_weights_are_checked_against_a_promised_checksum(source: Path, into: Path) -> None:
    right = hashlib.sha256((source / WEIGHTS_FILE).read_bytes()).hexdigest()
    Follower().fetch(str(source), into, sha256=right)
    with pytest.raises(ChecksumMismatch):
        Follower().fetch(str(source), into, sha256="0" * 64)
    assert contents(into) == {}


def test_a_change_during_the_copy_is_noticed(source: Path, into: Path) -> None:
    follower = Follower()
    config = (source / CONFIG_FILE).read_text()
    report = follower.progress

    def change(done: int, total: int | None) -> None:
        report(done, total)
        (source / CONFIG_FILE).write_text(config)
        raw = bytearray((source / WEIGHTS_FILE).read_bytes())
        raw[-1] ^= 1
        (source / WEIGHTS_FILE).write_bytes(raw)

    follower.progress = change  # type: ignore[method-assign]
    with pytest.raises(SourceUnavailable, match="changed while it was copied"):
        follower.fetch(str(source), into)
    assert contents(into) == {}


def test_a_copy_can_be_stopped(source: Path, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=1).fetch(str(source), into)


def test_what_does_not_fit_on_the_disk_is_not_begun(
    source: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreFull, match="has 1000 B"):
        Follower().fetch(str(source), into)


def test_a_model_of_the_model_store_is_copied_by_the_resolver_that_was_given(
    source: Path, into: Path
) -> None:
    asked = []

    def folder_of(tag: str) -> Path:
        asked.append(tag)
        return source

    Follower().fetch("bento://support:v1", into, settings=FetchSettings(model_folder=folder_of))
    assert asked == ["support:v1"]
    assert contents(into) == contents(source)


def test_without_a_model_store_its_models_are_refused(into: Path) -> None:
    with pytest.raises(AdapterError, match="no BentoML model store"):
        Follower().fetch("bento://support:v1", into)


def test_messages_about_a_model_do_not_tell_where_it_lies(source: Path, into: Path) -> None:
    (source / WEIGHTS_FILE).rename(source / "adapter_model.bin")
    with pytest.raises(AdapterError) as raised:
        Follower().fetch("bento://a:b", into, settings=FetchSettings(model_folder=lambda _: source))
    assert str(source) not in str(raised.value)
    assert "bento://a:b" in str(raised.value)
