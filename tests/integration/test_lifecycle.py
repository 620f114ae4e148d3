"""Adapters on their way through a whole gateway: real state and store on disk, fake engines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy.orm import Session

from adapters.checkpoint import AdapterManifest
from adapters.errors import SourceUnavailable
from adapters.layout import SERVED_FILES
from adapters.states import VersionState
from adapters.verify import verify
from engines.residency import ENGINE_DIED, Fault, FaultKind, TrialReport
from fleet.current import CurrentFleet
from fleet.types import Adapter, Caps, Fleet, StateSettings
from routing.assembly import assemble
from routing.catalog.directory import Directory
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    KeyRole,
    RolloutPlan,
    Version,
)
from routing.catalog.sources import Remote
from routing.errors import Conflict, Forbidden, InvalidRequest, NotFound, StateUnavailable
from routing.lifecycle import Lifecycle, Manager
from routing.lifecycle.ports import NewVersion
from routing.replicas.discovery import StaticDiscovery
from routing.scheduling.state import Engine, Replica
from routing.state import StateStore
from routing.state.tables import AdapterRow, VersionRow
from tests.fakes import SECRET, Client, FakeEngine, eventually, key_of, serving, small_fleet
from tests.integration.conftest import Bench

KEY = AdapterKey("a", "billing")


def adapter_folder(folder: Path, seed: int = 0, *, rank: int = 8, **config: Any) -> Path:
    """An adapter as PEFT saves it, with weights that are its own."""
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    values = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "bias": "none",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(values))
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": chance.standard_normal((rank, 16), dtype=np.float32),
        f"{module}.lora_B.weight": chance.standard_normal((16, rank), dtype=np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@dataclass
class House:
    """A gateway with its lifecycle, in front of fake engines; the test keeps its disk."""

    bench: Bench
    directory: Directory
    lifecycle: Lifecycle
    manager: Manager
    fleet: Fleet
    folder: Path

    def entry(self, key: AdapterKey = KEY) -> AdapterEntry:
        return self.manager.adapter(key)

    def state(self, number: int = 1, key: AdapterKey = KEY) -> VersionState:
        version = self.entry(key).version(number)
        assert version is not None
        return version.state

    def reason(self, number: int = 1) -> str:
        version = self.entry().version(number)
        assert version is not None
        return version.reason

    async def add(self, seed: int = 0, *, key: AdapterKey = KEY, **options: Any) -> Version:
        """Register a version from a folder of this machine, as an operator does."""
        where = self.folder / "sources" / f"{key.name}-{seed}-{time.monotonic_ns()}"
        folder = adapter_folder(where, seed, **options.pop("config", {}))
        return await self.manager.add(key, None, NewVersion(source=str(folder), trusted=True, **options))

    async def until(self, state: VersionState, number: int = 1, key: AdapterKey = KEY) -> None:
        await eventually(lambda: self.state(number, key) is state, f"version {number} {state}")

    async def ready(self, seed: int = 0, *, key: AdapterKey = KEY, **options: Any) -> Version:
        version = await self.add(seed, key=key, **options)
        await self.until(VersionState.READY, version.number, key)
        await eventually(lambda: self.told(version_id(self, version)), "the engines' word")
        return self.lifecycle.registry.current(version)

    def told(self, adapter_id: str, replica: str = "shared-0") -> bool:
        """Whether the engine was told that it may serve the version."""
        return any(a["id"] == adapter_id for a in self.bench.engines[replica].desired["adapters"])

    async def ask(self, model: str = "billing", tenant: str = "a", **fields: Any) -> Client:
        return await self.bench.chat(tenant, model=model, **fields)()

    def left_of_uploads(self, archive: Path) -> list[str]:
        """Archives that are still there."""
        kept = os.listdir(self.folder / "state" / "uploads")
        return [*kept, *([archive.name] if archive.exists() else [])]

    @property
    def stored(self) -> list[Path]:
        """Weights in the store."""
        return sorted((self.folder / "state" / "adapters").glob("??/*/adapter_model.safetensors"))


def version_id(house: House, version: Version) -> str:
    return house.lifecycle.registry.current(version).engine_id


def fleet_in(folder: Path, **state: Any) -> Fleet:
    """The small fleet; its adapters are folders, its state is in `folder`."""
    fleet = small_fleet()
    adapters = {}
    for seed, name in enumerate(fleet.adapters):
        source = folder / "declared" / name
        if not source.exists():
            adapter_folder(source, 100 + seed)
        adapters[name] = Adapter(name, str(source), "base")
    settings = StateSettings(folder=str(folder / "state"), **state)
    base = replace(fleet.base_models["base"], max_lora_rank=16)
    return replace(fleet, adapters=adapters, base_models={"base": base}, state=settings)


@contextlib.asynccontextmanager
async def house_of(
    fleet: Fleet, folder: Path, *, prepare: Callable[[FakeEngine], None] | None = None, wait: bool = True
) -> AsyncIterator[House]:
    """Start a gateway over what the folder holds; at the end every counter must be at zero."""
    names = [name for pool in fleet.pools.values() for name, _ in pool.replica_models]
    engines = {name: FakeEngine(name) for name in names}
    for engine in engines.values():
        if prepare is not None:
            prepare(engine)
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        for name, engine in engines.items():
            socket = folder / f"{name}.sock"
            socket.unlink(missing_ok=True)
            addresses[name] = await stack.enter_async_context(serving(engine, socket))
        gateway = assemble(CurrentFleet(fleet), StaticDiscovery(lambda: addresses), secret=SECRET)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        if wait:
            await eventually(gateway.is_ready, "the gateway's readiness")
        bench = Bench(gateway, engines)
        manager = Manager(gateway.fleet, gateway.directory, gateway.lifecycle, gateway.turns)
        yield House(bench, gateway.directory, gateway.lifecycle, manager, fleet, folder)
        for engine in engines.values():
            engine.release.set()
        await eventually(lambda: bench.at_rest, f"rest of {gateway.dispatcher!r}")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A gateway over an empty state folder."""
    async with house_of(fleet_in(tmp_path), tmp_path) as house:
        yield house


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[House]:
    """The same, of tenants whose requests wait for a moment only."""
    fleet = fleet_in(tmp_path)
    caps = Caps(queue_timeout_s=0.3)
    tenants = {name: replace(tenant, caps=caps) for name, tenant in fleet.tenants.items()}
    async with house_of(replace(fleet, tenants=tenants), tmp_path) as house:
        yield house


# -- from registration to answers --------------------------------------------------------------------------


async def test_declared_adapters_answer_once_the_gateway_is_ready(house: House) -> None:
    answer = await house.bench.chat("a", model="support")()
    assert answer.status == 200
    assert answer.headers["x-tenantry-adapter"] == "a-support"
    assert answer.headers["x-tenantry-version"] == "1"
    entry = house.entry(AdapterKey(None, "a-support"))
    assert house.bench.engines["shared-0"].seen[-1]["model"] == entry.versions[0].engine_id
    assert len(house.stored) == 4


async def test_a_registered_adapter_answers_its_tenant_and_nobody_else(house: House) -> None:
    version = await house.ready()
    answer = await house.ask()
    assert answer.status == 200 and answer.json()["model"] == "billing"
    assert house.bench.engines["shared-0"].seen[-1]["model"] == version.engine_id
    assert (await house.ask(tenant="b")).status == 404
    assert not house.told(version.engine_id, "alone-0")
    listed = await house.bench.get("/v1/models", key=key_of("a"))()
    assert "billing" in [model["id"] for model in listed.json()["data"]]
    listed = await house.bench.get("/v1/models", key=key_of("b"))()
    assert "billing" not in [model["id"] for model in listed.json()["data"]]


async def test_two_tenants_use_one_name_and_each_gets_its_own(house: House) -> None:
    mine = await house.ready(1)
    theirs = await house.ready(2, key=AdapterKey("b", "billing"))
    for tenant, version in (("a", mine), ("b", theirs)):
        assert (await house.ask(tenant=tenant)).status == 200
        assert house.bench.engines["shared-0"].seen[-1]["model"] == version.engine_id
    await house.manager.retire(KEY, None)
    assert (await house.ask(tenant="a")).status == 404
    assert (await house.ask(tenant="b")).status == 200


@pytest.mark.parametrize("name", ["gone", "x" * 1000, "gone/below"])
async def test_a_folder_that_is_not_there_is_said_at_once(house: House, name: str) -> None:
    source = str(house.folder / name)
    with pytest.raises(NotFound) as raised:
        await house.manager.add(KEY, None, NewVersion(source=source, trusted=True))
    assert (raised.value.status, raised.value.code) == (404, "source_not_found")
    assert house.directory.adapter(KEY) is None


@pytest.mark.parametrize("source", ["https://169.254.169.254/a.zip", "s3://169.254.169.254/a"])
@pytest.mark.parametrize("named", [False, True])
async def test_a_metadata_address_is_refused_unless_the_fleet_names_it(
    tmp_path: Path, source: str, named: bool
) -> None:
    fleet = fleet_in(tmp_path)
    tenant = replace(fleet.tenants["b"], adapter_sources=(source.rpartition("/")[0],) if named else ())
    fleet = replace(fleet, tenants={**fleet.tenants, "b": tenant})
    async with house_of(fleet, tmp_path) as house:
        new = NewVersion(source=source, trusted=True)
        if named:
            assert await house.manager._registration.check(KEY, new) == Remote(source)
        else:
            with pytest.raises(Forbidden, match=r"unless fleet\.yaml names that host"):
                await house.manager.add(KEY, None, new)


async def test_a_broken_adapter_never_reaches_an_engine(house: House) -> None:
    await house.add(config={"use_dora": True})
    await house.until(VersionState.QUARANTINED)
    assert "DoRA" in house.reason()
    assert str(house.folder) not in house.reason()
    refused = await house.ask()
    assert refused.status == 409 and refused.error["code"] == "adapter_quarantined"
    assert "DoRA" in refused.error["message"] and str(house.folder) not in refused.error["message"]
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    assert len(house.stored) == 4
    assert not any("billing" in a["id"] for a in house.bench.engines["shared-0"].desired["adapters"])


async def test_a_rank_over_the_base_models_is_refused_with_what_would_take_it(house: House) -> None:
    await house.add(config={"rank": 64})
    await house.until(VersionState.QUARANTINED)
    assert "rank 64" in house.reason() and "at most 16" in house.reason()


async def test_an_adapter_that_changes_nothing_is_refused_by_its_trial(house: House) -> None:
    house.bench.engines["shared-0"].trial = lambda _: TrialReport(False, "it answers as its base", 0.0, 0.1)
    await house.add()
    await house.until(VersionState.QUARANTINED)
    assert "answers as its base" in house.reason()
    await eventually(
        lambda: not any("billing" in a["id"] for a in house.bench.engines["shared-0"].desired["adapters"])
    )


@pytest.mark.parametrize("certain", [True, False])
async def test_an_effect_that_the_trial_does_not_show_is_believed_where_it_is_certain(
    house: House, monkeypatch: pytest.MonkeyPatch, certain: bool
) -> None:
    def verified(folder: Path, *, base: object) -> AdapterManifest:
        return replace(verify(folder, base=None), is_effective=certain)

    monkeypatch.setattr("routing.lifecycle.preparation.verify", verified)
    report = TrialReport(False, "it answers like the base model: check it", 0.0, 0.1)
    house.bench.engines["shared-0"].trial = lambda _: report
    await house.add()
    await house.until(VersionState.READY if certain else VersionState.QUARANTINED)
    events = [event.text for event in await house.manager.events(20, None)]
    assert any("no difference was seen in its trial" in text for text in events) is certain


async def test_what_a_trial_does_find_counts_whatever_is_certain(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "routing.lifecycle.preparation.verify",
        lambda folder, *, base: replace(verify(folder, base=None), is_effective=True),
    )
    house.bench.engines["shared-0"].trial = lambda _: TrialReport(False, "not finite", 0.0, 0.1)
    await house.add()
    await house.until(VersionState.QUARANTINED)


WORDS = "RuntimeError: the kernel does not take this shape, in /opt/venv/kernels.py"
NO_COMPILER = "InductorError: InvalidCxxCompiler: No working C++ compiler found"


def die_of_trials(engine: FakeEngine, times: int, words: str = WORDS, *, then: str = "") -> None:
    """Have an engine die under its first trials; it comes back, or fails to start for the reason `then`."""
    left = [times]

    def trial(_: str) -> TrialReport:
        if left[0]:
            left[0] -= 1
            engine.die(words)
            back = engine.come_back if not then else lambda: engine.fail(then)
            asyncio.get_running_loop().call_later(0.05, back)
        return TrialReport(True, "", 1.0, 0.01)

    engine.trial = trial


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are asked at once what became of them, and trials repeated at once."""
    monkeypatch.setattr("routing.lifecycle.aftermath.ASK_INTERVAL_S", 0.01)
    monkeypatch.setattr("routing.replicas.prober.PROBE_INTERVAL_S", 0.02)
    monkeypatch.setattr("routing.lifecycle.trial.RETRY_S", 0.01)
    monkeypatch.setattr("routing.lifecycle.trial.MACHINE_RETRY_S", 0.01)
    monkeypatch.setattr("routing.lifecycle.trial.CUT_OFF_RETRY_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_an_engine_that_dies_once_under_a_trial_may_be_chance(house: House) -> None:
    die_of_trials(house.bench.engines["shared-0"], 1)
    version = await house.ready()
    assert house.lifecycle.registry.current(version).strikes == 1
    assert (await house.ask()).status == 200


@pytest.mark.usefixtures("quick")
async def test_an_adapter_that_kills_engines_is_blamed_in_their_last_words(house: House) -> None:
    engine = house.bench.engines["shared-0"]
    die_of_trials(engine, 9)
    await house.add()
    await house.until(VersionState.QUARANTINED)
    assert engine.deaths == 2
    assert "the kernel does not take this shape" in house.reason() and "/opt" not in house.reason()
    await eventually(lambda: house.bench.gateway.dispatcher.replicas["shared-0"].ready)
    assert (await house.bench.chat("a", model="support")()).status == 200


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("words", "then"),
    [
        (WORDS, NO_COMPILER),  # the machine broke while the engine was up: it does not come back
        (WORDS, "RuntimeError: CUDA error: device not available"),
        (NO_COMPILER, ""),  # it comes back by what was compiled before, and yet no adapter is the reason
        ("OSError: [Errno 28] No space left on device", ""),
    ],
)
async def test_what_is_the_machines_fault_is_no_strike(house: House, words: str, then: str) -> None:
    engine = house.bench.engines["shared-0"]
    die_of_trials(engine, 3, words, then=then)
    version = await house.add()
    for death in (1, 2, 3):
        await eventually(lambda death=death: engine.deaths == death, f"death {death}")  # type: ignore[misc]
        if then:
            await eventually(lambda: bool(engine.failure), "the failed start")
            engine.come_back()
        await eventually(lambda: "no fault of the adapter" in house.reason(), "what is said of it")
    await house.until(VersionState.READY)
    assert house.lifecycle.registry.current(version).strikes == 0


@pytest.mark.usefixtures("quick")
async def test_a_new_version_that_engines_die_of_as_they_load_it_is_blamed_once_they_are_back(
    house: House,
) -> None:
    engine = house.bench.engines["shared-0"]
    version = await house.ready()
    name = version_id(house, version)
    for death in (1, 2):
        reason = f"{ENGINE_DIED} loaded this adapter: KeyError: {death}"
        engine.faults = {name: Fault(FaultKind.CRASH, death, reason, engine.starts)}
        asked = engine.asked
        await eventually(lambda asked=asked: engine.asked > asked + 1, "its report")  # type: ignore[misc]
        assert house.lifecycle.registry.current(version).strikes == death - 1, "no engine is back yet"
        engine.come_back()
        await eventually(
            lambda death=death: house.lifecycle.registry.current(version).strikes == death,  # type: ignore[misc]
            "the strike",
        )
    await house.until(VersionState.QUARANTINED)
    assert house.reason().endswith("KeyError: 2")


@pytest.mark.usefixtures("quick")
async def test_a_trial_that_only_lost_its_connection_is_no_strike(house: House) -> None:
    engine, tries = house.bench.engines["shared-0"], [0]

    def trial(_: str) -> TrialReport:
        tries[0] += 1
        if tries[0] < 4:
            raise ConnectionResetError("the network")
        return TrialReport(True, "", 1.0, 0.01)

    engine.trial = trial
    version = await house.ready()
    assert (tries[0], house.lifecycle.registry.current(version).strikes) == (4, 0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("again", ["shared-0", "shared-9"])
async def test_a_replica_that_leaves_after_its_engine_died_under_a_trial_proves_nothing(
    house: House, again: str
) -> None:
    engine, gateway = house.bench.engines["shared-0"], house.bench.gateway

    def trial(_: str) -> TrialReport:
        if not engine.deaths:
            engine.die(WORDS)
        return TrialReport(True, "", 1.0, 0.01)

    engine.trial = trial
    version = await house.add()
    await eventually(lambda: engine.deaths == 1, "its death")
    addresses = dict(gateway.replicas._addresses or {})
    gateway.replicas._take(addresses | {again: addresses["shared-0"]})
    gateway.replicas.leave("shared-0")
    gateway.replicas.join(Replica(again, "shared", Engine(again, "base", 2, 8, max_resident=8)))
    engine.come_back()
    await house.until(VersionState.READY)
    assert house.lifecycle.registry.current(version).strikes == 0
    assert (await house.ask()).headers["x-tenantry-replica"] == again


async def test_files_that_only_a_replica_that_left_may_hold_are_deleted(house: House) -> None:
    await house.ready()
    engine, gateway = house.bench.engines["shared-0"], house.bench.gateway
    engine.ready = False  # it does not say that it holds the version no more
    await eventually(lambda: not gateway.dispatcher.replicas["shared-0"].ready)
    before = len(house.stored)
    await house.manager.retire(KEY, None)
    await asyncio.sleep(0.1)
    assert len(house.stored) == before
    gateway.replicas.leave("shared-0")
    await eventually(lambda: len(house.stored) == before - 1, "the removal at another replica's probe")


@pytest.mark.usefixtures("quick")
async def test_a_replica_that_fails_says_why_to_operators_and_no_more_than_that_to_tenants(
    impatient: House,
) -> None:
    house = impatient
    engine = house.bench.engines["shared-0"]
    engine.fail(NO_COMPILER)
    await eventually(lambda: house.manager.replicas()[0].figures.failed, "the failure to be noticed")
    figures = next(r.figures for r in house.manager.replicas() if r.figures.name == "shared-0")
    assert (figures.ready, figures.reason) == (False, NO_COMPILER)
    assert not house.bench.gateway.is_ready(), "nobody of that pool can be answered"
    await house.add()
    codes = {"support": "queue_timeout", "plain": "queue_timeout"}  # they have waited for it to come back
    codes["billing"] = "adapter_unavailable"  # its only version waits for a trial
    for model, code in codes.items():
        refused = await house.ask(model)
        assert (refused.status, refused.error["code"]) == (503, code)
        assert "does not start" in refused.error["message"] and "Compiler" not in refused.error["message"]
        assert int(refused.headers["retry-after"]) > 0
    assert (await house.bench.chat("c", model="support")()).status == 200, "the other pool goes on"
    engine.come_back()
    await eventually(house.bench.gateway.is_ready, "readiness")
    await house.until(VersionState.READY)
    assert (await house.ask()).status == 200 and house.manager.replicas()[0].figures.reason == ""


@pytest.mark.usefixtures("quick")
async def test_a_quarantined_version_can_be_verified_again(house: House) -> None:
    die_of_trials(house.bench.engines["shared-0"], 2)
    await house.add()
    await house.until(VersionState.QUARANTINED)
    await house.manager.verify(KEY, 1)
    await house.until(VersionState.READY)
    with pytest.raises(Conflict):
        await house.manager.verify(KEY, 1)


async def test_an_upload_is_unpacked_checked_and_removed(house: House) -> None:
    source = adapter_folder(house.folder / "packed", 5)
    archive = Path(shutil.make_archive(str(house.folder / "upload"), "gztar", source))
    version = await house.manager.add(KEY, None, NewVersion(upload=archive))
    await house.until(VersionState.READY, version.number)
    assert not house.left_of_uploads(archive)
    assert (await house.ask()).status == 200


async def test_a_source_that_does_not_answer_is_said_and_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.lifecycle.attempts.RETRY_DELAYS_S", (0.0, 0.0))
    tries = []

    def fetch(source: str, *_: object, **__: object) -> None:
        tries.append(source)
        raise SourceUnavailable(f"{source} does not answer")

    monkeypatch.setattr("adapters.sources.fetch", fetch)
    await house.add()
    await house.until(VersionState.QUARANTINED)
    assert "does not answer" in house.reason()
    assert len(tries) == 3


# -- who may ask for what ----------------------------------------------------------------------------------


async def test_a_tenants_own_key_cannot_make_the_gateway_read_its_disk_or_network(house: House) -> None:
    for source in ("/etc", "file:///etc", "https://169.254.169.254/latest.tar", "s3://other/adapter"):
        with pytest.raises((Forbidden, InvalidRequest)):
            await house.manager.add(KEY, None, NewVersion(source=source))
    with pytest.raises(NotFound):
        house.entry()


async def test_names_the_fleet_uses_and_base_models_it_lacks_are_refused(house: House) -> None:
    source = str(adapter_folder(house.folder / "source"))
    for key, base_model, error in (
        (AdapterKey("a", "support"), None, Conflict),
        (AdapterKey("a", "a-support"), None, Conflict),
        (AdapterKey("a", "new"), "unknown", InvalidRequest),
        (AdapterKey("nobody", "new"), None, NotFound),
        (AdapterKey(None, "a-support"), None, Conflict),
    ):
        with pytest.raises(error):
            await house.manager.add(key, base_model, NewVersion(source=source, trusted=True))


async def test_racing_registrations_become_two_versions(house: House) -> None:
    versions = await asyncio.gather(house.add(1), house.add(2))
    assert sorted(version.number for version in versions) == [1, 2]
    await house.until(VersionState.READY, 1)
    await house.until(VersionState.READY, 2)
    await eventually(lambda: house.entry().live == 2)


# -- new versions ------------------------------------------------------------------------------------------


async def test_a_new_version_takes_over_and_the_old_one_finishes_what_it_began(house: House) -> None:
    first = await house.ready(1)
    engine = house.bench.engines["shared-0"]
    engine.behave = engine.hold
    began = house.bench.chat("a", model="billing").start()
    await eventually(lambda: engine.running == 1)
    engine.behave = engine.answer
    second = await house.ready(2)
    assert (await house.ask()).headers["x-tenantry-version"] == "2"
    assert engine.seen[-1]["model"] == second.engine_id != first.engine_id
    engine.release.set()
    await began.done()
    assert began.status == 200 and began.headers["x-tenantry-version"] == "1"


async def test_rolling_back_needs_no_load_and_no_wait(house: House) -> None:
    await house.ready(1)
    await house.ready(2)
    entry = await house.manager.rollback(KEY)
    assert entry.live == 1
    assert (await house.ask()).headers["x-tenantry-version"] == "1"
    with pytest.raises(Conflict):
        await house.manager.rollback(KEY)
    assert (await house.manager.promote(KEY, 2)).live == 2


async def test_a_version_can_be_named_before_it_gets_traffic(house: House) -> None:
    await house.ready(1)
    await house.ready(2, rollout=RolloutPlan(weight=0.0))
    assert (await house.ask("billing")).headers["x-tenantry-version"] == "1"
    assert (await house.ask("billing@2")).headers["x-tenantry-version"] == "2"
    assert (await house.ask("billing@3")).status == 404


async def test_a_user_stays_on_one_side_of_a_split(house: House) -> None:
    await house.ready(1)
    await house.ready(2, rollout=RolloutPlan(weight=0.5))
    sides = {}
    for user in (f"user-{i}" for i in range(20)):
        answers = [await house.ask(user=user) for _ in range(2)]
        sides[user] = {answer.headers["x-tenantry-version"] for answer in answers}
    assert all(len(versions) == 1 for versions in sides.values())
    assert set.union(*sides.values()) == {"1", "2"}


async def test_a_candidate_that_fails_is_rolled_back_by_itself(house: House) -> None:
    await house.ready(1)
    second = await house.ready(2, rollout=RolloutPlan(weight=0.5))
    engine = house.bench.engines["shared-0"]

    async def behave(body: dict[str, Any], send: Any) -> None:
        await (engine.break_down if body["model"] == second.engine_id else engine.answer)(body, send)

    engine.behave = behave
    failed = 0
    for i in range(60):
        failed += (await house.ask(user=f"user-{i}")).status != 200
        if house.entry().rollout is None:
            break
    assert house.entry().rollout is None and house.entry().live == 1
    assert failed <= 5
    for i in range(60):
        assert (await house.ask(user=f"user-{i}")).headers["x-tenantry-version"] == "1"


async def test_a_good_candidate_is_promoted_where_that_was_asked_for(house: House) -> None:
    await house.ready(1)
    await house.ready(2, rollout=RolloutPlan(weight=1.0, min_requests=5, promote_after=10))
    for _ in range(10):
        await house.ask()
    await eventually(lambda: house.entry().live == 2 and house.entry().rollout is None)


async def test_one_rollout_at_a_time(house: House) -> None:
    await house.ready(1)
    await house.ready(2, rollout=RolloutPlan())
    with pytest.raises(Conflict):
        await house.add(3, rollout=RolloutPlan())


async def test_old_versions_beyond_those_kept_are_retired(tmp_path: Path) -> None:
    async with house_of(fleet_in(tmp_path, keep_versions=1), tmp_path) as house:
        for seed in range(1, 6):
            await house.ready(seed)
        kept = [VersionState.RETIRED] * 2 + [VersionState.READY] * 3
        await eventually(lambda: [version.state for version in house.entry().versions] == kept)
        await eventually(lambda: len(house.stored) == 4 + 3)


# -- retiring, pinning -------------------------------------------------------------------------------------


async def test_a_retired_adapter_is_gone_after_its_last_request(house: House) -> None:
    version = await house.ready()
    engine = house.bench.engines["shared-0"]
    engine.behave = engine.hold
    running = house.bench.chat("a", model="billing").start()
    await eventually(lambda: engine.running == 1)
    await house.manager.retire(KEY, None)
    assert (await house.ask()).status == 404
    asked = engine.asked
    await eventually(lambda: engine.asked > asked + 1, "the engine to be asked again")
    assert house.told(version.engine_id) and len(house.stored) == 5
    engine.release.set()
    await running.done()
    assert running.status == 200
    await eventually(lambda: not house.told(version.engine_id), "the engine to be told")
    await eventually(lambda: len(house.stored) == 4, "the store to be tidied")


async def test_a_version_can_be_retired_while_it_is_being_prepared(house: House) -> None:
    for seed in range(8):
        version = await house.add(seed)
        for _ in range(seed):
            await asyncio.sleep(0)
        await house.manager.retire(KEY, None)
        assert house.state(version.number) is VersionState.RETIRED
    assert (await house.ask()).status == 404
    await house.ready(99)
    assert (await house.ask()).status == 200


async def test_an_upload_whose_files_vanished_gives_way_to_the_version_before(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        await house.ready(1)
        archive = shutil.make_archive(str(tmp_path / "upload"), "gztar", adapter_folder(tmp_path / "two", 2))
        second = await house.manager.add(KEY, None, NewVersion(upload=Path(archive)))
        await house.until(VersionState.READY, 2)
        digest = house.lifecycle.registry.current(second).digest or ""
        folder = house.lifecycle.store.folder_of(digest)
        folder.chmod(0o700)
        shutil.rmtree(folder)
    async with house_of(fleet, tmp_path) as house:
        assert house.state(2) is VersionState.QUARANTINED and house.entry().live == 1
        assert (await house.ask()).headers["x-tenantry-version"] == "1"


async def test_an_engine_that_missed_a_change_is_told_again(house: House) -> None:
    house.bench.engines["shared-0"].deaf = 2
    version = await house.ready()
    assert house.told(version.engine_id)
    assert (await house.ask()).status == 200


async def test_a_retired_name_can_be_used_again(house: House) -> None:
    await house.ready(1)
    await house.manager.retire(KEY, None)
    await house.ready(2)
    assert (await house.ask()).headers["x-tenantry-version"] == "2"


async def test_the_live_version_is_not_retired_alone(house: House) -> None:
    await house.ready(1)
    await house.ready(2)
    with pytest.raises(Conflict):
        await house.manager.retire(KEY, 2)
    await house.manager.retire(KEY, 1)
    assert house.state(1) is VersionState.RETIRED
    with pytest.raises(Conflict):
        await house.manager.rollback(KEY)


async def test_declared_adapters_are_changed_in_their_file_only(house: House) -> None:
    with pytest.raises(Conflict):
        await house.manager.retire(AdapterKey(None, "a-support"), None)


async def test_pins_leave_a_slot_for_everybody_else(house: House) -> None:
    version = await house.ready()
    await house.manager.pin(KEY, True)
    replica = house.bench.gateway.dispatcher.replicas["shared-0"]
    await eventually(lambda: replica.engine.pinned == {version.engine_id})
    assert replica.engine.free_slots == 1
    with pytest.raises(Conflict):
        await house.manager.pin(AdapterKey(None, "a-support"), True)
    await house.manager.pin(KEY, False)
    await eventually(lambda: not replica.engine.pinned)


REFUSED = TrialReport(False, "/srv/models/x.bin says nothing", 0.0, 0.1)


async def refuse_all(house: House) -> None:
    house.bench.engines["shared-0"].trial = lambda _: REFUSED


async def test_an_adapter_whose_only_version_is_quarantined_cannot_be_pinned(house: House) -> None:
    await refuse_all(house)
    await house.add()
    await house.until(VersionState.QUARANTINED)
    with pytest.raises(Conflict) as refused:
        await house.manager.pin(KEY, True)
    assert refused.value.code == "no_version_to_pin"
    assert (
        "Version 1 is quarantined: the trial on an engine failed: x.bin says nothing."
        in refused.value.message
    )
    assert "`retry`" in refused.value.message
    assert not house.entry().pinned


async def test_a_retired_adapter_cannot_be_pinned(house: House) -> None:
    await house.ready()
    await house.manager.pin(KEY, True)
    await house.manager.retire(KEY, None)
    assert not house.entry().pinned
    with pytest.raises(Conflict, match="register one first"):
        await house.manager.pin(KEY, True)


async def test_an_adapter_none_of_whose_ready_versions_is_live_cannot_be_pinned(house: House) -> None:
    await house.ready()
    await house.lifecycle.registry.route(KEY, live=None, previous=None, rollout=None)
    with pytest.raises(Conflict, match="promote one first"):
        await house.manager.pin(KEY, True)


async def test_a_pin_may_be_asked_for_before_the_first_version_is_ready(house: House) -> None:
    house.bench.engines["shared-0"].ready = False
    await eventually(lambda: not house.bench.gateway.dispatcher.replicas["shared-0"].ready)
    version = await house.add()
    await house.until(VersionState.VERIFYING)
    await house.manager.pin(KEY, True)
    house.bench.engines["shared-0"].ready = True
    await house.until(VersionState.READY)
    replica = house.bench.gateway.dispatcher.replicas["shared-0"]
    await eventually(lambda: replica.engine.pinned == {version_id(house, version)})


@pytest.mark.parametrize("end", ["refused", "retired", "its engines died"])
async def test_a_pin_ends_with_the_last_version_that_could_use_it(house: House, end: str) -> None:
    """Its slot is another's to pin; and a version that passes later does not take it back unasked."""
    engine = house.bench.engines["shared-0"]
    if end == "its engines died":
        version = await house.ready()
        await house.manager.pin(KEY, True)
        for _ in range(2):
            await house.lifecycle._blame(house.lifecycle.registry.current(version), "it died")
    else:
        engine.ready = False
        await eventually(lambda: not house.bench.gateway.dispatcher.replicas["shared-0"].ready)
        await house.add()
        await house.until(VersionState.VERIFYING)
        await house.manager.pin(KEY, True)
        if end == "retired":
            await house.manager.retire(KEY, 1)
        else:
            await refuse_all(house)
        engine.ready = True
    await eventually(lambda: not house.entry().pinned)
    await eventually(lambda: house.bench.gateway.dispatcher.replicas["shared-0"].ready)
    other = AdapterKey(None, "a-support")
    assert (await house.manager.pin(other, True)).pinned
    happened = [event.text for event in await house.manager.events(20, None)]
    assert "no longer pinned: no version is left to pin" in happened


async def test_a_pin_outlives_a_version_that_is_refused_beside_the_live_one(house: House) -> None:
    await house.ready(1)
    await house.manager.pin(KEY, True)
    await refuse_all(house)
    await house.add(2)
    await house.until(VersionState.QUARANTINED, 2)
    await eventually(lambda: house.entry().versions[1].id in house.lifecycle.preparation.attempted)
    assert house.entry().pinned


async def test_a_quarantined_version_is_neither_promoted_nor_rolled_out_and_says_why(house: House) -> None:
    await house.ready(1)
    await refuse_all(house)
    await house.add(2)
    await house.until(VersionState.QUARANTINED, 2)
    for change in (house.manager.promote(KEY, 2), house.manager.rollout(KEY, 2, RolloutPlan(weight=0.5))):
        with pytest.raises(Conflict) as refused:
            await change
        assert refused.value.code == "version_not_ready"
        assert "Version 2 is quarantined: the trial on an engine failed: x.bin" in refused.value.message
        assert "Have it verified again" in refused.value.message


# -- restarts ----------------------------------------------------------------------------------------------


async def test_a_restarted_gateway_serves_what_was_registered_without_being_asked(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        await house.ready(1)
        second = await house.ready(2, rollout=RolloutPlan(weight=1.0))
        secret, _ = await house.manager.create_key(KeyRole.INFERENCE, "a", note="", expires_s=None)
    tried: list[str] = []

    def notice(engine: FakeEngine) -> None:
        engine.trial = lambda name: tried.append(name) or TrialReport(True, "", 1.0, 0.0)  # type: ignore[func-returns-value]

    async with house_of(fleet, tmp_path, prepare=notice) as house:
        assert house.entry().rollout is not None
        answer = await house.ask()
        assert answer.headers["x-tenantry-version"] == "2"
        assert house.bench.engines["shared-0"].seen[-1]["model"] == second.engine_id
        assert house.directory.authenticate(secret, time.time()) is not None
        assert not tried


async def test_work_that_a_restart_cut_off_begins_again(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        trial = asyncio.Event()
        house.bench.engines["shared-0"].trial = lambda _: trial.set() or TrialReport(False, "", 0, 0)  # type: ignore[func-returns-value]
        house.bench.engines["shared-0"].ready = False
        await eventually(lambda: not house.bench.gateway.dispatcher.replicas["shared-0"].ready)
        await house.add()
        await house.until(VersionState.VERIFYING)
        assert not trial.is_set()
    async with house_of(fleet, tmp_path) as house:
        await house.until(VersionState.READY)
        assert (await house.ask()).status == 200


async def test_changed_folders_become_new_versions_and_removed_ones_are_retired(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path):
        pass
    shutil.rmtree(tmp_path / "declared" / "a-support")
    adapter_folder(tmp_path / "declared" / "a-support", 900)
    tenants = {**fleet.tenants, "a": replace(fleet.tenants["a"], models={"support": "a-support"})}
    adapters = {name: a for name, a in fleet.adapters.items() if name != "a-sales"}
    async with house_of(replace(fleet, tenants=tenants, adapters=adapters), tmp_path) as house:
        assert house.entry(AdapterKey(None, "a-support")).live == 2
        assert house.state(1, AdapterKey(None, "a-sales")) is VersionState.RETIRED
        assert (await house.ask("support")).headers["x-tenantry-version"] == "2"


def cut_short(folder: Path) -> None:
    for name in SERVED_FILES:
        (folder / name).chmod(0o600)
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])


@pytest.mark.parametrize("harm", [shutil.rmtree, cut_short])
async def test_files_that_vanished_from_the_store_or_are_damaged_are_fetched_again(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    fleet = fleet_in(tmp_path)
    async with house_of(fleet, tmp_path) as house:
        whole = {path: path.read_bytes() for path in house.stored}
        for path in house.stored:
            path.parent.chmod(0o700)
            harm(path.parent)
    async with house_of(fleet, tmp_path) as house:
        assert {path: path.read_bytes() for path in house.stored} == whole
        assert (await house.ask("support")).status == 200


# -- keys --------------------------------------------------------------------------------------------------


async def test_declared_keys_are_told_by_the_beginning_of_their_hash(house: House) -> None:
    told = house.manager.declared_keys()
    hashes = {tenant.name: tenant.key_hashes for tenant in house.fleet.tenants.values()}
    assert [key.role for key in told if key.tenant is None] == [KeyRole.OPERATOR] * len(
        house.fleet.gateway.operator_key_hashes
    )
    for name, digests in hashes.items():
        found = [key for key in told if key.tenant == name]
        assert {key.fingerprint for key in found} == {digest[:16] for digest in digests}
        assert all(key.role is KeyRole.INFERENCE for key in found)


async def test_a_key_works_at_once_and_is_useless_at_once(house: House) -> None:
    secret, key = await house.manager.create_key(KeyRole.INFERENCE, "b", note="laptop", expires_s=None)
    assert secret.startswith(key.prefix) and secret not in repr(key)

    async def status() -> int:
        headers = [("authorization", f"Bearer {secret}"), ("content-type", "application/json")]
        body = b'{"model": "support", "messages": [{"role": "user", "content": "hi"}]}'
        return (
            await Client(house.bench.gateway.app, "/v1/chat/completions", body=body, headers=headers)()
        ).status

    assert await status() == 200
    await house.manager.revoke_key(key.id)
    assert await status() == 401
    with pytest.raises(NotFound):
        await house.manager.revoke_key("unknown")


# -- a database that fails, many adapters --------------------------------------------------------------------


async def test_serving_goes_on_while_the_database_does_not_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ready(1)
    second = await house.ready(2, rollout=RolloutPlan(weight=1.0))

    def refuse(*_: object, **__: object) -> None:
        raise StateUnavailable("the database is locked")

    store = house.lifecycle.registry._store
    with monkeypatch.context() as broken:
        for name in ("add_adapter", "add_version", "route", "move", "note", "record", "add_key"):
            broken.setattr(store, name, refuse)
        with pytest.raises(StateUnavailable):
            await house.add(3)
        with pytest.raises(StateUnavailable):
            await house.manager.promote(KEY, None)
        assert (await house.ask()).headers["x-tenantry-version"] == "2"
        engine = house.bench.engines["shared-0"]
        engine.behave = engine.break_down
        for _ in range(5):
            await house.ask()
        assert house.entry().rollout is None, "a rollback does not wait for the database"
        engine.behave = engine.answer
        assert (await house.ask()).headers["x-tenantry-version"] == "1"
    await eventually(lambda: house.lifecycle.registry.entry(second).rollout is None)


async def test_a_thousand_adapters_are_listed_and_looked_up_fast(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path)
    store = StateStore(fleet.state.database_url)
    store.open()
    with Session(store._engine) as session, session.begin():  # one transaction, not thousands
        session.add_all(ready_row(f"adapter-{i}", digest=f"{i:064x}") for i in range(1000))
    store.close()
    for i in range(1000):
        folder = tmp_path / "state" / "adapters" / f"{i:064x}"[:2] / f"{i:064x}"
        folder.mkdir(parents=True)
        for name in SERVED_FILES:
            (folder / name).write_bytes(b"x")
    async with house_of(fleet, tmp_path) as house:
        assert len(house.bench.engines["shared-0"].desired["adapters"]) == 1003
        for i in (0, 500, 999):
            assert (await house.ask(f"adapter-{i}")).status == 200
        began = time.perf_counter()
        for i in range(1000):
            assert house.directory.resolve(fleet.tenants["a"], f"adapter-{i}", "") is not None
        listed = house.manager.adapters()
        assert time.perf_counter() - began < 1.0, "a thousand look-ups and one listing, on any machine"
        assert len(listed) == 1004


def ready_row(name: str, *, digest: str) -> AdapterRow:
    """A registered adapter of tenant a with one version that answers."""
    version = VersionRow(
        number=1,
        source="s3://bucket/x",
        state="ready",
        reason="",
        digest=digest,
        size_bytes=len(SERVED_FILES),
        strikes=0,
        created_s=0,
    )
    return AdapterRow(
        tenant="a", name=name, base_model="base", declared=False, pinned=False, live=1, versions=[version]
    )
