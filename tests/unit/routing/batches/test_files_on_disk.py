"""Frames, journals and files: what is cut off, sealed, moved or lost is noticed, and nothing read wrongly."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from fleet.batch_settings import BatchSettings
from routing.batches.journal import Journal, Outcome
from routing.batches.opening import key_of
from routing.batches.sealing import FRAME_BYTES, KEY_BYTES, DamagedFile, Sealer
from routing.batches.vault import Vault

KEY = bytes(range(KEY_BYTES))
OUTCOMES = [Outcome(n, n % 2 == 0, b'{"custom_id":"%d"}' % n, ("id", 1.0, None, True)) for n in range(1, 6)]


@pytest.mark.parametrize("key", [None, KEY])
def test_frames_end_before_one_that_is_cut_off_anywhere(key: bytes | None) -> None:
    sealer = Sealer(key)
    whole = b"".join(sealer.seal(data, "file", n) for n, data in enumerate([b"first", b"second", b"x" * 99]))
    assert list(sealer.frames(io.BytesIO(whole), "file")) == [b"first", b"second", b"x" * 99]
    last = len(sealer.seal(b"x" * 99, "file", 2))
    for cut in (1, last // 2, last - 1):
        file = io.BytesIO(whole[:-cut])
        assert list(sealer.frames(file, "file")) == [b"first", b"second"]
        assert file.tell() == len(whole) - last, "it stands where writing goes on"
    spoilt = bytearray(whole)
    spoilt[-1] ^= 1
    assert list(sealer.frames(io.BytesIO(spoilt), "file")) == [b"first", b"second"]


def test_a_sealed_frame_shows_nothing_and_fits_no_other_place() -> None:
    sealer = Sealer(KEY)
    frame = sealer.seal(b"secret", "file", 0)
    assert b"secret" not in frame
    for name, before in (("other", b""), ("file", sealer.seal(b"", "file", 0))):
        with pytest.raises(DamagedFile, match="another key, or damaged"):
            list(sealer.frames(io.BytesIO(before + frame), name))
    with pytest.raises(DamagedFile, match="another key"):
        list(Sealer(bytes(KEY_BYTES)).frames(io.BytesIO(frame), "file"))
    with pytest.raises(DamagedFile, match=r"gateway\.batches\.key is not set"):
        list(Sealer().frames(io.BytesIO(frame), "file"))
    plain = Sealer().seal(b"of before", "file", 0)
    assert list(sealer.frames(io.BytesIO(plain), "file")) == [b"of before"], "files of before can be read"


@pytest.mark.parametrize("text", ["", "short", "A" * 44, "%"])
def test_a_key_that_is_none_is_refused_with_the_remedy(text: str) -> None:
    settings = BatchSettings(key_variable="BATCH_KEY")
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        key_of(settings, {"BATCH_KEY": text})
    assert key_of(BatchSettings(), {}) is None


@pytest.mark.parametrize("key", [None, KEY])
def test_a_journal_gives_back_what_was_written_and_goes_on_behind_a_half(
    tmp_path: Path, key: bytes | None
) -> None:
    path, sealer = tmp_path / "batch", Sealer(key)
    journal = Journal(path, sealer)
    assert list(journal.read()) == []
    journal.append(OUTCOMES[:2])
    journal.append(OUTCOMES[2:3])
    with path.open("ab") as file:
        file.write(sealer.seal(b"half", "batch", 2)[:-3])  # as a kill leaves it
    again = Journal(path, sealer)
    assert list(again.read()) == OUTCOMES[:3]
    again.append(OUTCOMES[3:])
    assert list(Journal(path, sealer).read()) == OUTCOMES


def test_what_a_failed_write_has_left_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "batch", Sealer())
    journal.append(OUTCOMES[:1])
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            journal.append(OUTCOMES[1:4])
    journal.append(OUTCOMES[1:2])
    assert list(Journal(tmp_path / "batch", Sealer()).read()) == OUTCOMES[:2]


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "batch", Sealer())
    journal.append(OUTCOMES[:2])
    journal.append(OUTCOMES[1:3])
    assert [outcome.number for outcome in journal.read()] == [1, 2, 3]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a local S3."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"]).create_bucket(Bucket="bucket")
        yield "s3://bucket/some/prefix"
    server.stop()


@pytest.mark.parametrize("where", ["folder", "bucket"])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_file_is_read_as_it_was_written_and_gone_once_removed(
    tmp_path: Path, request: pytest.FixtureRequest, where: str, key: bytes | None
) -> None:
    address = request.getfixturevalue("bucket") if where == "bucket" else None
    vault = Vault(tmp_path, address=address, key=key)
    content = os.urandom(2 * FRAME_BYTES + 5)
    with vault.write("file-1") as writer:
        for start in range(0, len(content), 700_000):
            writer.write(content[start : start + 700_000])
        writer.finish()
    assert b"".join(vault.read("file-1", len(content))) == content
    assert (tmp_path / "files").exists() == (where == "folder")
    assert not list((tmp_path / "incoming").iterdir())
    with pytest.raises(DamagedFile, match="bytes and not"):
        list(vault.read("file-1", len(content) + 1))
    vault.remove("file-1")
    vault.remove("file-1")
    with pytest.raises(FileNotFoundError):
        list(vault.read("file-1", len(content)))


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    with vault.write("file-1") as writer:
        writer.write(b"x" * (FRAME_BYTES + 1))
    assert not list(tmp_path.rglob("file-1*"))


def test_a_folder_has_one_user_one_name_and_is_swept_of_what_nobody_knows(tmp_path: Path) -> None:
    vault, other = Vault(tmp_path), Vault(tmp_path)
    vault.take()
    with pytest.raises(OSError, match="has not ended yet"):
        other.take()
    assert vault.home() == other.home() and len(vault.home()) == 32
    for name in ("known", "unknown"):
        with vault.write(name) as writer:
            writer.write(b"x")
            writer.finish()
    (tmp_path / "incoming" / "half").write_bytes(b"x")
    vault.sweep({"known"})
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["known"]
    assert not list((tmp_path / "incoming").iterdir())
    vault.release()
    other.take()
    other.release()
