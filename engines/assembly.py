"""Makes one host of a fleet: that of one base model, or that of several."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adapters.base_model import folder_of
from engines.builder import Shared, builder_thread
from engines.host import EngineHost
from engines.memory import memory_of_host
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
    settings: dict[str, Any] = {
        "shutdown_grace_s": fleet.gateway.shutdown_grace_s,
        "traces_endpoint": fleet.gateway.tracing.endpoint,
        "withheld": withheld,
    }
    models = {name: fleet.base_models[name] for name in place.base_models}
    if not pool.strategy.shares_hosts:
        ((replica, name),) = place.replicas
        supervisor = Supervisor(replica, models[name], **settings, on_slice=place.on_slice)
        return EngineHost(supervisor, token=token)
    on_cpu = is_cpu_build()
    shared = Shared(builder_thread(), tuple(models.values()))
    supervisors = {
        name: Supervisor(replica, models[name], **settings, shared=shared) for replica, name in place.replicas
    }
    turns = Turns({name: _model_of(model, fleet, on_cpu=on_cpu) for name, model in models.items()})
    for supervisor in supervisors.values():
        supervisor.turns = turns
    growth = Growth(
        make=lambda name: Supervisor(f"{place.name}.{name}", BaseModel(name, ""), **settings, shared=shared),
        describe=lambda model: _model_of(model, fleet, on_cpu=on_cpu),
    )
    return SharedHost(
        supervisors,
        thread=shared.thread,
        awake=pool.awake,
        memory=memory_of_host(on_cpu=on_cpu),
        token=token,
        turns=turns,
        growth=growth,
    )


def _model_of(model: BaseModel, fleet: Fleet, *, on_cpu: bool) -> Model:
    argv = engine_args(
        model,
        shutdown_grace_s=fleet.gateway.shutdown_grace_s,
        on_cpu=on_cpu,
        traces_endpoint=fleet.gateway.tracing.endpoint,
    )
    return Model(model.name, folder_of(model.source, model.revision), tuple(argv))
