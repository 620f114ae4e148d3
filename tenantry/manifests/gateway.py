"""A pool's gateway: one pod that keeps the pool's state, and may list and watch EndpointSlices.

Engines fetch adapters at the address that the gateway calls them from, its pod's. Its Service sends requests
there whether it is ready or not: there is no other gateway, and this one lets them wait for an engine or says
when to come again. It is not ready as soon as one of its models has no engine, and the others have theirs.

One pod, since two gateways would each count caps and rates for themselves; so there is no
PodDisruptionBudget: one that allowed no eviction would keep a node from ever being drained.
"""

from __future__ import annotations

from tenantry.manifests import pods
from tenantry.manifests.site import GATEWAY_PORT, Object, Site

GATEWAY = "gateway"
MEMORY = "2Gi"
STATE = "/state"


def gateway(site: Site) -> list[Object]:
    """Return the objects of a pool's gateway."""
    return [*_account(site), _claim(site), _service(site), _deployment(site)]


def _account(site: Site) -> list[Object]:
    """Return who the gateway is, and all that it may do."""
    rbac = "rbac.authorization.k8s.io"
    meta = site.meta(site.gateway, GATEWAY)
    rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    subject = {"kind": "ServiceAccount", "name": site.gateway, "namespace": site.namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": meta,
            "automountServiceAccountToken": False,  # the pod asks for it
        },
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": site.gateway},
            "subjects": [subject],
        },
    ]


def _claim(site: Site) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": site.meta(site.gateway, GATEWAY),
        "spec": pods.claim(site, site.cluster.state),
    }


def _service(site: Site) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": site.meta(site.gateway, GATEWAY),
        "spec": {
            "publishNotReadyAddresses": True,
            "selector": site.labels(GATEWAY),
            "ports": [{"name": "http", "port": GATEWAY_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _deployment(site: Site) -> Object:
    variables = pods.variables(
        site,
        "gateway",
        TENANTRY_ENGINE_SERVICES=site.pool.name,
        TENANTRY_STATE=STATE,
    )
    variables += [pods.secret_variable(site, name) for name in site.variables]
    container = {
        "env": list({one["name"]: one for one in variables}.values()),  # a guard's key may be HF_TOKEN
        "resources": {"requests": {"cpu": "1", "memory": MEMORY}, "limits": {"memory": MEMORY}},
        "volumeMounts": [
            {"name": "state", "mountPath": STATE},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    spec = {
        "serviceAccountName": site.gateway,
        "automountServiceAccountToken": True,
        "containers": [pods.container(site, GATEWAY, GATEWAY_PORT, container)],
        "volumes": [
            {"name": "state", "persistentVolumeClaim": {"claimName": site.gateway}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},  # on disk: what is fetched passes through it
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": site.meta(site.gateway, GATEWAY),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # the old one ends before the new one has the state
            "selector": {"matchLabels": site.labels(GATEWAY)},
            "template": pods.template(site, GATEWAY, spec),
        },
    }
