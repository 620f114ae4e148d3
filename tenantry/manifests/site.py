"""A pool in its place: its names, labels and images, and whether Kubernetes takes all of that."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fleet import project
from fleet.types import Fleet, Isolation, Pool, Strategy
from tenantry.bundle import bento_name, key_hashes
from tenantry.manifests.cluster import Cluster, Engines

Object = dict[str, Any]
ENGINE_PORT, GATEWAY_PORT = 3410, 3000
OWNER = "tenantry"
# A StatefulSet's pods have a label `<name>-<hash of ten characters>`, which must not exceed 63.
LONGEST_POOL = 52
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


class SiteError(ValueError):
    """A fleet cannot run in Kubernetes as it is declared; says why."""


@dataclass(frozen=True, slots=True)
class Site:
    """One pool, its gateway and its engines. The objects of no two pools share a name."""

    fleet: Fleet  # the part of it that the pool needs
    pool: Pool
    cluster: Cluster
    engines: Engines
    on_gpu: bool
    variables: tuple[str, ...]  # that hold keys and the database's address, for the gateway alone

    @property
    def is_dedicated(self) -> bool:
        """Whether its tenant shares nothing with others."""
        tenants = (self.fleet.tenants[name] for name in self.pool.tenants)
        return any(tenant.isolation is Isolation.DEDICATED for tenant in tenants)

    @property
    def namespace(self) -> str:
        """Where all its objects are."""
        name = self.cluster.namespace
        return f"{name}-{self.pool.name}" if self.is_dedicated else name

    @property
    def gateway(self) -> str:
        """Name of whatever is its gateway's."""
        return f"{self.pool.name}-gateway"

    @property
    def secret(self) -> str:
        """Name of the Secret that somebody makes by hand."""
        return f"{self.pool.name}-secrets"

    @property
    def image(self) -> str:
        """The image of its Bento."""
        prefix = f"{self.cluster.registry}/" if self.cluster.registry else ""
        return f"{prefix}{bento_name(self.pool.name)}:{self.cluster.tag}"

    def labels(self, component: str) -> dict[str, str]:
        """Return the labels of a component's pods, by which they are selected."""
        return {
            "app.kubernetes.io/name": OWNER,
            "app.kubernetes.io/instance": self.pool.name,
            "app.kubernetes.io/component": component,
        }

    def meta(self, name: str, component: str) -> Object:
        """Return the metadata of an object."""
        return {"name": name, "namespace": self.namespace, "labels": self.labels(component)}


def sites_of(
    fleet: Fleet,
    pools: Collection[str],
    cluster: Cluster,
    *,
    on_gpu: bool,
    key_variables: Mapping[str, str],
) -> list[Site]:
    """Return the sites of some pools of a fleet. Raises `SiteError`, `ClusterError`, `FleetError`."""
    unknown = sorted(set(cluster.pools) - set(fleet.pools))
    if unknown:
        raise SiteError(f"pools.{unknown[0]}: the fleet has no such pool; it has {', '.join(fleet.pools)}")
    sites = []
    for name in pools:
        part = project(fleet, name)
        pool = part.pools[name]
        _check(pool)
        hashes = key_hashes(part)
        variables = {variable for digest, variable in key_variables.items() if digest in hashes}
        settings = part.gateway
        others = [part.state.database_variable, settings.batches.key_variable]
        others += [guard.key_variable for guard in settings.guards.values()]
        variables |= {name for name in others if name}
        engines = cluster.engines_of(name)
        sites.append(Site(part, pool, cluster, engines, on_gpu, tuple(sorted(variables))))
    _check_names(sites)
    return sites


def _check(pool: Pool) -> None:
    """Raise `SiteError` for a pool that cannot run in Kubernetes."""
    if len(pool.name) > LONGEST_POOL or not _LABEL.fullmatch(pool.name):
        raise SiteError(
            f"pool {pool.name}: Kubernetes wants at most {LONGEST_POOL} of a-z, 0-9 and `-`, the first a "
            "letter and the last none of `-`; give the pool another name"
        )
    if pool.strategy is Strategy.MIG and pool.mig is None:
        raise SiteError(
            f"pool {pool.name}: Kubernetes deals out slices by profile and not by UUID; say "
            "`mig: {gpu: 0, profile: 1g.18gb, count: 2}` in the place of `devices`"
        )


def _check_names(sites: Collection[Site]) -> None:
    """Raise `SiteError` where a pool is called like another one's gateway."""
    pools = {(site.namespace, site.pool.name) for site in sites}
    for site in sites:
        if (site.namespace, site.gateway) in pools:
            raise SiteError(
                f"pool {site.gateway}: the gateway of pool {site.pool.name} has this name; rename one of them"
            )
        if len(site.namespace) > 63:
            raise SiteError(f"namespace {site.namespace}: longer than 63 characters; shorten the pool's name")
