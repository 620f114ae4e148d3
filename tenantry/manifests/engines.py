"""A pool's engines: a StatefulSet, whose pods are named as our hosts are, and what belongs to it."""

from __future__ import annotations

from engines import shared_memory
from tenantry.manifests import pods
from tenantry.manifests.cluster import in_bytes
from tenantry.manifests.site import ENGINE_PORT, Object, Site, SiteError

ENGINE = "engine"
CACHE = "/cache"
_CACHES = {
    "TENANTRY_STATE": "tenantry",  # copies of adapters
    "HF_HOME": "huggingface",
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}


def engines(site: Site) -> list[Object]:
    """Return the objects of a pool's engines. Raises `SiteError` where sizes do not fit each other."""
    return [_service(site), _stateful_set(site), _disruption_budget(site)]


def devices_of(site: Site) -> dict[str, str]:
    """Return the devices of each host, as limits: GPUs, or a MIG slice."""
    if not site.on_gpu:
        return {}
    if site.pool.mig is not None:
        return {f"nvidia.com/mig-{site.pool.mig.profile.replace('+', '.')}": "1"}
    named = [device.count(",") + 1 for device in site.pool.devices]
    needed = [site.fleet.base_models[name].tensor_parallel_size for name in site.pool.base_models]
    return {"nvidia.com/gpu": str(max([*named, *needed]))}


def _resources(site: Site) -> Object:
    """Return requests and limits; memory and devices are the same in both."""
    own, devices = site.engines, devices_of(site)
    needed_mib = _exchanged_mib(site)
    if in_bytes(own.shared_memory) < needed_mib * 2**20:
        raise SiteError(
            f"pool {site.pool.name}: engines do not start with shared_memory {own.shared_memory}; give them "
            f"{needed_mib}Mi or more"
        )
    if in_bytes(own.shared_memory) + in_bytes(pods.TEMPORARY) >= in_bytes(own.memory):
        raise SiteError(
            f"pool {site.pool.name}: memory {own.memory} has no room for an engine beside shared_memory "
            f"{own.shared_memory} and {pods.TEMPORARY} of /tmp, which count in it"
        )
    requests = {"cpu": own.cpu, "memory": own.memory, **devices}
    return {"requests": requests, "limits": {"memory": own.memory, **devices}}


def _exchanged_mib(site: Site) -> int:
    """Return what the engines that are awake at a host need of `/dev/shm`, at the least."""
    models = (site.fleet.base_models[name] for name in site.pool.base_models)
    exchange = any(shared_memory.exchanges(model.tensor_parallel_size, not site.on_gpu) for model in models)
    return shared_memory.CHUNKS * shared_memory.CHUNK_MIB * (site.pool.awake or 1) if exchange else 0


def _stateful_set(site: Site) -> Object:
    own, labels = site.engines, site.labels(ENGINE)
    variables = pods.variables(
        site,
        "engine",
        TENANTRY_OWN_DEVICES="1",
        **{name: f"{CACHE}/{folder}" for name, folder in _CACHES.items()},
    )
    name = {"name": "TENANTRY_REPLICA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    container = {
        "env": [name, *variables],
        "resources": _resources(site),
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    placed: Object = {
        "runtimeClassName": own.runtime_class,
        "priorityClassName": own.priority_class,
        "nodeSelector": own.node_selector,
        "tolerations": [one.to_kubernetes() for one in own.tolerations],
    }
    spec = {
        "automountServiceAccountToken": False,
        **{key: value for key, value in placed.items() if value},
        "topologySpreadConstraints": [spread],
        "containers": [pods.container(site, ENGINE, ENGINE_PORT, container)],
        "volumes": [pods.in_memory("shm", own.shared_memory), pods.in_memory("tmp", pods.TEMPORARY)],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": site.meta(site.pool.name, ENGINE),
        "spec": {
            "serviceName": site.pool.name,
            # Of a range whoever scales it says the number: applying the base anew changes none.
            **({"replicas": len(site.pool.hosts)} if site.pool.scaling is None else {}),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": pods.template(site, ENGINE, spec),
            "volumeClaimTemplates": [
                {"metadata": {"name": "cache", "labels": labels}, "spec": pods.claim(site, own.cache)}
            ],
        },
    }


def _service(site: Site) -> Object:
    """Return the headless Service whose EndpointSlices the gateway watches."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": site.meta(site.pool.name, ENGINE),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # the gateway probes engines itself
            "selector": site.labels(ENGINE),
            "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _disruption_budget(site: Site) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": site.meta(site.pool.name, ENGINE),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": site.labels(ENGINE)},
        },
    }
