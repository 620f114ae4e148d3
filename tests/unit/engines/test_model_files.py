"""A host on another machine gets whole models from the gateway by their digest."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.store import VersionStore
from adapters.whole_model import WHOLE_MODEL
from engines import copies
from engines.copies import Folders
from engines.model_files import ModelFiles
from engines.protocol import MODEL_FILES_PATH
from engines.residency import FilesAway
from fleet.types import BaseModel
from tests.integration.test_whole_models import model_folder
from tests.unit.engines.file_gateway import TOKEN, Gateway, serving


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with serving(tmp_path / "there/models", MODEL_FILES_PATH) as gateway:
        yield gateway


@pytest.fixture
def here(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "here/models", tmp_path / "here/model-copies")


def files_of(folders: Folders, gateway: Gateway) -> ModelFiles:
    made = ModelFiles(folders, TOKEN)
    made.at(gateway.url, None)
    return made


def away(gateway: Gateway, tmp_path: Path, name: str = "a", shards: int = 1) -> BaseModel:
    """A model of the gateway's store, as the gateway names it, whose folder this machine has not."""
    folder = gateway.has(model_folder(tmp_path / name, seed=ord(name), shards=shards), WHOLE_MODEL)
    return BaseModel(name, f"/not/here/{folder.parent.name}/{folder.name}")


def none_needed() -> tuple[str, ...]:
    return ()


async def test_a_model_that_is_here_is_read_where_it_is(
    gateway: Gateway, here: Folders, tmp_path: Path
) -> None:
    files = files_of(here, gateway)
    folder = gateway.has(model_folder(tmp_path / "a"), WHOLE_MODEL)
    for source in (str(folder), "/models/llama", "org/llama", "", f"/not/here/{'a' * 64}"):
        model = BaseModel("a", source)
        assert files.located(model) is model
        assert not await files.bring(model, none_needed)
    assert gateway.asked == [] and not here.copies.exists()


@pytest.mark.parametrize("shards", [1, 2])
async def test_elsewhere_it_is_fetched_once_and_checked(
    gateway: Gateway, here: Folders, tmp_path: Path, shards: int
) -> None:
    files, model = files_of(here, gateway), away(gateway, tmp_path, shards=shards)
    located = files.located(model)
    assert located.source.startswith(str(here.copies)) and files.as_told(located.source) == model.source
    assert True in await asyncio.gather(*(files.bring(located, none_needed) for _ in range(4)))
    assert WHOLE_MODEL.inspect(Path(located.source)).digest == Path(model.source).name
    assert len(gateway.asked) == len(set(gateway.asked)), "nothing is asked for twice"
    assert not await files.bring(files.located(model), none_needed)
    other = files_of(here, gateway)
    assert not await other.bring(other.located(model), none_needed), "another host of the machine has it, too"


async def test_a_fetch_that_was_broken_off_goes_on_where_it_ended(
    gateway: Gateway, here: Folders, tmp_path: Path
) -> None:
    model = away(gateway, tmp_path)
    gateway.cut = "model.safetensors", 40
    files = files_of(here, gateway)
    with pytest.raises(FilesAway):
        await files.bring(files.located(model), none_needed)
    gateway.cut = None
    again = files_of(here, gateway)  # as after a restart
    assert await again.bring(again.located(model), none_needed)
    assert "model.safetensors bytes=40-" in gateway.asked


async def test_who_leaves_ends_no_fetch(gateway: Gateway, here: Folders, tmp_path: Path) -> None:
    files, model = files_of(here, gateway), away(gateway, tmp_path)
    located, may_answer = files.located(model), asyncio.Event()
    serve = Gateway(gateway.store)

    async def later(request: web.Request) -> web.StreamResponse:
        await may_answer.wait()
        return await serve.serve(request)

    gateway.answer = later
    left = asyncio.create_task(files.bring(located, none_needed))
    await asyncio.sleep(0)
    left.cancel()
    may_answer.set()
    await files.bring(located, none_needed)
    assert (Path(located.source) / "config.json").is_file()


async def test_what_is_not_what_the_digest_promises_is_dropped(
    gateway: Gateway, here: Folders, tmp_path: Path
) -> None:
    model = away(gateway, tmp_path)
    digest = Path(model.source).name
    stored = gateway.store / digest[:2] / digest / "tokenizer.json"
    stored.write_text("{ }")
    files = files_of(here, gateway)
    with pytest.raises(FilesAway, match=r"model a has no files on this machine: .* fetch them again"):
        await files.bring(files.located(model), none_needed)
    assert not [path for path in here.copies.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.parametrize(
    "listed", ['{"../evil": 1}', '{"evil.py": 1}', '{"config.json": -1}', '{"config.json": "x"}', "[]", "no"]
)
async def test_a_list_that_names_what_no_model_has_is_refused(
    gateway: Gateway, here: Folders, tmp_path: Path, listed: str
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=listed)

    gateway.answer = answer
    files = files_of(here, gateway)
    with pytest.raises(FilesAway, match="no list of files"):
        await files.bring(files.located(away(gateway, tmp_path)), none_needed)
    assert gateway.asked == [""]


async def test_copies_stay_within_their_budget_and_what_is_needed_stays(
    gateway: Gateway, here: Folders, tmp_path: Path
) -> None:
    models = [away(gateway, tmp_path, name) for name in "abc"]
    size = WHOLE_MODEL.inspect(VersionStore(gateway.store).folder_of(Path(models[0].source).name)).size_bytes
    stored = VersionStore(here.copies, kind=WHOLE_MODEL)

    def here_are() -> list[bool]:
        return [stored.has(Path(model.source).name) for model in models]

    files = files_of(here._replace(budget_bytes=2 * size + 100), gateway)
    first, second, third = (files.located(model) for model in models)
    for model in (first, second):
        await files.bring(model, none_needed)
    await files.bring(third, lambda: (first.source,))
    assert here_are() == [True, False, True]
    files.keep([first.source, third.source, "/models/of/this/machine"])
    stranger = files_of(here._replace(budget_bytes=2 * size + 100), gateway)
    with pytest.raises(FilesAway, match="retire models, or raise the store's budget"):
        await stranger.bring(stranger.located(models[1]), none_needed)
    files.keep([first.source])
    assert await stranger.bring(stranger.located(models[1]), none_needed)
    assert here_are() == [True, True, False]
    files.keep([])


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_damaged_copy_is_dropped_and_fetched_anew(
    gateway: Gateway, here: Folders, tmp_path: Path, damage: str
) -> None:
    files, model = files_of(here, gateway), away(gateway, tmp_path)
    located = files.located(model)
    await files.bring(located, none_needed)
    assert not await files.drop_damaged(located), "it is whole"
    weights = Path(located.source) / "model.safetensors"
    weights.chmod(0o600)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    assert await files.drop_damaged(located)
    assert not await files.drop_damaged(located), "it is gone"
    assert await files.bring(located, none_needed)
    assert weights.read_bytes() == whole


async def test_what_is_no_copy_is_never_dropped(gateway: Gateway, here: Folders, tmp_path: Path) -> None:
    files = files_of(here, gateway)
    folder = gateway.has(model_folder(tmp_path / "a"), WHOLE_MODEL)
    (folder / "config.json").chmod(0o600)
    (folder / "config.json").write_text("{")
    for source in (str(folder), "org/llama", ""):
        assert not await files.drop_damaged(files.located(BaseModel("a", source)))
    assert folder.is_dir()


async def test_no_copy_is_dropped_whose_check_was_broken_off(
    gateway: Gateway, here: Folders, tmp_path: Path
) -> None:
    files = files_of(here, gateway)
    located = files.located(away(gateway, tmp_path))
    await files.bring(located, none_needed)
    await files.stop()
    assert not await files.drop_damaged(located)
    assert (Path(located.source) / "model.safetensors").is_file()


async def test_a_full_disk_is_told_and_what_has_come_is_kept(
    gateway: Gateway, here: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, model = files_of(here, gateway), away(gateway, tmp_path)
    download = copies._download

    async def fills_the_disk(session: Any, url: str, path: Path) -> None:
        if path.name == "model.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await download(session, url, path)

    with monkeypatch.context() as patch:
        patch.setattr(copies, "_download", fills_the_disk)
        with pytest.raises(FilesAway, match=r"model a has no files on this machine: .*No space left"):
            await files.bring(files.located(model), none_needed)
    asked = list(gateway.asked)
    assert await files.bring(files.located(model), none_needed)
    assert f"{asked[1]} bytes=" in gateway.asked[len(asked) + 1], "what had come is not fetched again"
