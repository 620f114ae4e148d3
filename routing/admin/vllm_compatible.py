"""vLLM's two routes that load and unload adapters, so that tools made for them work here unchanged.

What they do is ours: the adapter is fetched, checked and tried before it answers, and a new version under the
same name (`load_inplace`) leaves the old one in place until it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from adapters.states import VersionState
from routing.admin.access import Caller, CallerHere
from routing.admin.adapters import find, only_one
from routing.admin.bodies import LoadBody, TenantQuery, UnloadBody
from routing.admin.errors import refusals
from routing.catalog.entries import Version, without_folders
from routing.errors import EngineTimeout, InvalidRequest, NotFound
from routing.lifecycle.ports import NewVersion

LOAD_PATH = "/v1/load_lora_adapter"
UNLOAD_PATH = "/v1/unload_lora_adapter"
_POLL_S = 0.1
_DONE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "It is done.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "Success: LoRA adapter ..."}},
    }
}
_ENDED = (VersionState.READY, VersionState.QUARANTINED, VersionState.RETIRED)

router = APIRouter(tags=["as vLLM"], default_response_class=Response)


@router.post(LOAD_PATH, responses={**_DONE, **refusals(404, 408, 409, 413, 415, 503, 504)})
async def load_lora_adapter(
    body: LoadBody, query: Annotated[TenantQuery, Query()], caller: CallerHere, request: Request
) -> PlainTextResponse:
    """Register an adapter and wait until it answers, or is refused."""
    key = caller.new_key(body.lora_name, query.tenant)
    new = NewVersion(source=body.lora_path, trusted=caller.is_operator)
    with contextlib.nullcontext(True) if body.load_inplace else only_one(caller, key) as is_new:
        if not is_new:
            raise InvalidRequest(
                f"The LoRA adapter '{key.name}' is loaded already; `load_inplace` makes a new version of it.",
                param="lora_name",
                code="adapter_exists",
            )
        version = await caller.services.management.add(key, None, new)
    version = await _ended(caller, version, request)
    if version.state is not VersionState.READY:
        reason = without_folders(version.reason) or f"it is {version.state}"
        raise InvalidRequest(
            f"The LoRA adapter '{key.name}' was refused: {reason}", param="lora_path", code="adapter_refused"
        )
    return PlainTextResponse(f"Success: LoRA adapter '{key.name}' added successfully.")


@router.post(UNLOAD_PATH, responses={**_DONE, **refusals(404, 408, 409, 413, 415, 503)})
async def unload_lora_adapter(
    body: UnloadBody, query: Annotated[TenantQuery, Query()], caller: CallerHere
) -> PlainTextResponse:
    """Retire an adapter. Running requests end as they began."""
    key = caller.key(body.lora_name, query.tenant)
    if find(caller, key) is None:
        raise NotFound(f"The LoRA adapter '{key.name}' cannot be found.", code="adapter_not_found")
    await caller.services.management.retire(key, None)
    return PlainTextResponse(f"Success: LoRA adapter '{key.name}' removed successfully.")


async def _ended(caller: Caller, version: Version, request: Request) -> Version:
    """Wait until the work on a version has come to an end. Raises `EngineTimeout`; the work goes on."""
    limit_s = caller.services.load_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            while version.state not in _ENDED and not await request.is_disconnected():
                await asyncio.sleep(_POLL_S)
                version = _now(caller, version)
    except TimeoutError:
        raise EngineTimeout(
            f"Version {version.number} of '{version.adapter.name}' is {version.state} after {limit_s:g} s; "
            "it goes on, and GET /admin/v1/adapters shows how far it is.",
            code="load_timeout",
        ) from None
    return version


def _now(caller: Caller, version: Version) -> Version:
    current = caller.services.management.adapter(version.adapter).version(version.number)
    if current is None:
        raise NotFound(f"`{version.adapter.name}` has no version {version.number}.", code="version_not_found")
    return current
