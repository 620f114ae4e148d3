"""Whole models come and go at run time: real state, store and sources on disk; the hosts are fake."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.errors import SourceUnavailable
from adapters.states import VersionState
from fleet.current import CurrentFleet
from fleet.file import FleetFile
from fleet.types import Fleet, StateSettings
from fleet.writer import write_fleet
from routing.catalog.models import ModelEntry, ModelVersion
from routing.lifecycle import Lifecycle
from routing.lifecycle.whole import WholeModels, steps
from tests.fakes import Client, eventually, key_of
from tests.integration.mesh import Mesh, MeshEngine, mesh_fleet, mesh_of, said

READY, QUARANTINED = VersionState.READY, VersionState.QUARANTINED
MODELS = ("one", "two")


def model_folder(folder: Path, seed: int = 0, *, shards: int = 1, **config: Any) -> Path:
    """A whole model as transformers saves it, with weights of its own."""
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    values = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **config}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not served")
    tensors = {f"model.layers.{i}.weight": chance.standard_normal((8, 8), dtype=np.float32) for i in range(4)}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {tensor: array for i, (tensor, array) in enumerate(tensors.items()) if i % shards == number}
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def packed(folder: Path) -> bytes:
    """A folder as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname="model")
    return buffer.getvalue()


@dataclass
class Stable:
    """A gateway whose models come and go."""

    mesh: Mesh
    folder: Path

    @property
    def whole(self) -> WholeModels:
        return self.mesh.gateway.lifecycle.whole

    def entry(self, name: str = "new") -> ModelEntry:
        return self.whole.entry(name)

    def version(self, number: int = 1, name: str = "new") -> ModelVersion:
        version = self.entry(name).version(number)
        assert version is not None
        return version

    async def call(self, path: str, method: str = "POST", body: Any = None) -> Client:
        return await self.mesh.admin(path, method, body)()

    async def add(self, source: Path | str, name: str = "new", **fields: Any) -> Client:
        """Add a model, as an operator does."""
        return await self.call("models", body={"name": name, "source": str(source), **fields})

    async def until(self, state: VersionState, number: int = 1, name: str = "new") -> ModelVersion:
        await eventually(lambda: self.version(number, name).state is state, f"version {number} {state}")
        return self.version(number, name)

    async def ready(self, name: str = "new", seed: int = 0, **options: Any) -> ModelVersion:
        """Add a model, or a version of one, from a folder, and give it to tenant a."""
        source = model_folder(self.folder / "sources" / f"{name}-{seed}", seed, **options)
        known = name in self.whole.shelf.entries
        path = f"models/{name}/versions" if known else "models"
        body = {"source": str(source)} | ({} if known else {"name": name})
        added = await self.call(path, body=body)
        assert added.status == 202, added.body
        number = added.json()["versions"][-1]["number"]
        version = await self.until(READY, number, name)
        given = await self.call("tenants/a", "PATCH", {"models": {name: name}})
        assert given.status == 200, given.body
        return version

    def stored(self, version: ModelVersion) -> Path:
        return self.whole.shelf.store.folder_of(version.digest or "")

    def engine(self, model: str = "new") -> MeshEngine:
        return self.mesh.hosts["mesh-0"].engine(model)

    async def ask(self, model: str = "new", tenant: str = "a") -> Client:
        return await self.mesh.ask(model, tenant)()

    async def declare(self, fleet: Fleet) -> Client:
        document = write_fleet(fleet, key_variables={}).encode()
        headers = [("authorization", f"Bearer {key_of('operator')}"), ("content-type", "application/yaml")]
        return await Client(self.mesh.gateway.app, "/admin/v1/fleet", headers=headers, body=document)()


def fleet_in(folder: Path, **state: Any) -> Fleet:
    settings = StateSettings(folder=str(folder / "state"), **state)
    return replace(mesh_fleet(MODELS), state=settings)


@contextlib.asynccontextmanager
async def stable_in(folder: Path, fleet: Fleet | None = None) -> AsyncIterator[Stable]:
    """Serve what the folder holds."""
    path = folder / "fleet.yaml"
    if fleet is not None or not path.exists():
        path.write_text(write_fleet(fleet or fleet_in(folder), key_variables={}))
    file = FleetFile(path)
    async with mesh_of(file.load()[0], folder, lifecycle_class=Lifecycle, file=file) as mesh:
        yield Stable(mesh, folder)


@pytest.fixture
async def stable(tmp_path: Path) -> AsyncIterator[Stable]:
    async with stable_in(tmp_path) as stable:
        yield stable


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TRY_AGAIN_S", 0.01)
    monkeypatch.setattr("routing.lifecycle.whole.models.LOOK_S", 0.01)
    monkeypatch.setattr("routing.turns.seats.FIRST_PAUSE_S", 0.01)


# -- a model comes -----------------------------------------------------------------------------------------


async def test_a_model_added_at_run_time_is_asleep_at_each_host_until_a_request_wakes_it(
    stable: Stable,
) -> None:
    assert (await stable.ask("one")).status == 200
    version = await stable.ready()
    (host,) = (await stable.call("models/new", "GET")).json()["hosts"]
    assert (host["host"], host["state"]) == ("mesh-0", "on_disk")
    answer = await stable.ask()
    assert (answer.status, said(answer)) == (200, "I am new")
    assert stable.engine().source == str(stable.stored(version))
    assert sorted(os.listdir(stable.stored(version))) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert said(await stable.ask("one")) == "I am one"
    await eventually(lambda: stable.version().proven, "the proof")
    assert (await stable.ask(tenant="b")).status == 404, "nobody else may call it"


async def test_it_survives_a_restart_of_the_gateway(tmp_path: Path) -> None:
    async with stable_in(tmp_path) as stable:
        version = await stable.ready()
    shutil.rmtree(tmp_path / "sources")
    async with stable_in(tmp_path) as stable:
        assert stable.version() == version
        assert said(await stable.ask()) == "I am new"


async def test_settings_are_those_given_over_those_of_another_model(stable: Stable) -> None:
    source = model_folder(stable.folder / "source")
    await stable.add(source, like="one", settings={"max_model_len": 256})
    await stable.until(READY)
    models = stable.mesh.gateway.fleet
    await eventually(lambda: "new" in models.now.base_models, "the base model")
    model = models.now.base_models["new"]
    assert (model.max_num_seqs, model.max_model_len) == (8, 256)


async def test_an_uploaded_archive_becomes_a_model_and_is_not_kept(stable: Stable) -> None:
    archive = packed(model_folder(stable.folder / "source", shards=2))
    headers = [("authorization", f"Bearer {key_of('operator')}"), ("content-type", "application/x-tar")]
    path = "/admin/v1/models/new/versions?like=one"
    sent = await Client(stable.mesh.gateway.app, path, headers=headers, body=archive)()
    assert sent.status == 202, sent.body
    version = await stable.until(READY)
    weights = [name for name in os.listdir(stable.stored(version)) if name.endswith("00002.safetensors")]
    assert len(weights) == 2
    await eventually(lambda: not os.listdir(stable.whole.shelf.uploads), "the archive's end")


async def test_export_tells_of_it_and_the_exported_file_can_be_applied(stable: Stable) -> None:
    await stable.ready()
    exported = (await stable.call("export", "GET")).body.decode()
    assert "new" in exported and str(stable.folder / "sources") in exported
    path = stable.folder / "exported.yaml"
    path.write_text(exported)
    fleet = FleetFile(path).load()[0]
    assert fleet.pools["mesh"].base_models == ("one", "two", "new")
    assert (await stable.declare(fleet)).status == 200
    assert said(await stable.ask()) == "I am new"


# -- what is refused ---------------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])


def pickle_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))


def leave_by_link(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")


def leave_by_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.layers.0.weight": "../../secret.safetensors"}})
    )


def huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.layers.0.weight": "model-00009-of-00009.safetensors"}})
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "shorter than its header"),
        (pickle_alone, "is a pickle"),
        (code, "auto_map"),
        (leave_by_link, "link that leaves"),
        (leave_by_index, "weight_map"),
        (huge_header, "not a safetensors file, or cut short"),
        (no_config, "no config.json"),
        (missing_shard, "cannot be read"),
    ],
)
async def test_what_no_engine_should_load_is_refused_with_the_reason_and_others_go_on(
    stable: Stable, spoil: Any, words: str
) -> None:
    source = model_folder(stable.folder / "source")
    spoil(source)
    assert (await stable.add(source)).status == 202
    version = await stable.until(QUARANTINED)
    assert words in version.reason and str(stable.folder) not in version.reason
    assert "new" not in stable.mesh.gateway.fleet.now.base_models
    assert (await stable.ask("one")).status == 200
    assert not list((stable.folder / "state" / "models").glob("??/*"))
    assert not list((stable.folder / "state" / "models" / ".staging").iterdir())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "../up"}, "invalid_value"),
        ({"name": "one"}, "model_declared"),
        ({"source": "/nowhere"}, "source_not_found"),
        ({"source": "https://169.254.169.254/model.tar"}, "source_not_allowed"),
        ({"source": "ftp://example.com/model"}, "invalid_source"),
        ({"pool": "nowhere"}, "model_does_not_fit"),
        ({"settings": {"max_model_len": "many"}}, "invalid_value"),
        ({"settings": {"source": "/etc"}}, "invalid_value"),
        ({"like": "nobody"}, "base_model_not_found"),
    ],
)
async def test_a_wrong_wish_is_refused_at_once(stable: Stable, body: dict[str, Any], code: str) -> None:
    source = str(model_folder(stable.folder / "source"))
    refused = await stable.call("models", body={"name": "new", "source": source, **body})
    assert refused.status in (400, 403, 404, 409)
    assert refused.error["code"] == code
    assert not stable.whole.entries()


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/rollback"),
        ("DELETE", "/versions/1"),
        ("POST", "/versions/1/verify"),
    ],
)
@pytest.mark.parametrize(
    ("name", "words"),
    [("one", "`one` is declared with files of its own"), ("nobody", "`tenantry models add` adds one")],
)
async def test_a_model_that_the_gateway_does_not_fetch_is_told_with_what_to_do(
    stable: Stable, method: str, rest: str, name: str, words: str
) -> None:
    refused = await stable.call(f"models/{name}{rest}", method)
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert words in refused.error["message"]


async def test_a_promised_sha256_is_compared(stable: Stable) -> None:
    await stable.add(model_folder(stable.folder / "source"), sha256="0" * 64)
    assert "sha256 of model.safetensors is not the one promised" in (await stable.until(QUARANTINED)).reason


async def test_a_full_disk_is_said_and_the_next_attempt_succeeds(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.lifecycle.attempts.RETRY_DELAYS_S", (0.01,) * 50)
    full = True
    real = shutil.disk_usage

    def disk_usage(path: Any) -> Any:
        usage = real(path)
        return usage._replace(free=0) if full else usage

    monkeypatch.setattr("adapters.sources.files.shutil.disk_usage", disk_usage)
    await stable.add(model_folder(stable.folder / "source"))
    await eventually(lambda: "are needed, and the disk" in stable.version().reason, "the reason")
    assert (await stable.ask("one")).status == 200, "others go on"
    full = False
    await stable.until(READY)


async def test_a_source_that_is_away_is_tried_again_and_then_given_up(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.lifecycle.attempts.RETRY_DELAYS_S", (0.0, 0.0))
    tries = []

    def fetch(source: str, *_: object, **__: object) -> None:
        tries.append(source)
        raise SourceUnavailable(f"{source} does not answer")

    with monkeypatch.context() as patched:
        patched.setattr("adapters.sources.fetch", fetch)
        await stable.add("hf://example/model")
        assert "does not answer" in (await stable.until(QUARANTINED)).reason
        assert len(tries) == 3
    with monkeypatch.context() as patched:
        source = model_folder(stable.folder / "source")
        patched.setattr(
            "adapters.sources.fetch", lambda _, into, **__: shutil.copytree(source, into, dirs_exist_ok=True)
        )
        assert (await stable.call("models/new/versions/1/verify")).status == 202
        await stable.until(READY)


async def test_a_disk_that_fails_in_the_middle_leaves_nothing_half(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.lifecycle.attempts.RETRY_DELAYS_S", (0.01,) * 50)
    failing = True
    store = stable.whole.shelf.store
    real = store._put

    def put(staged: Path, target: Path) -> None:
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(staged, target)

    monkeypatch.setattr(store, "_put", put)
    await stable.add(model_folder(stable.folder / "source"))
    await eventually(lambda: "the disk of the store is full" in stable.version().reason, "the reason")
    assert not store.usage()
    failing = False
    await stable.until(READY)


async def test_the_store_keeps_to_its_budget_and_never_drops_what_serves(tmp_path: Path) -> None:
    size = sum(
        path.stat().st_size for path in model_folder(tmp_path / "probe").iterdir() if path.suffix != ".md"
    )
    async with stable_in(tmp_path, fleet_in(tmp_path, model_store_bytes=int(2.5 * size))) as stable:
        await stable.ready("new", 1)
        first = stable.version(1)
        await stable.ready("new", 2)
        assert stable.entry().previous == 1
        await stable.ready("other", 3)  # the version before makes room
        assert not stable.whole.shelf.store.has(first.digest or "")
        assert (stable.entry().previous, stable.version(1).state) == (None, VersionState.RETIRED)
        await stable.add(model_folder(tmp_path / "fourth", 4), "third")
        await eventually(lambda: "are in use" in stable.version(1, "third").reason, "the reason")
        assert {said(await stable.ask(name)) for name in ("new", "other")} == {"I am new", "I am other"}


# -- versions ----------------------------------------------------------------------------------------------


async def test_a_new_version_takes_over_an_awake_model_without_a_request_lost(stable: Stable) -> None:
    await stable.ready()
    assert (await stable.ask()).status == 200
    engine = stable.engine()
    engine.behave = engine.hold
    running = asyncio.ensure_future(stable.ask())
    await eventually(lambda: engine.running == 1, "the request")
    second = await stable.ready("new", 2)
    engine.behave = engine.answer
    engine.release.set()
    assert (await running).status == 200, "what ran has ended on its version"
    await eventually(lambda: engine.source == str(stable.stored(second)) and engine.ready, "the new version")
    assert engine.cut == 0
    assert (await stable.ask()).status == 200
    assert (stable.entry().live, stable.entry().previous) == (2, 1)


async def test_a_version_that_never_loads_leaves_the_old_one_serving_and_is_quarantined_in_the_end(
    stable: Stable,
) -> None:
    first = await stable.ready()
    assert (await stable.ask()).status == 200
    broken = model_folder(stable.folder / "broken", 9)
    digest = _digest(broken)
    stable.engine().broken.add(str(stable.whole.shelf.store.folder_of(digest)))
    await stable.call("models/new/versions", body={"source": str(broken)})
    version = await stable.until(QUARANTINED, 2)
    assert (version.strikes, version.reason) == (3, "RuntimeError: size mismatch for lm_head")
    answer = await stable.ask()
    assert (answer.status, stable.engine().source) == (200, str(stable.stored(first)))
    assert stable.entry().live == 1
    third = await stable.ready("new", 3)  # a new version is tried
    await eventually(lambda: stable.engine().source == str(stable.stored(third)), "the third version")
    assert (await stable.ask()).status == 200


async def test_the_only_version_that_never_loads_is_refused_until_a_new_one_comes(stable: Stable) -> None:
    source = model_folder(stable.folder / "sources" / "broken", 9)
    stable.engine().broken.add(str(stable.whole.shelf.store.folder_of(_digest(source))))
    await stable.add(source)
    await stable.until(READY)
    await stable.call("tenants/a", "PATCH", {"models": {"new": "new"}})
    refused = await stable.ask()
    assert refused.status == 503
    (host,) = (await stable.call("models/new", "GET")).json()["hosts"]
    assert (host["state"], host["reason"]) == ("quarantined", "RuntimeError: size mismatch for lm_head")
    assert (await stable.ask("one")).status == 200, "others go on"
    await stable.ready("new", 2)
    assert said(await stable.ask()) == "I am new"


async def test_rollback_and_promote_change_what_engines_start_with(stable: Stable) -> None:
    first, second = await stable.ready("new", 1), await stable.ready("new", 2)
    assert (await stable.call("models/new/rollback")).status == 200
    assert (await stable.ask()).status == 200
    assert stable.engine().source == str(stable.stored(first))
    assert (await stable.call("models/new/rollback")).error["code"] == "no_previous_version"
    assert (await stable.call("models/new/promote", body={"version": 2})).status == 200
    await eventually(lambda: stable.engine().source == str(stable.stored(second)), "the second version")
    assert (await stable.call("models/new/promote", body={"version": 7})).error["code"] == "version_not_found"


async def test_what_was_changed_under_its_digest_is_fetched_anew_once_no_engine_starts_with_it(
    stable: Stable,
) -> None:
    version = await stable.ready()
    weights = stable.stored(version) / "model.safetensors"
    weights.chmod(0o600)
    body = weights.read_bytes()
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    stable.engine().broken.add(str(stable.stored(version)))
    asked = asyncio.ensure_future(stable.ask())
    await eventually(lambda: weights.exists() and weights.read_bytes() == body, "the files")
    stable.engine().broken.clear()
    assert said(await asked) == "I am new"
    assert stable.version().state is READY


async def test_what_was_cut_short_while_nothing_ran_is_fetched_anew_at_the_start(tmp_path: Path) -> None:
    async with stable_in(tmp_path) as stable:
        version = await stable.ready()
        weights = stable.stored(version) / "model.safetensors"
    weights.chmod(0o600)
    os.truncate(weights, 100)
    async with stable_in(tmp_path) as stable:
        assert said(await stable.ask()) == "I am new"
        assert stable.stored(stable.version()) == stable.stored(version)


# -- a model goes ------------------------------------------------------------------------------------------


async def test_a_model_that_tenants_may_call_is_not_retired(stable: Stable) -> None:
    await stable.ready()
    refused = await stable.call("models/new", "DELETE")
    assert (refused.status, refused.error["code"]) == (409, "model_in_use")
    assert "tenants may call it: a" in refused.error["message"]


async def test_one_that_is_retired_while_it_streams_ends_its_stream_and_then_makes_room(
    stable: Stable,
) -> None:
    await stable.ready()
    engine = stable.engine()
    engine.behave = engine.hold_mid_stream
    stream = asyncio.ensure_future(stable.mesh.ask("new", stream=True)())
    await eventually(lambda: engine.running == 1, "the stream")
    await stable.call("tenants/a", "PATCH", {"models": {"new": None}})
    assert (await stable.call("models/new", "DELETE")).status == 202
    assert (await stable.ask()).status == 404
    other = asyncio.ensure_future(stable.ask("one"))
    await asyncio.sleep(0.05)
    assert not other.done() and engine.running == 1, "its place is taken until the stream ends"
    engine.release.set()
    assert b"[DONE]" in (await stream).body
    assert said(await other) == "I am one"
    assert not stable.mesh.hosts["mesh-0"].refused
    await eventually(lambda: "new" not in stable.whole.shelf.entries, "its end")
    await eventually(lambda: not stable.whole.shelf.store.usage(), "the end of its files")
    assert ("leave", "new", None) in stable.mesh.hosts["mesh-0"].orders


async def test_a_name_can_be_used_again(stable: Stable) -> None:
    await stable.ready()
    await stable.call("tenants/a", "PATCH", {"models": {"new": None}})
    await stable.call("models/new", "DELETE")
    await eventually(lambda: "new" not in stable.whole.shelf.entries, "its end")
    await stable.ready("new", 5)
    assert said(await stable.ask()) == "I am new"


def with_two_awake(folder: Path) -> Fleet:
    """A fleet in which a model may be pinned beside others."""
    return replace(fleet_in(folder), pools=mesh_fleet(MODELS, awake=2).pools)


async def test_a_pin_is_the_models_through_a_restart_and_not_the_next_ones_of_its_name(
    tmp_path: Path,
) -> None:
    async with stable_in(tmp_path, with_two_awake(tmp_path)) as stable:
        await stable.ready()
        assert (await stable.call("models/new/pin")).status == 200
        await eventually(lambda: stable.mesh.awake() == {"new"}, "the pinned model")
    async with stable_in(tmp_path) as stable:
        await eventually(lambda: stable.mesh.awake() == {"new"}, "the pinned model, after a restart")
        await stable.call("tenants/a", "PATCH", {"models": {"new": None}})
        await stable.call("models/new", "DELETE")
        await eventually(lambda: "new" not in stable.whole.shelf.entries, "its end")
        await stable.ready("new", 5)
        assert not stable.mesh.pool.is_pinned("new")
    async with stable_in(tmp_path) as stable:
        assert said(await stable.ask()) == "I am new"
        assert not stable.mesh.pool.is_pinned("new")


async def test_of_two_operators_who_add_one_name_the_second_is_told(stable: Stable) -> None:
    source = model_folder(stable.folder / "source")
    answers = await asyncio.gather(*(stable.add(source) for _ in range(2)))
    assert len(stable.entry().versions) == sum(answer.status == 202 for answer in answers)
    assert {answer.status for answer in answers} <= {202, 409}


async def test_retired_while_it_is_fetched_it_is_gone(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    def fetch(source: str, *_: object, should_stop: Any, **__: object) -> None:
        while not should_stop():
            pass
        stopped.append(source)
        raise SourceUnavailable("stopped")

    monkeypatch.setattr("adapters.sources.fetch", fetch)
    await stable.add("hf://example/model")
    await stable.until(VersionState.FETCHING)
    assert (await stable.call("models/new", "DELETE")).status == 202
    await eventually(lambda: "new" not in stable.whole.shelf.entries, "its end")
    await eventually(lambda: bool(stopped), "the fetch's end")


async def test_a_fetch_that_the_end_of_the_gateway_breaks_off_goes_on_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = False

    def fetch(source: str, into: Path, *, should_stop: Any, **_: object) -> None:
        while not (may_end or should_stop()):
            pass
        if not may_end:
            raise SourceUnavailable("stopped")
        shutil.rmtree(into)
        model_folder(into)

    monkeypatch.setattr("adapters.sources.fetch", fetch)
    async with stable_in(tmp_path) as stable:
        await stable.add("hf://example/model")
        await stable.until(VersionState.FETCHING)
    may_end = True
    async with stable_in(tmp_path) as stable:
        await stable.until(READY)


# -- what is declared --------------------------------------------------------------------------------------


async def test_base_models_of_a_pool_come_and_go_by_apply_while_others_are_awake(stable: Stable) -> None:
    assert (await stable.ask("one")).status == 200
    before = stable.mesh.gateway.fleet.declared
    starts = stable.engine("one").starts
    third = replace(before.base_models["one"], name="third", source="/models/third")
    tenant = before.tenants["a"]
    after = replace(
        before,
        base_models={**before.base_models, "third": third},
        pools={"mesh": replace(before.pools["mesh"], base_models=("one", "third"))},
        tenants={
            **{n: replace(t, models={"one": "one"}) for n, t in before.tenants.items()},
            "a": replace(tenant, models={"one": "one", "third": "third"}),
        },
    )
    after = replace(after, base_models={n: m for n, m in after.base_models.items() if n != "two"})
    applied = await stable.declare(after)
    assert applied.status == 200, applied.body
    assert (await stable.ask("one")).status == 200
    assert stable.engine("one").starts == starts, "what is awake stays so"
    assert said(await stable.ask("third")) == "I am third"
    assert (await stable.ask("two")).status == 404


async def test_a_model_declared_with_a_url_waits_for_its_files_and_its_next_source_is_another_version(
    stable: Stable, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fetch(source: str, into: Path, **_: object) -> None:
        asyncio.run_coroutine_threadsafe(arrived.wait(), loop).result(10)
        shutil.rmtree(into)
        model_folder(into, seed=len(source))

    monkeypatch.setattr("adapters.sources.fetch", fetch)
    before = stable.mesh.gateway.fleet.declared
    fetched = replace(before.base_models["two"], source="hf://example/two")
    declared = replace(before, base_models={**before.base_models, "two": fetched})
    assert (await stable.declare(declared)).status == 200
    waiting = asyncio.ensure_future(stable.ask("two"))
    await eventually(lambda: "two" in stable.whole.shelf.entries, "the entry")
    (host,) = (await stable.call("models/two", "GET")).json()["hosts"]
    assert host["state"] == "absent"
    assert not waiting.done()
    arrived.set()
    assert said(await waiting) == "I am two"
    other = replace(fetched, source="hf://example/two@next")
    assert (
        await stable.declare(replace(before, base_models={**before.base_models, "two": other}))
    ).status == 200
    await eventually(lambda: stable.entry("two").live == 2, "the second version")
    await eventually(
        lambda: stable.engine("two").source == str(stable.stored(stable.version(2, "two"))), "it"
    )
    refused = await stable.call("models/two", "DELETE")
    assert refused.error["code"] == "model_declared"
    assert (await stable.declare(before)).status == 200
    assert said(await stable.ask("two")) == "I am two"
    await eventually(lambda: "two" not in stable.whole.shelf.entries, "the end of what was fetched")


def _digest(folder: Path) -> str:
    from adapters.whole_model import WHOLE_MODEL

    return WHOLE_MODEL.inspect(folder).digest


def test_the_fleet_is_extended_once_for_each_declaration(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    current = CurrentFleet(fleet)
    assert current.extend(fleet) is fleet
