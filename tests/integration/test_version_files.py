"""Engines on other machines get versions' files from the gateway; for nobody else is there such a route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.checkpoint import inspect_adapter
from adapters.layout import CONFIG_FILE, SERVED_FILES, WEIGHTS_FILE
from adapters.store import VersionStore
from adapters.whole_model import WHOLE_MODEL
from engines.protocol import FILES_PATH, MODEL_FILES_PATH, TOKEN_HEADER
from engines.secrets import internal_token
from tests.fakes import SECRET, Client, eventually, key_of
from tests.integration.conftest import Bench
from tests.integration.test_whole_models import model_folder
from tests.unit.fleet.files import adapter_folder

TOKEN = internal_token(SECRET)


@pytest.fixture
def store(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VersionStore:
    """The gateway's."""
    store = VersionStore(tmp_path / "adapters")
    monkeypatch.setattr(bench.gateway.app.adapter_files, "_store", store)
    return store


@pytest.fixture
def digest(store: VersionStore, tmp_path: Path) -> str:
    """A version in the gateway's store."""
    source = adapter_folder(tmp_path / "source")
    digest = inspect_adapter(source).digest
    folder = store.folder_of(digest)
    folder.parent.mkdir(parents=True)
    source.rename(folder)
    return digest


def get(bench: Bench, rest: str, *headers: tuple[str, str], method: str = "GET") -> Client:
    return Client(bench.gateway.app, FILES_PATH + rest, method=method, headers=list(headers))


async def test_an_engine_gets_each_file_whole_or_from_a_place_on(
    bench: Bench, store: VersionStore, digest: str
) -> None:
    folder = store.folder_of(digest)
    for name in SERVED_FILES:
        whole = await get(bench, f"{digest}/{name}", (TOKEN_HEADER, TOKEN))()
        assert (whole.status, whole.body) == (200, (folder / name).read_bytes())
        rest = await get(bench, f"{digest}/{name}", (TOKEN_HEADER, TOKEN), ("range", "bytes=7-"))()
        assert (rest.status, rest.body) == (206, (folder / name).read_bytes()[7:])
    size = (folder / WEIGHTS_FILE).stat().st_size
    beyond = ("range", f"bytes={size}-")
    assert (await get(bench, f"{digest}/{WEIGHTS_FILE}", (TOKEN_HEADER, TOKEN), beyond)()).status == 416


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(TOKEN_HEADER, "")],
        [(TOKEN_HEADER, TOKEN[:-1])],
        [("authorization", f"Bearer {key_of('a')}")],
        [("authorization", f"Bearer {TOKEN}")],
    ],
    ids=["nothing", "no token", "a part of it", "a tenant's key", "the token as a key"],
)
async def test_for_everybody_else_there_is_no_such_route(
    bench: Bench, digest: str, headers: list[tuple[str, str]]
) -> None:
    told = await get(bench, f"{digest}/{CONFIG_FILE}", *headers)()
    unknown = await Client(bench.gateway.app, "/internal/nothing", method="GET", headers=headers)()
    assert (told.status, told.body) == (unknown.status, unknown.body) == (404, unknown.body)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "{digest}/training_args.bin",
        "{digest}/../.lock",
        "{digest}/" + CONFIG_FILE + "/x",
        "0" * 64 + "/" + CONFIG_FILE,
        "../../etc/passwd/" + CONFIG_FILE,
        "{digest}x/" + CONFIG_FILE,
    ],
)
async def test_nothing_but_served_files_of_stored_versions_is_given(
    bench: Bench, digest: str, rest: str
) -> None:
    answer = await get(bench, rest.format(digest=digest), (TOKEN_HEADER, TOKEN))()
    assert answer.status == 404


async def test_the_files_of_a_version_are_named_with_their_sizes(
    bench: Bench, store: VersionStore, digest: str
) -> None:
    sizes = {name: (store.folder_of(digest) / name).stat().st_size for name in SERVED_FILES}
    for rest in (digest, f"{digest}/"):
        answer = await get(bench, rest, (TOKEN_HEADER, TOKEN))()
        assert (answer.status, json.loads(answer.body)) == (200, sizes)
    assert (await get(bench, digest)()).status == 404


async def test_whole_models_are_given_as_adapters_are(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VersionStore(tmp_path / "models", kind=WHOLE_MODEL)
    monkeypatch.setattr(bench.gateway.app.model_files, "_store", store)
    source = model_folder(tmp_path / "model", shards=2)
    (source / "training_args.bin").write_text("pickle")
    digest = WHOLE_MODEL.inspect(source).digest
    store.folder_of(digest).parent.mkdir(parents=True)
    source.rename(store.folder_of(digest))

    async def asked(rest: str, *headers: tuple[str, str]) -> Client:
        client = Client(bench.gateway.app, MODEL_FILES_PATH + rest, method="GET", headers=list(headers))
        await client()
        return client

    named = json.loads((await asked(digest, (TOKEN_HEADER, TOKEN))).body)
    assert sorted(named) == sorted(WHOLE_MODEL.files_in(store.folder_of(digest)))
    for name, size in named.items():
        assert len((await asked(f"{digest}/{name}", (TOKEN_HEADER, TOKEN))).body) == size
        assert (await asked(f"{digest}/{name}")).status == 404, "no token, no such route"
    assert (await asked(f"{digest}/training_args.bin", (TOKEN_HEADER, TOKEN))).status == 404


async def test_it_is_only_read(bench: Bench, digest: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = await get(bench, f"{digest}/{CONFIG_FILE}", (TOKEN_HEADER, TOKEN), method=method)()
        assert answer.status == 405


async def test_engines_are_told_where_the_gateway_is(bench: Bench) -> None:
    engines, engine = bench.gateway.lifecycle.engines, next(iter(bench.engines.values()))
    bench.gateway.known_as("http://gateway:3000")
    assert bench.gateway.turns.switching.files_at == engines.files_at == "http://gateway:3000"
    engines._kept[engine.name].told = None
    engines.tell_all()
    await eventually(lambda: engine.desired["files_at"] == engines.files_at, "the address")
