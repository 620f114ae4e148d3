"""Whatever step a process dies at, a version is whole or absent, and the work can be done again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.checkpoint import inspect_adapter
from adapters.layout import SERVED_FILES
from adapters.store import VersionStore
from tests.unit.adapters import crashing
from tests.unit.adapters.remotes import Follower, Reply, Request, contents, http_server, ranged, served, tar

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["folder", "archive"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the adapter comes from: a folder, or an archive that comes over HTTP."""
    archive = tar(served(tmp_path / "made"))

    def answer(asked: Request) -> Reply:
        return ranged(archive, asked, {"ETag": '"one"'})

    if request.param == "folder":
        yield str(tmp_path / "made")
    else:
        with http_server(answer) as server:
            yield f"{server.url}/a.tar.gz"


@pytest.mark.parametrize("kind", ["publish", "fetch", "remove"])
def test_killed_at_any_step_the_store_is_usable_and_the_work_can_be_done_again(
    tmp_path: Path, source: str, kind: str
) -> None:
    expected = inspect_adapter(tmp_path / "made").digest
    top = tmp_path / "stores"
    command = [sys.executable, "-m", crashing.__name__, kind, str(top), source]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    deaths = int(done.stdout) - 1
    assert deaths > 8, done.stderr
    outcomes = set()
    for number in range(1, deaths + 2):
        with VersionStore(top / str(number)) as store:
            left = store.folder_of(expected)
            assert not left.exists() or set(contents(left)) == set(SERVED_FILES)
            store.sweep({"key"})
            outcomes.add(store.has(expected))
            assert store.check(expected) == store.has(expected)
            assert [version.digest for version in store.usage()] == [expected] * store.has(expected)
            staged = store.stage("key")
            Follower().fetch(source, staged)
            folder = store.publish("key", expected)
            assert set(contents(folder)) == set(SERVED_FILES)
            assert store.check(expected)
            store.sweep(())
            assert list((top / str(number) / ".staging").iterdir()) == []
            assert list((top / str(number) / ".trash").iterdir()) == []
    assert outcomes == {True, False}
