"""Who sets the number of a pool's replicas: KEDA, by what the gateway says of it in Prometheus."""

from __future__ import annotations

from tenantry.manifests.engines import ENGINE
from tenantry.manifests.site import Object, Site

POLL_S = 15  # a number stays for 300 s at least, so that none is missed
EMPTY_S = 60  # for a replica that is to go to run empty


def scaled_object(site: Site) -> Object | None:
    """Return a pool's ScaledObject; None where its number is fixed, or KEDA was not asked for.

    The number is the gateway's own: as many replicas as it says, or no change where it says nothing.
    """
    scaling, keda = site.pool.scaling, site.cluster.keda
    if scaling is None or keda is None:
        return None
    metric = f'tenantry_pool_desired_replicas{{namespace="{site.namespace}",pool="{site.pool.name}"}}'
    trigger = {
        "type": "prometheus",
        "metricType": "AverageValue",  # `Value` would multiply the number by the replicas that are there
        "metadata": {
            "serverAddress": keda.prometheus,
            "query": f"max({metric})",
            "threshold": "1",
            "ignoreNullValues": "false",  # a gateway that is not scraped wants nothing changed, and not none
        },
    }
    # Both count only for the way to none and back. The number has waited already.
    to_zero = {"pollingInterval": POLL_S, "cooldownPeriod": 0} if scaling.least == 0 else {}
    down = {"scaleDown": {"stabilizationWindowSeconds": EMPTY_S}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": site.meta(site.pool.name, ENGINE),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": site.pool.name},
            "minReplicaCount": scaling.least,
            "maxReplicaCount": site.pool.replicas,
            **to_zero,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": down}},
            "triggers": [trigger],
        },
    }
