"""Which part of a fleet does this process serve? From the service's arguments and the environment. Pure.

A Bento and an image are started without arguments of ours, so all of them are environment variables too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from fleet.mig import SliceName
from fleet.types import Fleet, Host, Pool

DEVICES_VARIABLE = "TENANTRY_OWN_DEVICES"
ROLE_VARIABLE = "TENANTRY_ROLE"
VARIABLES = {"fleet": "TENANTRY_FLEET", "pool": "TENANTRY_POOL", "replica": "TENANTRY_REPLICA"}
FLEET_FILE = "fleet.yaml"


class Role(StrEnum):
    """What is started."""

    ALL = "all"  # the gateway, and the engines that are not elsewhere
    GATEWAY = "gateway"  # the gateway alone
    ENGINE = "engine"  # one host's engines


class RoleError(ValueError):
    """What is said does not go together, or the fleet has no such part."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of which fleet is served."""

    role: Role
    fleet: str  # file
    pool: str | None  # None: all pools
    replica: str | None  # the host, with `Role.ENGINE`


def part_of(arguments: Mapping[str, str | None], environ: Mapping[str, str]) -> Part:
    """Read both. An empty variable counts as none. Raises `RoleError`."""
    said = {name: _one(name, arguments.get(name), environ.get(VARIABLES[name])) for name in VARIABLES}
    given, replica = environ.get(ROLE_VARIABLE), said["replica"]
    try:
        role = Role(given) if given else Role.ENGINE if replica else Role.ALL
    except ValueError:
        raise RoleError(f"{ROLE_VARIABLE} is {given!r}, and must be one of {', '.join(Role)}") from None
    if role is Role.ENGINE and not replica:
        raise RoleError(f"{ROLE_VARIABLE}=engine needs {VARIABLES['replica']}, a host such as `shared-0`")
    if role is not Role.ENGINE and replica:
        raise RoleError(f"{ROLE_VARIABLE}={role} does not go with {replica!r}, which is one host's engines")
    return Part(role, said["fleet"] or FLEET_FILE, said["pool"], replica)


def host_in(fleet: Fleet, name: str) -> tuple[Pool, Host]:
    """Find a host. Raises `RoleError`."""
    hosts = {host.name: (pool, host) for pool in fleet.pools.values() for host in pool.hosts}
    if name not in hosts:
        raise RoleError(f"the fleet has no replica {name!r}; it has {', '.join(hosts)}")
    return hosts[name]


def on_devices_given(host: Host, environ: Mapping[str, str]) -> Host:
    """Return a host as it finds its devices: those of the fleet file, or all that its container was given.

    A fleet file counts the devices of a whole machine. A container that was given one of them has it as its
    first, whatever number the machine has for it; a MIG slice is the first of its profile on the first GPU.
    """
    if environ.get(DEVICES_VARIABLE) != "1":
        return host
    named = host.on_slice
    own = SliceName(gpu="0", profile=named.profile) if named is not None and named.profile else None
    return replace(host, device=None, on_slice=own)


def require_none_here(role: Role, hosts: Collection[str]) -> None:
    """Raise `RoleError` where a gateway alone would have to start engines."""
    if role is Role.GATEWAY and hosts:
        raise RoleError(
            f"{ROLE_VARIABLE}=gateway starts no engine, and nothing says where {', '.join(hosts)} run: set "
            "TENANTRY_ENGINE_FILE, TENANTRY_ENGINE_SERVICES or TENANTRY_ENGINE_URLS"
        )


def _one(name: str, argument: str | None, variable: str | None) -> str | None:
    if argument and variable and argument != variable:
        raise RoleError(
            f"{name} is {argument!r} by argument and {variable!r} by {VARIABLES[name]}; leave one out"
        )
    return argument or variable or None
