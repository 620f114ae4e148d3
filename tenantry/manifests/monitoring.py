"""What Prometheus' operator scrapes and records, for clusters that have its kinds; in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import yaml

from fleet.types import MetricsAccess
from tenantry.bundle import ROOT
from tenantry.manifests.gateway import GATEWAY
from tenantry.manifests.site import Object, Site, SiteError

OPERATOR_KEY = "operator-key"  # the key of the Secret that has an operator's API key
RULES = ROOT / "deploy" / "observability" / "rules"
_GROUP = "monitoring.coreos.com"


def pod_monitor(site: Site) -> Object:
    """Return what is scraped of a pool: its gateway, and through it each replica."""
    pages = [("/metrics", {"job": "tenantry-gateway"})]
    pages += [
        (f"/metrics/{name}", {"job": "tenantry-engine", "replica": name})
        for name, _ in site.pool.replica_models
    ]
    key = {"credentials": {"name": site.secret, "key": OPERATOR_KEY}}
    is_open = site.fleet.gateway.metrics_access is MetricsAccess.OPEN
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "PodMonitor",
        "metadata": site.meta(site.pool.name, GATEWAY),
        "spec": {
            "selector": {"matchLabels": site.labels(GATEWAY)},
            "podMetricsEndpoints": [
                {
                    "port": "http",
                    "path": path,
                    **({} if is_open else {"authorization": key}),
                    "relabelings": [
                        {"action": "replace", "targetLabel": label, "replacement": value}
                        for label, value in labels.items()
                    ],
                }
                for path, labels in pages
            ],
        },
    }


def rules(namespace: str, folder: Path = RULES) -> Object:
    """Return our rules for records and alerts. Raises `SiteError` where they are not here."""
    files = sorted(folder.glob("*.yml"))
    if not files:
        raise SiteError(f"{folder} has no rules; run the command from a complete checkout")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tenantry", "namespace": namespace},
        "spec": {"groups": groups},
    }
