"""Brings the catalog in line with the fleet, when the gateway starts and when its fleet is replaced."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.states import VersionState
from fleet.types import Adapter
from routing.catalog.entries import AdapterEntry, AdapterKey, Version
from routing.catalog.sources import Folder, Source, parse_source
from routing.lifecycle.registry import Registry, patiently


class DeclaredAdapters:
    """The adapters that the fleet declares, in the catalog."""

    def __init__(
        self,
        registry: Registry,
        prepare: Callable[[Version], None],
        retire_version: Callable[[Version], Awaitable[None]],
        unpin_idle: Callable[[AdapterKey], Awaitable[None]],
    ) -> None:
        """`prepare` makes a version ready; `retire_version` lets its requests and engines end first."""
        self._registry = registry
        self._prepare = prepare
        self._retire_version = retire_version
        self._unpin_idle = unpin_idle
        self._known: Mapping[str, Adapter] = {}
        self._following = asyncio.Lock()

    async def begin(self, adapters: Mapping[str, Adapter]) -> None:
        """Register what is declared at the start, and retire what no longer is."""
        self._known = adapters
        for adapter in adapters.values():
            await declare(self._registry, adapter)
        for entry in self._registry.directory.adapters():
            if entry.declared and entry.key.name not in adapters and not entry.is_retired:
                await retire(self._registry, entry)

    async def follow(self, adapters: Mapping[str, Adapter]) -> None:
        """Register what is declared now, or otherwise than before, and retire what no longer is."""
        async with self._following:
            before, self._known = self._known, adapters
            for name, adapter in adapters.items():
                if before.get(name) != adapter:
                    await self._declare_now(adapter)
            for name in before.keys() - adapters.keys():
                await self._retire_now(AdapterKey(None, name))

    async def _declare_now(self, adapter: Adapter) -> None:
        key, directory = AdapterKey(None, adapter.name), self._registry.directory
        entry = directory.adapter(key)
        if entry is not None and entry.base_model != adapter.base_model:
            await self._retire_now(key)
        await declare(self._registry, adapter)
        entry = directory.adapter(key)
        for version in entry.versions if entry is not None else ():
            if version.state is VersionState.REGISTERED:
                self._prepare(version)

    async def _retire_now(self, key: AdapterKey) -> None:
        entry = self._registry.directory.adapter(key)
        if entry is None:
            return
        await patiently(lambda: self._registry.route(key, live=None, previous=None, rollout=None))
        for version in entry.versions:
            await patiently(functools.partial(self._retire_version, version))
        await patiently(lambda: self._unpin_idle(key))


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
