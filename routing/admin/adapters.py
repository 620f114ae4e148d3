"""The routes for adapters and their versions: list, register, roll out, promote, pin, retire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request

from adapters.states import VersionState
from routing.admin.access import (
    Adapter,
    AdapterName,
    Caller,
    CallerHere,
    VersionNumber,
)
from routing.admin.answers import (
    AdapterAnswer,
    AdapterList,
    VersionAnswer,
    VersionDetail,
    adapter_answer,
    adapter_summary,
    version_answer,
    version_detail,
)
from routing.admin.bodies import (
    ListQuery,
    NewAdapterBody,
    NewVersionBody,
    PromoteBody,
    RolloutBody,
    TenantQuery,
    UploadQuery,
)
from routing.admin.errors import json_body, refusals
from routing.admin.uploads import body_or_archive, is_upload, require_few_waiting
from routing.catalog.entries import AdapterEntry, AdapterKey, Version
from routing.errors import Conflict, InvalidRequest, NotFound
from routing.lifecycle.ports import NewVersion

PREFIX = "/admin/v1/adapters"
MAX_WAITING_UPLOADS = 16  # of one tenant
_RETRY_AFTER_S = 5.0
_GONE = (VersionState.RETIRED, VersionState.QUARANTINED)

router = APIRouter(prefix=PREFIX, tags=["adapters"])


@router.get("", responses=refusals(404))
async def list_adapters(query: Annotated[ListQuery, Query()], caller: CallerHere) -> AdapterList:
    """List adapters by tenant and name, a page at a time. A tenant's key sees its own."""
    tenant = caller.owner(query.tenant)
    if query.tenant is not None:
        caller.known_tenant(query.tenant)
    found = [
        entry
        for entry in caller.services.management.adapters()
        if (tenant is None or entry.key.tenant == tenant)
        and (query.state is None or any(v.state is query.state for v in entry.versions))
        and (query.after is None or str(entry.key) > query.after)
    ]
    found.sort(key=lambda entry: str(entry.key))
    page = found[: query.limit]
    return AdapterList(
        data=[adapter_summary(entry) for entry in page],
        next=str(page[-1].key) if len(found) > len(page) else None,
    )


@router.post("", status_code=202, responses=refusals(404, 408, 409, 413, 415, 503))
async def register_adapter(
    body: NewAdapterBody, query: Annotated[TenantQuery, Query()], caller: CallerHere
) -> VersionAnswer:
    """Register a new adapter; the gateway fetches, checks and tries it. An upload goes to its versions."""
    key = caller.new_key(body.name, _same(body.tenant, query.tenant))
    with only_one(caller, key) as is_new:
        if not is_new:
            raise Conflict(
                f"There is an adapter `{key.name}` already; post to its versions.", code="adapter_exists"
            )
        return await _register(caller, key, body)


@router.get("/{name}", responses=refusals(404))
async def show_adapter(key: Adapter, caller: CallerHere) -> AdapterAnswer:
    """Show an adapter: its versions, how its traffic is split, and where it is resident."""
    return _answer(caller, caller.services.management.adapter(key))


@router.delete("/{name}", responses=refusals(404, 409, 503))
async def retire_adapter(key: Adapter, caller: CallerHere) -> AdapterAnswer:
    """Take an adapter out of traffic with all its versions. Running requests end as they began."""
    return _answer(caller, await caller.services.management.retire(key, None))


_JSON_VERSION = NewVersionBody.model_json_schema(ref_template="#/components/schemas/{model}")
_JSON_VERSION.pop("$defs", None)  # they are among the components, by way of `NewAdapterBody`
_VERSION_BODY = body_or_archive(_JSON_VERSION, _JSON_VERSION.pop("example"))


@router.post(
    "/{name}/versions",
    status_code=202,
    responses=refusals(404, 408, 409, 413, 415, 429, 503),
    openapi_extra={"requestBody": _VERSION_BODY},
)
async def register_version(
    name: AdapterName, query: Annotated[UploadQuery, Query()], caller: CallerHere, request: Request
) -> VersionAnswer:
    """Register a version, and the adapter if it is new: from a source (JSON), or uploaded (tar, tar.gz, zip).

    What goes with an upload stands in the query. Without a rollout the version takes over once it is ready.
    """
    key = caller.new_key(name, query.tenant)
    if is_upload(request.url.path, request.headers.get("content-type")):
        return await _upload(caller, key, query, request)
    if query.has_plan or query.base_model or query.sha256:
        raise InvalidRequest(
            "With a JSON body, everything but `tenant` stands in the body.", code="invalid_query"
        )
    return await _register(caller, key, await json_body(request, NewVersionBody))


@router.get("/{name}/versions/{number}", responses=refusals(404))
async def show_version(key: Adapter, number: VersionNumber, caller: CallerHere) -> VersionDetail:
    """Show a version: how far it is, why it was refused, where it is resident."""
    management = caller.services.management
    entry = management.adapter(key)
    return version_detail(entry, _version(entry, number), management, management.replicas())


@router.post("/{name}/versions/{number}/verify", status_code=202, responses=refusals(404, 409, 503))
async def verify_version(key: Adapter, number: VersionNumber, caller: CallerHere) -> VersionAnswer:
    """Have a quarantined version verified again, from the beginning."""
    return _registered(caller, await caller.services.management.verify(key, number))


@router.delete("/{name}/versions/{number}", responses=refusals(404, 409, 503))
async def retire_version(key: Adapter, number: VersionNumber, caller: CallerHere) -> AdapterAnswer:
    """Take one version out of traffic, unless it is the live one."""
    return _answer(caller, await caller.services.management.retire(key, number))


@router.post("/{name}/promote", responses=refusals(404, 408, 409, 413, 415, 503))
async def promote(key: Adapter, caller: CallerHere, body: PromoteBody | None = None) -> AdapterAnswer:
    """Let a version answer everything; without a body the one that is being rolled out."""
    number = body.version if body else None
    return _answer(caller, await caller.services.management.promote(key, number))


@router.post("/{name}/rollback", responses=refusals(404, 409, 503))
async def roll_back(key: Adapter, caller: CallerHere) -> AdapterAnswer:
    """End a rollout in favour of the live version; without one, go back to the version before it."""
    return _answer(caller, await caller.services.management.rollback(key))


@router.post("/{name}/rollout", responses=refusals(404, 408, 409, 413, 415, 503))
async def roll_out(key: Adapter, caller: CallerHere, body: RolloutBody) -> AdapterAnswer:
    """Send a part of the traffic to a ready version, or change how large that part is."""
    return _answer(caller, await caller.services.management.rollout(key, body.version, body.plan()))


@router.post("/{name}/pin", responses=refusals(404, 409, 503))
async def pin(key: Adapter, caller: CallerHere) -> AdapterAnswer:
    """Keep the live version in a slot of every replica it may be on."""
    return _answer(caller, await caller.services.management.pin(key, True))


@router.delete("/{name}/pin", responses=refusals(404, 409, 503))
async def unpin(key: Adapter, caller: CallerHere) -> AdapterAnswer:
    """Let other adapters take the live version's slots."""
    return _answer(caller, await caller.services.management.pin(key, False))


def find(caller: Caller, key: AdapterKey) -> AdapterEntry | None:
    """Return an adapter of which anything is left that serves or may come to serve."""
    try:
        entry = caller.services.management.adapter(key)
    except NotFound:
        return None
    return entry if any(version.state not in _GONE for version in entry.versions) else None


@contextlib.contextmanager
def only_one(caller: Caller, key: AdapterKey) -> Iterator[bool]:
    """Say whether an adapter is new; to one of those who ask at once, until it is registered."""
    registering = caller.services.registering
    if key in registering or find(caller, key) is not None:
        yield False
        return
    registering.add(key)
    try:
        yield True
    finally:
        registering.discard(key)


def _same(in_body: str | None, in_query: str | None) -> str | None:
    """Return the tenant that the body or the query names. Raises `InvalidRequest` where they differ."""
    if in_body is not None and in_query is not None and in_body != in_query:
        raise InvalidRequest(
            "Body and query name two tenants; name one.", param="tenant", code="invalid_value"
        )
    return in_body or in_query


async def _register(caller: Caller, key: AdapterKey, body: NewVersionBody) -> VersionAnswer:
    new = NewVersion(
        source=body.source,
        sha256=body.sha256,
        rollout=None if body.rollout is None else body.rollout.plan(),
        trusted=caller.is_operator,
    )
    return _registered(caller, await caller.services.management.add(key, body.base_model, new))


async def _upload(caller: Caller, key: AdapterKey, query: UploadQuery, request: Request) -> VersionAnswer:
    own = (e for e in caller.services.management.adapters() if e.key.tenant == key.tenant)
    require_few_waiting(
        (version for entry in own for version in entry.versions),
        coming=caller.services.uploads.running(key.tenant),
        most=MAX_WAITING_UPLOADS,
        whose="this tenant",
        retry_after_s=_RETRY_AFTER_S,
    )
    async with caller.services.uploads.received(request, key.tenant) as path:
        new = NewVersion(
            upload=path,
            sha256=query.sha256,
            rollout=query.plan() if query.has_plan else None,
            trusted=caller.is_operator,
        )
        return _registered(caller, await caller.services.management.add(key, query.base_model, new))


def _answer(caller: Caller, entry: AdapterEntry) -> AdapterAnswer:
    return adapter_answer(entry, caller.services.management)


def _registered(caller: Caller, version: Version) -> VersionAnswer:
    management = caller.services.management
    return version_answer(management.adapter(version.adapter), version, management)


def _version(entry: AdapterEntry, number: int) -> Version:
    version = entry.version(number)
    if version is None:
        raise NotFound(f"`{entry.key.name}` has no version {number}.", code="version_not_found")
    return version
