"""What every pod of ours has: who it is, how it is probed, how it ends, its variables and volumes."""

from __future__ import annotations

import math

from tenantry.manifests.site import Object, Site

USER = 1034  # BentoML's, in every image that it makes
BEFORE_STOP_S = 5  # for whoever sends requests here to learn that the pod goes
OURS_BEYOND_GRACE_S = 10  # after `shutdown_grace_s` and this the service is gone, whatever it waits for
SPARE_S = 20  # before Kubernetes kills: a node may be slow
TEMPORARY = "1Gi"  # of /tmp, in memory


def end_s(site: Site) -> int:
    """Return how long a pod has from being deleted to being killed, in seconds."""
    ours = math.ceil(site.fleet.gateway.shutdown_grace_s) + OURS_BEYOND_GRACE_S
    return BEFORE_STOP_S + ours + SPARE_S


def template(site: Site, component: str, spec: Object) -> Object:
    """Return a pod's template: `spec`, and what all pods have."""
    return {
        "metadata": {"labels": site.labels(component)},
        "spec": {
            # A Service called `tenantry-engine` would make variables that could be taken for ours.
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": end_s(site),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **spec,
        },
    }


def container(site: Site, name: str, port: int, own: Object) -> Object:
    """Return the one container of a pod: `own`, and what all have."""
    return {
        "name": name,
        "image": site.image,
        "args": ["serve", "--host", "0.0.0.0", "--port", str(port)],  # noqa: S104 - of a pod
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        **own,
        **probes(),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(BEFORE_STOP_S)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def probes() -> Object:
    """Return the probes: half an hour to come up, a minute without life, three seconds to be found ready.

    While imports block, a process answers late; so each probe waits three seconds. `/livez` fails after five
    failed starts of an engine: the pod is then started anew.
    """

    def probe(path: str, period_s: int, failures: int) -> Object:
        return {
            "httpGet": {"path": path, "port": "http"},
            "periodSeconds": period_s,
            "timeoutSeconds": 3,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe("/livez", 10, 180),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 3, 2),
    }


def variables(site: Site, role: str, **more: str) -> list[Object]:
    """Return the variables of every process: which part of the fleet it is, and the common secret."""
    values = {"TENANTRY_ROLE": role, "TENANTRY_POOL": site.pool.name, "TENANTRY_LOG": "json", **more}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        secret_variable(site, "TENANTRY_SECRET"),
        secret_variable(site, "HF_TOKEN", optional=True),
    ]


def secret_variable(site: Site, name: str, *, optional: bool = False) -> Object:
    """Return a variable whose value is in the pool's Secret, under the same name."""
    key: Object = {"name": site.secret, "key": name} | ({"optional": True} if optional else {})
    return {"name": name, "valueFrom": {"secretKeyRef": key}}


def in_memory(name: str, size: str) -> Object:
    """Return a volume in memory, which counts in the container's."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def claim(site: Site, size: str) -> Object:
    """Return what a claim asks for."""
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return spec | ({"storageClassName": site.cluster.storage_class} if site.cluster.storage_class else {})
