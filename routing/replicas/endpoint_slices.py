"""What do Kubernetes' EndpointSlices say about where replicas are? Reads them; does no I/O.

A pool's pods are those of a StatefulSet, behind a headless Service, both called like the pool: so the
`hostname` of an endpoint is `<pool>-<ordinal>`, our name of a host. A Deployment's endpoints have none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

SERVICE_LABEL = "kubernetes.io/service-name"


class _Object(BaseModel):
    """A part of an answer of the API server, of which only what is declared is read."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


def _none_is_empty(value: object) -> object:
    """Take `null`, which Go writes for an empty list."""
    return () if value is None else value


class Metadata(_Object):
    """Name, labels and version of an object, or the version of a list."""

    name: str = ""
    resource_version: Annotated[str, StringConstraints(min_length=1)]
    labels: dict[str, str] = {}


class _Conditions(_Object):
    terminating: bool | None = None


class _Endpoint(_Object):
    addresses: Annotated[tuple[str, ...], BeforeValidator(_none_is_empty)] = ()
    hostname: str | None = None
    conditions: _Conditions = _Conditions()


class _Port(_Object):
    port: int | None = None


class EndpointSlice(_Object):
    """Some of a Service's endpoints; one Service may have several."""

    metadata: Metadata
    endpoints: Annotated[tuple[_Endpoint, ...], BeforeValidator(_none_is_empty)] = ()
    ports: Annotated[tuple[_Port, ...], BeforeValidator(_none_is_empty)] = ()

    @property
    def service(self) -> str:
        """The Service that it belongs to; empty: none."""
        return self.metadata.labels.get(SERVICE_LABEL, "")

    def url_of(self, endpoint: _Endpoint) -> str | None:
        """Return where an endpoint is reached: its first address, the first port. None: nowhere."""
        port = next((port.port for port in self.ports if port.port and 0 < port.port < 65536), None)
        try:
            address = ipaddress.ip_address(endpoint.addresses[0] if endpoint.addresses else "")
        except ValueError:
            return None
        host = f"[{address}]" if address.version == 6 else str(address)
        return None if port is None else f"http://{host}:{port}"


class SliceList(_Object):
    """All slices at one version."""

    metadata: Metadata
    items: Annotated[tuple[EndpointSlice, ...], BeforeValidator(_none_is_empty)]


class Event(_Object):
    """One line of a watch."""

    type: str
    object: dict[str, Any]


class _Bookmark(_Object):
    metadata: Metadata


class Found(NamedTuple):
    """Where hosts are, and what was passed over."""

    addresses: dict[str, str]  # host -> URL
    ignored: frozenset[str]  # a sentence for each kind


class Slices:
    """All slices as they are known."""

    def __init__(self, all_of_them: SliceList) -> None:
        """Begin with a list of them."""
        self.version = all_of_them.metadata.resource_version
        self._by_name = {one.metadata.name: one for one in all_of_them.items}

    def take(self, event: Event) -> None:
        """Take over an event of a watch. Raises `ValueError` for what cannot be understood."""
        if event.type == "BOOKMARK":
            self.version = _Bookmark.model_validate(event.object).metadata.resource_version
            return
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            raise ValueError(f"the API server sent an event of the unknown type {event.type!r}")
        one = EndpointSlice.model_validate(event.object)
        if event.type == "DELETED":
            self._by_name.pop(one.metadata.name, None)
        else:
            self._by_name[one.metadata.name] = one
        self.version = one.metadata.resource_version

    def find(self, services: Collection[str]) -> Found:
        """Return where the hosts of these Services are, ready or not, but for those that are terminating.

        Of several addresses of one host that of the slice first in the alphabet counts, the same each time.
        """
        addresses, ignored = dict[str, str](), set[str]()
        for _, one in sorted(self._by_name.items()):
            if one.service not in services:
                continue
            for endpoint in one.endpoints:
                if endpoint.conditions.terminating:
                    continue
                url, why = one.url_of(endpoint), _why_not(one.service, endpoint.hostname)
                if why is None and url is None:
                    why = f"the endpoint {endpoint.hostname} has no IP address or no port"
                if why is not None:
                    ignored.add(why)
                elif endpoint.hostname is not None and url is not None:
                    addresses.setdefault(endpoint.hostname, url)
        return Found(addresses, frozenset(ignored))


def _why_not(service: str, hostname: str | None) -> str | None:
    """Say why an endpoint is no host of the pool called like its Service; None: it is one."""
    if hostname is None:
        return f"endpoints of the Service {service} have no hostname; run its pods as a StatefulSet"
    if not re.fullmatch(re.escape(service) + r"-(0|[1-9][0-9]{0,5})", hostname, re.ASCII):
        return f"the endpoint {hostname!r} of the Service {service} is none of a StatefulSet called {service}"
    return None
