"""Makes one host of a fleet: that of one base model, or that of several."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from adapters.base_model import folder_of
from engines.adapter_files import AdapterFiles
from engines.builder import Shared, builder_thread
from engines.copies import Folders
from engines.forking.server import OF_CPU_ENGINE, OF_ENGINE, OF_GPU_ENGINE, ForkServer, architectures_of
from engines.host import EngineHost
from engines.memory import memory_of_host
from engines.model_files import ModelFiles
from engines.shared_host import Growth, SharedHost
from engines.supervisor import Supervisor
from engines.switching.live import Model
from engines.switching.turns import Turns
from engines.vllm_args import engine_args
from engines.vllm_engine import is_cpu_build
from fleet.types import BaseModel, Fleet, Host, Pool


def host_of(
    fleet: Fleet, pool: Pool, place: Host, *, token: str, withheld: Collection[str]
) -> EngineHost | SharedHost:
    """Make a host; its engines' processes do not get the `withheld` environment variables."""
    files = AdapterFiles(folders_of(fleet), token)
    settings: dict[str, Any] = {
        "shutdown_grace_s": fleet.gateway.shutdown_grace_s,
        "traces_endpoint": fleet.gateway.tracing.endpoint,
        "withheld": withheld,
    }
    models = {name: fleet.base_models[name] for name in place.base_models}
    if not pool.strategy.shares_hosts:
        ((replica, name),) = place.replicas
        supervisor = Supervisor(replica, models[name], **settings, on_slice=place.on_slice)
        supervisor.files = files
        return EngineHost(supervisor, token=token)
    on_cpu = is_cpu_build()
    forks = _fork_server(place, models.values(), on_cpu=on_cpu) if pool.fork_server else None
    shared = Shared(builder_thread(), tuple(models.values()), forks, pool.sleep)
    supervisors = {
        name: Supervisor(replica, models[name], **settings, shared=shared) for replica, name in place.replicas
    }
    turns = Turns({name: _model_of(fleet, pool, model, on_cpu=on_cpu) for name, model in models.items()})
    for supervisor in supervisors.values():
        supervisor.turns, supervisor.files = turns, files

    def made(name: str) -> Supervisor:
        supervisor = Supervisor(f"{place.name}.{name}", BaseModel(name, ""), **settings, shared=shared)
        supervisor.files = files
        return supervisor

    host = SharedHost(
        supervisors,
        thread=shared.thread,
        awake=pool.awake,
        memory=memory_of_host(on_cpu=on_cpu),
        token=token,
        turns=turns,
        forks=forks,
    )
    host.places.files = ModelFiles(model_folders_of(fleet), token)
    host.growth = Growth(made, lambda model: _model_of(fleet, pool, model, on_cpu=on_cpu))
    return host


def folders_of(fleet: Fleet) -> Folders:
    """Say where a machine has, or may keep, the files of a fleet's adapters."""
    folder = Path(fleet.state.folder)
    return Folders(folder / "adapters", folder / "copies", fleet.state.store_bytes)


def model_folders_of(fleet: Fleet) -> Folders:
    """Say where a machine has, or may keep, the files of a fleet's whole models."""
    folder = Path(fleet.state.folder)
    return Folders(folder / "models", folder / "model-copies", fleet.state.model_store_bytes)


def _fork_server(place: Host, models: Iterable[BaseModel], *, on_cpu: bool) -> ForkServer:
    imports = (*OF_ENGINE, *(OF_CPU_ENGINE if on_cpu else OF_GPU_ENGINE))
    found = {name for model in models for name in architectures_of(folder_of(model.source, model.revision))}
    return ForkServer(place.name, imports, sorted(found))


def _model_of(fleet: Fleet, pool: Pool, model: BaseModel, *, on_cpu: bool) -> Model:
    argv = engine_args(
        model,
        shutdown_grace_s=fleet.gateway.shutdown_grace_s,
        on_cpu=on_cpu,
        traces_endpoint=fleet.gateway.tracing.endpoint,
        sleeps=pool.sleep,
    )
    return Model(model.name, folder_of(model.source, model.revision), tuple(argv))
