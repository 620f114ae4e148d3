"""An engine's host has adapters' files, or gets them from the gateway by their digest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from adapters.checkpoint import inspect_adapter
from adapters.layout import CONFIG_FILE, SERVED_FILES, WEIGHTS_FILE
from adapters.store import VersionStore
from engines.adapter_files import AdapterFiles
from engines.copies import Folders
from engines.protocol import FILES_PATH
from engines.residency import EngineAdapter, FilesAway
from tests.unit.engines.file_gateway import TOKEN, Gateway, serving
from tests.unit.fleet.files import adapter_folder


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway on another machine."""
    async with serving(tmp_path / "gateway", FILES_PATH) as gateway:
        yield gateway


@pytest.fixture
def here(tmp_path: Path) -> Folders:
    """The folders of an engine's machine."""
    return Folders(tmp_path / "here/adapters", tmp_path / "here/copies")


@pytest.fixture
def adapter(gateway: Gateway) -> EngineAdapter:
    """One that the gateway has."""
    return stored(gateway.store, "a")


def stored(store: Path, name: str) -> EngineAdapter:
    source = adapter_folder(store.parent / f"source of {name}")
    config = source / CONFIG_FILE
    config.write_text(config.read_text().replace("{", f'{{"revision": "{name}", ', 1))
    manifest = inspect_adapter(source)
    folder = VersionStore(store).folder_of(manifest.digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    source.rename(folder)
    return EngineAdapter(f"{name}@1", manifest.digest, size_bytes=manifest.size_bytes)


def files_of(folders: Folders, gateway: Gateway) -> AdapterFiles:
    made = AdapterFiles(folders, TOKEN)
    made.at(gateway.url, None)
    return made


def left(folder: Path) -> list[str]:
    """Files below a folder, but for its lock."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


async def test_on_the_gateways_machine_nothing_is_copied(gateway: Gateway, here: Folders) -> None:
    adapter = stored(here.own, "a")
    folder = await files_of(here, gateway).folder_of(adapter, ())
    assert folder == VersionStore(here.own).folder_of(adapter.digest)
    assert gateway.asked == [] and not here.copies.exists()


async def test_elsewhere_they_are_fetched_once(
    gateway: Gateway, here: Folders, adapter: EngineAdapter
) -> None:
    files = files_of(here, gateway)
    folders = await asyncio.gather(*(files.folder_of(adapter, ()) for _ in range(5)))
    assert set(folders) == {VersionStore(here.copies).folder_of(adapter.digest)}
    assert inspect_adapter(folders[0]).digest == adapter.digest
    assert sorted(gateway.asked) == sorted(SERVED_FILES)


async def test_the_hosts_of_a_machine_share_what_one_has_fetched(
    gateway: Gateway, here: Folders, adapter: EngineAdapter
) -> None:
    hosts = [files_of(here, gateway) for _ in range(3)]
    await asyncio.gather(*(host.folder_of(adapter, ()) for host in hosts))
    assert sorted(gateway.asked) == sorted(SERVED_FILES)


async def test_a_fetch_that_was_broken_off_goes_on_where_it_ended(
    gateway: Gateway, here: Folders, adapter: EngineAdapter
) -> None:
    files = files_of(here, gateway)
    gateway.cut = WEIGHTS_FILE, 40
    with pytest.raises(FilesAway):
        await files.folder_of(adapter, ())
    assert not VersionStore(here.copies).has(adapter.digest)
    gateway.cut = None
    await files_of(here, gateway).folder_of(adapter, ())  # as after a restart
    assert f"{WEIGHTS_FILE} bytes=40-" in gateway.asked


async def test_what_is_not_what_the_digest_promises_is_dropped(
    gateway: Gateway, here: Folders, adapter: EngineAdapter
) -> None:
    async def wrong(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"other bytes")

    gateway.answer = wrong
    with pytest.raises(FilesAway, match="a@1 has no files on this machine"):
        await files_of(here, gateway).folder_of(adapter, ())
    assert left(here.copies) == []
    gateway.answer = None
    await files_of(here, gateway).folder_of(adapter, ())


@pytest.mark.parametrize("name", SERVED_FILES)
async def test_a_copy_that_is_cut_short_is_fetched_anew(
    gateway: Gateway, here: Folders, adapter: EngineAdapter, name: str
) -> None:
    files = files_of(here, gateway)
    damaged = await files.folder_of(adapter, ()) / name
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-3])
    folder = await files.folder_of(adapter, ())
    assert inspect_adapter(folder).digest == adapter.digest
    await files.folder_of(adapter, ())
    assert len(gateway.asked) == 2 * len(SERVED_FILES)


@pytest.mark.parametrize("status", [401, 404, 500, 503])
async def test_a_gateway_that_refuses_is_told_of(
    gateway: Gateway, here: Folders, adapter: EngineAdapter, status: int
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    gateway.answer = refuse
    with pytest.raises(FilesAway, match=f"answered {status}"):
        await files_of(here, gateway).folder_of(adapter, ())
    assert left(here.copies) == []


async def test_a_wrong_token_gets_nothing(gateway: Gateway, here: Folders, adapter: EngineAdapter) -> None:
    stranger = AdapterFiles(here, "another token")
    stranger.at(gateway.url, None)
    with pytest.raises(FilesAway, match="answered 404"):
        await stranger.folder_of(adapter, ())


async def test_a_gateway_that_is_away_or_unknown_is_no_fault_of_the_adapter(
    here: Folders, gateway: Gateway, adapter: EngineAdapter
) -> None:
    with pytest.raises(FilesAway, match="TENANTRY_GATEWAY_URL"):
        await AdapterFiles(here, TOKEN).folder_of(adapter, ())
    files = AdapterFiles(here, TOKEN)
    files.at("http://127.0.0.1:9", None)
    with pytest.raises(FilesAway, match="no files on this machine"):
        await files.folder_of(adapter, ())


async def test_copies_stay_within_their_budget_and_those_in_use_stay(gateway: Gateway, here: Folders) -> None:
    first, second, third = (stored(gateway.store, name) for name in "abc")
    room = first.size_bytes + second.size_bytes
    files = files_of(here._replace(budget_bytes=room), gateway)
    copies = VersionStore(here.copies)
    for adapter in (first, second):
        await files.folder_of(adapter, ())
    await files.folder_of(third, {first.digest})
    assert [copies.has(a.digest) for a in (first, second, third)] == [True, False, True]
    with pytest.raises(FilesAway, match="retire adapters, or raise the store's budget"):
        await files.folder_of(second, {first.digest, third.digest})
    assert copies.has(first.digest) and copies.has(third.digest)


async def test_a_digest_that_is_none_reaches_no_path(gateway: Gateway, here: Folders) -> None:
    for digest in ("../../etc", "", "A" * 64, "a" * 63 + "/"):
        with pytest.raises(FilesAway):
            await files_of(here, gateway).folder_of(EngineAdapter("x@1", digest), ())
