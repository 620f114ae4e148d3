"""Namespaces, and who may speak to whom: nobody but those that are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from fleet.types import StateSettings
from tenantry.manifests.engines import ENGINE
from tenantry.manifests.gateway import GATEWAY
from tenantry.manifests.site import ENGINE_PORT, GATEWAY_PORT, OWNER, Object, Site, SiteError

HTTPS, API_SERVER, POSTGRESQL = 443, 6443, 5432
_USUAL = {"https": HTTPS, "http": 80}
_LEVEL = "pod-security.kubernetes.io"


def namespace(name: str) -> list[Object]:
    """Return a namespace in which pods may do little, and speak to nobody unless it is said."""
    labels = {
        "app.kubernetes.io/name": OWNER,
        f"{_LEVEL}/enforce": "restricted",
        f"{_LEVEL}/warn": "restricted",
    }
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        _policy({"name": "default-deny", "namespace": name}, deny),
    ]


def network(site: Site) -> list[Object]:
    """Return who may speak to a pool's engines and to its gateway, and to whom these may."""
    return [_of_engines(site), _of_gateway(site)]


def _of_engines(site: Site) -> Object:
    """Engines take their gateway alone, through which their metrics are scraped too."""
    peer = {"podSelector": {"matchLabels": site.labels(GATEWAY)}}
    return _policy(
        site.meta(site.pool.name, ENGINE),
        {
            "podSelector": {"matchLabels": site.labels(ENGINE)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer], "ports": _tcp([ENGINE_PORT])}],
            "egress": [
                _names(),
                {"to": [peer], "ports": _tcp([GATEWAY_PORT])},  # adapters
                {"ports": _tcp([HTTPS, *_ports_of([site.fleet.gateway.tracing.endpoint])])},  # weights
            ],
        },
    )


def _of_gateway(site: Site) -> Object:
    """The gateway takes everybody, as it looks at keys. What it calls is said by port: addresses vary."""
    settings = site.fleet.gateway
    called = [HTTPS, API_SERVER]
    called += _port_of_database(site.fleet.state)
    called += _ports_of([settings.tracing.endpoint, *(guard.url for guard in settings.guards.values())])
    called += _ports_of(source for source in _sources(site) if source.startswith("https:"))
    engines = {"podSelector": {"matchLabels": site.labels(ENGINE)}}
    return _policy(
        site.meta(site.gateway, GATEWAY),
        {
            "podSelector": {"matchLabels": site.labels(GATEWAY)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": _tcp([GATEWAY_PORT])}],
            "egress": [
                _names(),
                {"to": [engines], "ports": _tcp([ENGINE_PORT])},
                {"ports": _tcp(called)},
            ],
        },
    )


def _port_of_database(state: StateSettings) -> list[int]:
    """Return the port of PostgreSQL, if it is used: its own where the fleet file tells the address."""
    if state.database_variable is not None:
        return [POSTGRESQL]
    return _ports_of([state.database])


def _sources(site: Site) -> Iterator[str]:
    """Yield where adapters and base models come from, and from where tenants may have theirs."""
    fleet = site.fleet
    yield from (model.source for model in fleet.base_models.values())
    yield from (adapter.source for adapter in fleet.adapters.values())
    for tenant in fleet.tenants.values():
        yield from tenant.adapter_sources


def _policy(meta: Object, spec: Object) -> Object:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def _names() -> Object:
    """Let names be asked for."""
    dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    return {"to": [dns], "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}


def _tcp(ports: Iterable[int]) -> list[Object]:
    return [{"protocol": "TCP", "port": port} for port in sorted({*ports})]


def _ports_of(urls: Iterable[str | None]) -> list[int]:
    """Return the ports of URLs. Raises `SiteError` for what is none, without the URL and its password."""
    return [_port_of(url) for url in urls if url]


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    try:
        return parts.port or _USUAL.get(parts.scheme, POSTGRESQL)
    except ValueError:
        raise SiteError(f"the fleet file names {parts.hostname} with a port that is none") from None
