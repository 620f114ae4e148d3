"""Makes one host of a fleet: that of one base model, or that of several."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engines.builder import Shared, builder_thread
from engines.host import EngineHost
from engines.memory import memory_of_host
from engines.shared_host import SharedHost
from engines.supervisor import Supervisor
from engines.vllm_engine import is_cpu_build
from fleet.types import Fleet, Host, Pool


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
    shared = Shared(builder_thread(), tuple(models.values()))
    supervisors = {
        name: Supervisor(replica, models[name], **settings, shared=shared) for replica, name in place.replicas
    }
    memory = memory_of_host(on_cpu=is_cpu_build())
    return SharedHost(supervisors, thread=shared.thread, awake=pool.awake, memory=memory, token=token)
