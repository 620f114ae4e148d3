"""Checks a new version's source, name and base model, and registers it if they are allowed."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters import sources
from adapters.errors import AdapterError
from fleet.current import CurrentFleet
from fleet.types import Fleet
from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterEntry, AdapterKey, Version
from routing.catalog.sources import Folder, Source, Upload, parse_source
from routing.errors import AccountSuspended, Conflict, Forbidden, InvalidRequest, NotFound, RequestError
from routing.lifecycle.ports import NewVersion
from routing.lifecycle.registry import Registry


class Registration:
    """Checks new versions against the fleet, and adds them to the catalog."""

    def __init__(self, fleet: CurrentFleet, directory: Directory, registry: Registry, uploads: Path) -> None:
        self._fleet = fleet
        self._directory = directory
        self._registry = registry
        self._uploads = uploads

    async def check(self, key: AdapterKey, new: NewVersion) -> Source | None:
        """Return the source that a version names; None for an upload.

        Raises `NotFound`, `Conflict`, `Forbidden` and `InvalidRequest`.
        """
        if key.tenant is None:
            raise Conflict(
                "This adapter is declared in fleet.yaml; change it there.", code="adapter_declared"
            )
        self.require_open(key, new)
        if new.upload is not None:
            return None
        prefixes = None if new.trusted else self._fleet.now.tenants[key.tenant].adapter_sources
        return await open_source(new.source or "", self._fleet.now, prefixes)

    def require_open(self, key: AdapterKey, new: NewVersion) -> None:
        """Raise `NotFound` where there is no such tenant; one that is suspended adds nothing by itself."""
        tenant = self._fleet.now.tenants.get(key.tenant or "")
        if tenant is None:
            raise NotFound(f"There is no tenant `{key.tenant}`.", code="tenant_not_found")
        if tenant.suspended and not new.trusted:
            raise AccountSuspended

    async def entry_for(self, key: AdapterKey, base_model: str | None) -> AdapterEntry:
        """Return the adapter, new or known. Raises `Conflict` and `InvalidRequest`."""
        tenant = key.tenant or ""
        possible = self._directory.adapter_base_models(tenant)
        if base_model is not None and base_model not in possible:
            raise InvalidRequest(
                f"No pool of tenant `{tenant}` serves adapters of base model `{base_model}`; there is "
                f"{', '.join(possible) or 'none'}.",
                param="base_model",
                code="base_model_not_found",
            )
        if self._directory.is_taken(tenant, key.name):
            raise Conflict(
                f"`{key.name}` is a model of this tenant in fleet.yaml already.", code="name_taken"
            )
        if self._directory.alias(tenant, key.name) is not None:
            raise Conflict(f"`{key.name}` is an alias of this tenant; remove it first.", code="name_taken")
        entry = self._directory.adapter(key)
        if entry is None:
            chosen = base_model or _only(possible)
            return await self._registry.add_adapter(key, chosen, declared=False)
        if base_model is None or base_model == entry.base_model:
            return entry
        if not entry.is_retired:
            raise Conflict(
                f"`{key.name}` is an adapter of base model `{entry.base_model}`; retire it first, or "
                "take another name.",
                code="base_model_differs",
            )
        return await self._registry.set_base_model(key, base_model)

    async def add_version(self, key: AdapterKey, source: Source | None, new: NewVersion) -> Version:
        """Add a version to its adapter, and take over the archive that was uploaded for it."""
        if source is not None:
            return await self._registry.add_version(key, source=source, sha256=new.sha256)
        if new.upload is None:
            raise ValueError("a version has neither a source nor an upload")
        kept = self._uploads / uuid.uuid4().hex
        await asyncio.to_thread(new.upload.rename, kept)
        try:
            return await self._registry.add_version(key, source=Upload(kept.name), sha256=new.sha256)
        except RequestError:
            await asyncio.to_thread(kept.unlink)
            raise


async def open_source(text: str, fleet: Fleet, prefixes: Sequence[str] | None) -> Source:
    """Return the source that a text names; `prefixes` are those that are allowed, None: every one is.

    Raises `NotFound`, `Forbidden` and `InvalidRequest`.
    """
    try:
        text = sources.check_source(text)
    except AdapterError as error:
        raise InvalidRequest(str(error), param="source", code="invalid_source") from None
    if prefixes is not None:
        _require_allowed(text, prefixes)
    _require_named_host(text, fleet)
    source = parse_source(text)
    if isinstance(source, Folder) and not await asyncio.to_thread(os.path.lexists, source.path):
        raise NotFound(
            "There is no such folder on the gateway's machine.", param="source", code="source_not_found"
        )
    return source


def _require_allowed(source: str, prefixes: Sequence[str]) -> None:
    if not sources.is_allowed(source, prefixes):
        listed = ", ".join(prefixes) or "none: upload the adapter instead"
        raise Forbidden(
            f"Adapters of this tenant may not come from there; allowed: {listed}.",
            code="source_not_allowed",
        )


def _require_named_host(source: str, fleet: Fleet) -> None:
    host = sources.forbidden_host(source)
    if host is not None and not any(sources.names_host(text, host) for text in _named_sources(fleet)):
        raise Forbidden(
            f"{host} is a link-local or metadata address, which nothing is fetched from unless "
            "fleet.yaml names that host.",
            code="source_not_allowed",
        )


def _named_sources(fleet: Fleet) -> Iterator[str]:
    """List every source, and every prefix of sources, in fleet.yaml."""
    for tenant in fleet.tenants.values():
        yield from tenant.adapter_sources
    yield from (adapter.source for adapter in fleet.adapters.values())
    yield from (model.source for model in fleet.base_models.values())


def _only(base_models: Sequence[str]) -> str:
    """Return the only base model possible for a new adapter. Raises `InvalidRequest`."""
    if len(base_models) == 1:
        return base_models[0]
    raise InvalidRequest(
        f"Name the base model: {', '.join(base_models) or 'none takes adapters for this tenant'}.",
        param="base_model",
        code="missing_required_parameter",
    )
