"""The store of adapter versions: whole or absent, one owner, and room made without touching what is used."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError, ChecksumMismatch, StoreFull
from adapters.layout import CONFIG_FILE, SERVED_FILES, WEIGHTS_FILE
from adapters.store import VersionStore
from tests.unit.adapters.remotes import contents
from tests.unit.fleet.files import adapter_folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VersionStore]:
    with VersionStore(tmp_path / "state" / "adapters", budget_bytes=None) as store:
        yield store


def staged(store: VersionStore, key: str, alpha: int = 16) -> str:
    """Stage an adapter whose content depends on alpha; returns its digest."""
    folder = store.stage(key)
    shutil.rmtree(folder)
    return inspect_adapter(adapter_folder(folder, lora_alpha=alpha)).digest


def published(store: VersionStore, alpha: int, used_s: float = 0.0) -> str:
    """Publish an adapter as if it had last been used at a Unix time."""
    digest = staged(store, "key", alpha)
    os.utime(store.publish("key", digest), (used_s, used_s))
    return digest


def size_of(store: VersionStore, digest: str) -> int:
    return next(version.size_bytes for version in store.usage() if version.digest == digest)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_version_lies_under_its_digest_with_its_two_files_read_only(store: VersionStore) -> None:
    digest = staged(store, "key")
    (store.stage("key") / "left-over").write_text("")
    folder = store.publish("key", digest)
    assert folder == store.folder_of(digest)
    assert folder.parts[-2:] == (digest[:2], digest)
    assert set(contents(folder)) == set(SERVED_FILES)
    assert {mode(folder / name) for name in SERVED_FILES} == {0o444}
    assert store.has(digest)
    assert store.check(digest)


def test_its_folders_are_for_their_owner_alone(store: VersionStore) -> None:
    folder = store.publish("key", staged(store, "key"))
    top = folder.parent.parent
    assert {mode(path) for path in (top, top / ".staging", folder.parent)} == {0o700}
    assert mode(top / ".lock") == 0o600


def test_a_key_keeps_its_folder_and_never_becomes_a_path(store: VersionStore) -> None:
    first = store.stage("../../etc/passwd\n")
    assert first == store.stage("../../etc/passwd\n")
    assert first.parent == store.stage("other").parent
    assert first != store.stage("other")
    assert first.name.isalnum()


def test_publishing_again_changes_nothing(store: VersionStore) -> None:
    digest = staged(store, "one")
    store.publish("one", digest)
    inode = (store.folder_of(digest) / WEIGHTS_FILE).stat().st_ino
    assert store.publish("one", digest) == store.folder_of(digest)
    staged(store, "two")
    store.publish("two", digest)
    assert (store.folder_of(digest) / WEIGHTS_FILE).stat().st_ino == inode
    assert list((store.folder_of(digest).parent.parent / ".staging").iterdir()) == []


def test_two_who_publish_the_same_at_once_both_succeed(store: VersionStore) -> None:
    keys = [f"key-{number}" for number in range(8)]
    digests = {staged(store, key) for key in keys}
    assert len(digests) == 1
    digest = digests.pop()
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda key: store.publish(key, digest), keys))
    assert set(folders) == {store.folder_of(digest)}
    assert store.check(digest)


def test_what_is_not_what_was_checked_is_not_published(store: VersionStore) -> None:
    digest = staged(store, "key")
    staged(store, "key", alpha=99)
    with pytest.raises(ChecksumMismatch, match="fetch them again"):
        store.publish("key", digest)
    (store.stage("key") / CONFIG_FILE).unlink()
    with pytest.raises(ChecksumMismatch):
        store.publish("key", digest)
    with pytest.raises(ChecksumMismatch):
        store.publish("never staged", digest)
    assert not store.has(digest)


def test_a_broken_version_is_noticed_and_replaced_by_publishing_it_again(store: VersionStore) -> None:
    digest = published(store, 16)
    weights = store.folder_of(digest) / WEIGHTS_FILE
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-4] + b"rot!")
    assert store.has(digest)
    assert not store.check(digest)
    published(store, 16)
    assert store.check(digest)


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_only_a_digest_names_a_version(store: VersionStore, digest: str) -> None:
    assert not store.has(digest)
    assert not store.check(digest)
    for call in (store.folder_of, store.remove, store.touch, lambda digest: store.publish("key", digest)):
        with pytest.raises(AdapterError, match="64 hexadecimal digits"):
            call(digest)


def test_a_removed_version_is_gone_and_may_be_removed_again(store: VersionStore) -> None:
    digest = published(store, 16)
    store.remove(digest)
    store.remove(digest)
    store.touch(digest)
    assert not store.has(digest)
    assert store.usage() == []


def test_a_second_process_is_told_who_has_the_folder(store: VersionStore, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "adapters"
    code = (
        "import sys, adapters.store, pathlib; adapters.store.VersionStore(pathlib.Path(sys.argv[1])).open()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"{folder} is in use by another process; stop that one" in second.stderr
    store.close()
    store.close()
    assert subprocess.run(command, check=False).returncode == 0


def test_a_sweep_keeps_versions_and_what_is_wanted_and_nothing_else(store: VersionStore) -> None:
    digest, halved = published(store, 16), published(store, 17)
    wanted, unwanted = store.stage("wanted"), store.stage("unwanted")
    (wanted / ".adapter_model.safetensors.part").write_bytes(b"half")
    (unwanted / ".adapter_model.safetensors.part").write_bytes(b"half")
    (store.folder_of(halved) / WEIGHTS_FILE).unlink()
    trash = store.folder_of(digest).parent.parent / ".trash"
    (trash / "doomed").mkdir()
    (trash / "doomed" / CONFIG_FILE).touch()
    store.sweep({"wanted"})
    assert (store.stage("wanted") / ".adapter_model.safetensors.part").read_bytes() == b"half"
    assert not unwanted.exists()
    assert store.check(digest)
    assert not store.folder_of(halved).exists()
    assert list(trash.iterdir()) == []


def test_what_is_discarded_is_gone(store: VersionStore) -> None:
    (store.stage("key") / "x").touch()
    store.discard("key")
    store.discard("never staged")
    assert list(store.stage("key").iterdir()) == []


def test_room_is_made_by_what_was_used_longest_ago(store: VersionStore, tmp_path: Path) -> None:
    old, pinned, new = (published(store, alpha, used_s=alpha) for alpha in (11, 12, 13))
    size = size_of(store, old)
    store._budget_bytes = 3 * size
    assert store.make_room(0, {pinned}) == []
    assert store.make_room(size, {pinned}) == [old]
    store.touch(new)
    assert store.make_room(2 * size, {pinned}) == [new]
    assert [version.digest for version in store.usage()] == [pinned]


def test_a_touched_version_stays_longer(store: VersionStore) -> None:
    one, two = published(store, 11, used_s=1), published(store, 12, used_s=2)
    store.touch(one)
    store._budget_bytes = 2 * size_of(store, one)
    assert store.make_room(1, ()) == [two]


def test_without_enough_room_nothing_is_deleted_and_the_sizes_are_named(store: VersionStore) -> None:
    free, leased = published(store, 11), published(store, 12)
    size = size_of(store, leased)
    store._budget_bytes = 2 * size
    with pytest.raises(
        StoreFull, match=rf"needs {size + 1} bytes, and of the {2 * size} .* {size} are in use"
    ):
        store.make_room(size + 1, {leased})
    assert {version.digest for version in store.usage()} == {free, leased}


def test_without_a_budget_there_is_always_room(store: VersionStore) -> None:
    published(store, 11)
    assert store.make_room(2**60, ()) == []


def test_a_full_disk_is_told_apart(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = staged(store, "key")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull):
        store.publish("key", digest)
    assert not store.has(digest)
    monkeypatch.undo()
    store.publish("key", digest)
    assert store.check(digest)


def test_another_failure_of_the_disk_is_not_taken_for_a_full_one(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = staged(store, "key")

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        store.publish("key", digest)
