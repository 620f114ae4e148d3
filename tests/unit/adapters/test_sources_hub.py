"""Adapters on the Hugging Face Hub, against a local server with the Hub's routes and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterError, ChecksumMismatch, SourceUnavailable
from adapters.layout import WEIGHTS_FILE
from adapters.sources import FetchStopped, hub
from tests.unit.adapters.remotes import (
    Follower,
    Reply,
    Request,
    Server,
    contents,
    http_server,
    ranged,
    served,
    unused_port,
)

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
PIECE_BYTES = 50_000


class Hub:
    """One repository, acme/support, with a commit per revision."""

    def __init__(self, commits: dict[str, dict[str, bytes]]) -> None:
        self.commits = commits
        self.revisions = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}
        self.server: Server
        self.refusal: Reply | None = None
        self.resolve: Reply | None = None

    def answer(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        api = "/api/models/acme/support"
        if self.refusal is not None:
            return self.refusal
        if path.startswith(f"{api}/tree/"):
            return _json(self._tree(path.removeprefix(f"{api}/tree/").partition("/")[0]))
        if path == api or path.startswith(f"{api}/revision/"):
            revision = path.removeprefix(api).removeprefix("/revision/") or "main"
            if revision not in self.revisions:
                return Reply(status=404, headers={"X-Error-Code": "RevisionNotFound"})
            commit = self.revisions[revision]
            siblings = [{"rfilename": name} for name in self.commits[commit]]
            return _json({"id": "acme/support", "sha": commit, "siblings": siblings})
        if path.startswith("/acme/support/resolve/"):
            commit, name = path.removeprefix("/acme/support/resolve/").split("/")
            target = f"{self.server.url}/cdn/{commit}/{name}?Signature=secret"
            return self.resolve or Reply(status=302, headers={"Location": target})
        if path.startswith("/cdn/"):
            commit, name = path.removeprefix("/cdn/").split("/")
            return ranged(self.commits[commit][name], request)
        return Reply(status=404, headers={"X-Error-Code": "RepoNotFound"})

    def _tree(self, commit: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for name, content in self.commits[commit].items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
            entry["oid"] = hashlib.sha1(content).hexdigest()
            if name == WEIGHTS_FILE:
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries

    def starts(self) -> list[int]:
        """First bytes of the requests that read weights."""
        return [
            r.start for r in self.server.requests if r.path.startswith("/cdn/") and "safetensors" in r.path
        ]


def _json(value: Any) -> Reply:
    return Reply(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import close_session

    old, new = served(tmp_path / "old"), served(tmp_path / "new", lora_alpha=99)
    new[WEIGHTS_FILE] = new[WEIGHTS_FILE][:-1] + b"x"
    site = Hub({OLD: old, NEW: new})
    monkeypatch.setattr(hub, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the Hub's client tries again by itself
    with http_server(site.answer) as server:
        site.server = server
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield site
        close_session()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


def test_a_repository_is_fetched_from_its_default_branch(site: Hub, into: Path) -> None:
    Follower().fetch("hf://acme/support", into)
    assert contents(into) == site.commits[NEW]
    assert site.starts()[:2] == [0, PIECE_BYTES]


@pytest.mark.parametrize("revision", ["v1", OLD])
def test_a_pinned_revision_is_fetched_as_it_was(site: Hub, into: Path, revision: str) -> None:
    Follower().fetch(f"hf://acme/support@{revision}", into)
    assert contents(into) == site.commits[OLD]
    assert all(NEW not in request.path for request in site.server.requests)


def test_a_branch_that_moves_meanwhile_does_not_mix_two_commits(site: Hub, into: Path) -> None:
    site.revisions["main"] = OLD
    follower = Follower()
    report = follower.progress

    def move(done: int, total: int | None) -> None:
        site.revisions["main"] = NEW
        report(done, total)

    follower.progress = move  # type: ignore[method-assign]
    follower.fetch("hf://acme/support", into)
    assert contents(into) == site.commits[OLD]


def test_a_fetch_goes_on_where_another_one_ended(site: Hub, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=3 * PIECE_BYTES).fetch("hf://acme/support", into)
    site.server.requests.clear()
    Follower().fetch("hf://acme/support", into)
    assert contents(into) == site.commits[NEW]
    assert min(site.starts()) >= 2 * PIECE_BYTES


def test_a_newer_commit_is_seen_and_its_changed_files_fetched_anew(site: Hub, into: Path) -> None:
    site.revisions["main"] = OLD
    with pytest.raises(FetchStopped):
        Follower(stop_after=3 * PIECE_BYTES).fetch("hf://acme/support", into)
    site.revisions["main"] = NEW
    site.server.requests.clear()
    Follower().fetch("hf://acme/support", into)
    assert contents(into) == site.commits[NEW]
    assert min(site.starts()) == 0


def test_what_came_is_checked_against_the_hubs_own_checksum(site: Hub, into: Path) -> None:
    tree = site._tree(NEW)
    tree[1]["lfs"]["oid"] = "0" * 64
    site._tree = lambda commit: tree  # type: ignore[method-assign]
    with pytest.raises(ChecksumMismatch, match=WEIGHTS_FILE):
        Follower().fetch("hf://acme/support", into)
    assert contents(into) == {}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("hf://acme/other", "check repository and revision"),
        ("hf://acme/support@v9", "check repository and revision"),
    ],
)
def test_what_is_not_there_is_refused_at_once(site: Hub, into: Path, source: str, why: str) -> None:
    follower = Follower()
    with pytest.raises(AdapterError, match=why) as raised:
        follower.fetch(source, into)
    assert not isinstance(raised.value, SourceUnavailable)
    assert follower.waits == []


def test_a_repository_without_safetensors_is_refused(site: Hub, into: Path) -> None:
    site.commits[NEW]["adapter_model.bin"] = site.commits[NEW].pop(WEIGHTS_FILE)
    with pytest.raises(AdapterError, match="safe_serialization"):
        Follower().fetch("hf://acme/support", into)


def test_a_gated_or_private_repository_is_refused_with_what_to_do(site: Hub, into: Path) -> None:
    site.refusal = Reply(status=403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(AdapterError, match="accept its terms"):
        Follower().fetch("hf://acme/support", into)
    site.refusal = Reply(status=401)
    with pytest.raises(AdapterError, match="HF_TOKEN"):
        Follower().fetch("hf://acme/support", into)


def test_a_hub_that_fails_in_the_middle_is_unavailable(site: Hub, into: Path) -> None:
    site.resolve = Reply(status=503)
    with pytest.raises(SourceUnavailable, match="status 503") as raised:
        Follower().fetch("hf://acme/support", into)
    assert site.server.url not in str(raised.value)


def test_a_hub_that_is_not_there_is_unavailable(
    site: Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(SourceUnavailable, match="ConnectError"):
        Follower().fetch("hf://acme/support", into)
