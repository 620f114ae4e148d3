"""Where is the gateway, and which copies stay? Fetching is tested with adapters' and models' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.checkpoint import ADAPTER
from adapters.errors import StoreFull
from adapters.store import VersionStore
from engines.copies import Copies, Folders, reachable
from tests.unit.fleet.files import adapter_folder


def test_what_one_host_keeps_no_other_one_of_the_machine_deletes(tmp_path: Path) -> None:
    source = adapter_folder(tmp_path / "source")
    size = ADAPTER.inspect(source).size_bytes
    folders = Folders(tmp_path / "own", tmp_path / "copies", budget_bytes=size)
    digest = ADAPTER.inspect(source).digest
    with VersionStore(folders.copies) as store:
        source.rename(tmp_path / "copies/.staging/x")
        (tmp_path / "copies/.staging/x").rename(store.stage(digest))
        store.publish(digest, digest)
        one, other = Copies(folders, "token"), Copies(folders, "token")
        one.keep({digest, "0" * 64})
        with pytest.raises(StoreFull):
            other._make_room(1, ())
        one.keep(())
        other._make_room(1, ())
    assert not store.has(digest)


@pytest.mark.parametrize(
    ("said", "peer", "found"),
    [
        ("http://127.0.0.1:3000", "10.0.0.7", "http://10.0.0.7:3000"),
        ("http://localhost:3000/", "10.0.0.7", "http://10.0.0.7:3000"),
        ("http://0.0.0.0:3000", "fd00::7", "http://[fd00::7]:3000"),
        ("http://127.0.0.1:3000", "127.0.0.1", "http://127.0.0.1:3000"),
        ("http://127.0.0.1:3000", None, "http://127.0.0.1:3000"),
        ("http://gateway.fleet:8080/", "10.0.0.7", "http://gateway.fleet:8080"),
        ("https://gateway.example", "10.0.0.7", "https://gateway.example"),
        ("", "10.0.0.7", ""),
    ],
)
def test_a_gateway_that_knows_itself_as_this_machine_is_where_its_call_came_from(
    said: str, peer: str | None, found: str
) -> None:
    assert reachable(said, peer) == found
