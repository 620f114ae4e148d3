"""Removes the adapters of a tenant that was removed: out of traffic, out of engines, off the disk."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from routing.catalog.entries import AdapterKey, Version
from routing.lifecycle.changes import Changes
from routing.lifecycle.registry import Registry, patiently


async def remove_adapters(
    tenant: str,
    registry: Registry,
    changes: Changes,
    retire_version: Callable[[Version], Awaitable[None]],
) -> None:
    """Remove all of a tenant's own adapters; `retire_version` lets their requests and engines end first."""
    for entry in registry.directory.adapters_of(tenant):
        await patiently(functools.partial(_remove, entry.key, registry, changes, retire_version))


async def _remove(
    key: AdapterKey,
    registry: Registry,
    changes: Changes,
    retire_version: Callable[[Version], Awaitable[None]],
) -> None:
    async with changes.of(key):
        entry = registry.directory.adapter(key)
        if entry is None:  # removed meanwhile
            return
        entry = await registry.route(key, live=None, previous=None, rollout=None)
        for version in entry.versions:
            await retire_version(version)
        await registry.remove_adapter(key)
