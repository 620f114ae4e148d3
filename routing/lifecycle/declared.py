"""Brings the catalog in line with fleet.yaml, once, when the gateway starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.states import VersionState
from fleet.types import Adapter
from routing.catalog.entries import AdapterEntry, AdapterKey, Version
from routing.catalog.sources import Folder, Source, parse_source
from routing.lifecycle.registry import Registry, patiently


async def declare(registry: Registry, adapter: Adapter) -> None:
    """Register a declared adapter, or its new content."""
    key = AdapterKey(None, adapter.name)
    entry = registry.directory.adapter(key)
    if entry is None:
        entry = await patiently(lambda: registry.add_adapter(key, adapter.base_model, declared=True))
    if entry.base_model != adapter.base_model:
        await retire(registry, entry)
        entry = await patiently(lambda: registry.set_base_model(key, adapter.base_model))
    source = parse_source(adapter.source)
    same = await _same_version(entry, source)
    if same is None:
        await patiently(lambda: registry.add_version(key, source=source, sha256=None))
    elif same.state is VersionState.QUARANTINED:  # the fault may have been corrected since
        await patiently(lambda: registry.move(same, VersionState.REGISTERED))


async def retire(registry: Registry, entry: AdapterEntry) -> None:
    """Retire every version of an adapter that fleet.yaml no longer declares."""
    entry = await patiently(lambda: registry.route(entry.key, live=None, previous=None, rollout=None))
    if entry.pinned:
        await patiently(lambda: registry.set_pinned(entry.key, False))
    for version in entry.versions:
        if version.state is not VersionState.RETIRED:
            await _retire_version(registry, version)


async def _retire_version(registry: Registry, version: Version) -> None:
    await patiently(lambda: registry.move(version, VersionState.RETIRED))


async def _same_version(entry: AdapterEntry, source: Source) -> Version | None:
    """Return the newest version if the source still holds it. A folder is read; a URL is compared as text."""
    newest = next((v for v in reversed(entry.versions) if v.state is not VersionState.RETIRED), None)
    if newest is None or newest.source != source:
        return None
    if newest.digest is None or not isinstance(source, Folder):
        return newest
    try:
        manifest = await asyncio.to_thread(inspect_adapter, Path(source.path))
    except AdapterError:
        return newest  # its folder is gone or broken; the copy in the store still serves
    return newest if manifest.digest == newest.digest else None
