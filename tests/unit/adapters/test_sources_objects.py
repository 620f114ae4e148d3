"""Adapters in S3, against a real local S3 server, and in Google Cloud Storage, against its recorded API.

The Google server here answers the two calls that are made in the shape of the JSON API; credentials, and how
the real service behaves under load, are not shown by it.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from adapters.errors import AdapterError, ChecksumMismatch, SourceUnavailable
from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from adapters.sources import FetchStopped, objects
from tests.unit.adapters.remotes import (
    Follower,
    Reply,
    Request,
    Server,
    contents,
    http_server,
    ranged,
    served,
    tar,
    unused_port,
)

PIECE_BYTES = 20_000


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(objects, "PIECE_BYTES", PIECE_BYTES)
    client = boto3.client("s3")
    client.create_bucket(Bucket="acme")
    yield client
    for item in client.list_objects_v2(Bucket="acme").get("Contents", []):
        client.delete_object(Bucket="acme", Key=item["Key"])
    client.close()
    gc.collect()


def upload(s3: Any, prefix: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        s3.put_object(Bucket="acme", Key=f"{prefix}/{name}", Body=content)


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and first byte of every range that is asked for."""
    import s3fs  # type: ignore[import-untyped]

    asked: list[tuple[str, int]] = []
    cat_file = s3fs.S3FileSystem.cat_file

    def noted(self: Any, path: str, start: int, end: int) -> Any:
        asked.append((path.rpartition("/")[2], start))
        return cat_file(self, path, start=start, end=end)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", noted)
    return asked


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


def test_a_prefix_is_fetched_in_pieces(
    s3: Any, into: Path, tmp_path: Path, ranges: list[tuple[str, int]]
) -> None:
    files = served(tmp_path / "made")
    upload(s3, "adapters/support", {**files, "README.md": b"not served"})
    follower = Follower()
    follower.fetch(
        "s3://acme/adapters/support/", into, sha256=hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()
    )
    assert contents(into) == files
    total = sum(map(len, files.values()))
    assert follower.seen[-1] == (total, total)
    assert [start for name, start in ranges if name == WEIGHTS_FILE][:2] == [0, PIECE_BYTES]


def test_an_archive_in_a_bucket_is_unpacked(s3: Any, into: Path, tmp_path: Path) -> None:
    files = served(tmp_path / "made")
    upload(s3, "adapters", {"support.tar.gz": tar(files)})
    Follower().fetch("s3://acme/adapters/support.tar.gz", into)
    assert contents(into) == files


def test_a_fetch_goes_on_where_another_one_ended(
    s3: Any, into: Path, tmp_path: Path, ranges: list[tuple[str, int]]
) -> None:
    files = served(tmp_path / "made")
    upload(s3, "a", files)
    with pytest.raises(FetchStopped):
        Follower(stop_after=3 * PIECE_BYTES).fetch("s3://acme/a", into)
    kept = (into / f".{WEIGHTS_FILE}.part").stat().st_size
    assert kept >= 2 * PIECE_BYTES
    ranges.clear()
    Follower().fetch("s3://acme/a", into)
    assert contents(into) == files
    assert ranges[0] == (WEIGHTS_FILE, kept)


def test_files_that_were_being_named_when_the_process_died_are_not_fetched_again(
    s3: Any, into: Path, tmp_path: Path, ranges: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = served(tmp_path / "made")
    upload(s3, "a", files)

    def killed(folder: Path, names: object) -> None:
        (folder / f".{CONFIG_FILE}.part").rename(folder / CONFIG_FILE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("adapters.sources.fetching.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            Follower().fetch("s3://acme/a", into)
    ranges.clear()
    Follower().fetch("s3://acme/a", into)
    assert contents(into) == files
    assert ranges == []


def test_an_object_that_changed_since_is_fetched_anew(
    s3: Any, into: Path, tmp_path: Path, ranges: list[tuple[str, int]]
) -> None:
    upload(s3, "a", served(tmp_path / "old"))
    with pytest.raises(FetchStopped):
        Follower(stop_after=3 * PIECE_BYTES).fetch("s3://acme/a", into)
    files = served(tmp_path / "new", lora_alpha=99)
    files[WEIGHTS_FILE] = files[WEIGHTS_FILE][:-1] + b"x"
    upload(s3, "a", files)
    ranges.clear()
    Follower().fetch("s3://acme/a", into)
    assert contents(into) == files
    assert (WEIGHTS_FILE, 0) in ranges


def test_an_object_that_changes_meanwhile_is_fetched_anew(s3: Any, into: Path, tmp_path: Path) -> None:
    upload(s3, "a", served(tmp_path / "old"))
    files = served(tmp_path / "new", lora_alpha=99)
    files[WEIGHTS_FILE] = files[WEIGHTS_FILE][:-1] + b"x"
    follower = Follower()
    report = follower.progress

    def change(done: int, total: int | None) -> None:
        if not follower.seen:
            upload(s3, "a", files)
        report(done, total)

    follower.progress = change  # type: ignore[method-assign]
    follower.fetch("s3://acme/a", into)
    assert contents(into) == files
    assert follower.waits == [0.5]


def test_an_object_that_vanishes_meanwhile_may_come_back(s3: Any, into: Path, tmp_path: Path) -> None:
    upload(s3, "a", served(tmp_path / "made"))
    follower = Follower()
    report = follower.progress

    def vanish(done: int, total: int | None) -> None:
        report(done, total)
        if done > PIECE_BYTES:
            s3.delete_object(Bucket="acme", Key=f"a/{WEIGHTS_FILE}")

    follower.progress = vanish  # type: ignore[method-assign]
    with pytest.raises(SourceUnavailable, match="went away"):
        follower.fetch("s3://acme/a", into)
    assert (into / f".{WEIGHTS_FILE}.part").exists()


@pytest.mark.parametrize(
    "source", ["s3://acme/nowhere", "s3://acme-other/a", "s3://acme/a.zip", "s3://acme/bin"]
)
def test_what_is_not_there_is_refused_at_once(s3: Any, into: Path, source: str) -> None:
    upload(s3, "bin", {CONFIG_FILE: b"{}", "adapter_model.bin": b"pickle"})
    follower = Follower()
    with pytest.raises(AdapterError, match=r"there is no .*correct|safe_serialization") as raised:
        follower.fetch(source, into)
    assert not isinstance(raised.value, SourceUnavailable)
    assert follower.waits == []


def test_what_may_not_be_read_is_refused_at_once(
    s3: Any, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(s3fs.S3FileSystem, "info", denied)
    with pytest.raises(AdapterError, match="grant them read access"):
        Follower().fetch("s3://acme/a", into)


def test_without_credentials_the_message_says_so(
    s3: Any, into: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AdapterError, match="gateway's credentials") as raised:
        Follower().fetch("s3://acme/a", into)
    assert not isinstance(raised.value, SourceUnavailable)


def test_an_endpoint_that_does_not_answer_is_tried_again(
    s3: Any, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port()}")
    follower = Follower()
    with pytest.raises(SourceUnavailable, match="tried 4 times"):
        follower.fetch("s3://acme/a", into)
    assert follower.waits == [0.5, 1.0, 2.0]


def test_a_wrong_checksum_leaves_nothing(s3: Any, into: Path, tmp_path: Path) -> None:
    upload(s3, "a", served(tmp_path / "made"))
    with pytest.raises(ChecksumMismatch, match=WEIGHTS_FILE):
        Follower().fetch("s3://acme/a", into, sha256="0" * 64)
    assert contents(into) == {}


def test_objects_over_the_limit_are_refused_unread(
    s3: Any, into: Path, tmp_path: Path, ranges: list[tuple[str, int]]
) -> None:
    upload(s3, "a", served(tmp_path / "made"))
    with pytest.raises(AdapterError, match="larger than 1 KiB"):
        Follower().fetch("s3://acme/a", into, max_bytes=1024)
    assert ranges == []


class Bucket:
    """A bucket of Google Cloud Storage, by its JSON API."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.generation = 1
        self.server: Server
        self.is_forbidden = False

    def answer(self, request: Request) -> Reply:
        if self.is_forbidden:
            return Reply(b'{"error": {"code": 403, "message": "no"}}', 403)
        path = request.path.partition("?")[0]
        if path == "/storage/v1/b/acme/o":
            return Reply(b'{"kind": "storage#objects"}', headers={"Content-Type": "application/json"})
        key = unquote(path.rpartition("/o/")[2])
        content = self.files.get(key)
        if content is None:
            return Reply(b'{"error": {"code": 404, "message": "No such object"}}', 404)
        if "alt=media" in request.path:
            return ranged(content, request)
        described = {
            "kind": "storage#object",
            "name": key,
            "bucket": "acme",
            "size": str(len(content)),
            "generation": str(self.generation),
            "etag": f"e{self.generation}",
            "contentType": "application/octet-stream",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }
        return Reply(json.dumps(described).encode(), headers={"Content-Type": "application/json"})

    def starts(self) -> list[int]:
        """First bytes of the requests that read weights."""
        return [r.start for r in self.server.requests if "alt=media" in r.path and "safetensors" in r.path]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    files = served(tmp_path / "made")
    bucket = Bucket({f"support/{name}": content for name, content in files.items()})
    monkeypatch.setattr(objects, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with http_server(bucket.answer) as server:
        bucket.server = server
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield bucket


def test_a_google_bucket_is_read_in_pieces_and_continued(bucket: Bucket, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=3 * PIECE_BYTES).fetch("gs://acme/support", into)
    bucket.server.requests.clear()
    Follower().fetch("gs://acme/support", into)
    assert {f"support/{name}": content for name, content in contents(into).items()} == bucket.files
    assert min(bucket.starts()) >= 2 * PIECE_BYTES


def test_another_generation_in_a_google_bucket_is_fetched_anew(bucket: Bucket, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=3 * PIECE_BYTES).fetch("gs://acme/support", into)
    bucket.generation = 2
    bucket.server.requests.clear()
    Follower().fetch("gs://acme/support", into)
    assert min(bucket.starts()) == 0


def test_a_google_bucket_says_what_is_missing_and_what_is_forbidden(bucket: Bucket, into: Path) -> None:
    with pytest.raises(AdapterError, match="there is no"):
        Follower().fetch("gs://acme/nowhere", into)
    bucket.is_forbidden = True
    with pytest.raises(AdapterError, match="grant them read access"):
        Follower().fetch("gs://acme/support", into)
