"""The routes for the fleet itself: the document that counts, and another one in its place. Operators only."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from fleet.diff import Change, Needs
from routing.admin.access import Operator
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals
from routing.admin.gate import FLEET_MEDIA_TYPES, FLEET_PATH
from routing.lifecycle.ports import FleetState

router = APIRouter(prefix=FLEET_PATH, tags=["fleet"])

_PASSWORD = re.compile(r"(//[^/@\s:]+:)[^/@\s]+(?=@)|([?&]password=)[^&\s\"']+")
_BODY = {
    "required": True,
    "content": {
        kind: {"schema": {"type": "string"}, "example": "tenants: {}"} for kind in sorted(FLEET_MEDIA_TYPES)
    },
}


class FleetAnswer(BaseModel):
    """The fleet that counts."""

    revision: int = Field(description="Grows with each document that is applied; 0: as the fleet file says.")
    at: float = Field(description="Unix time at which it came into force, s.")
    actor: str = Field(description="Who applied it: a key, or the fleet file.", examples=["key 1a2b3c4d"])


class FleetDocument(FleetAnswer):
    """The same, with what it says."""

    document: str = Field(description="As it was applied, comments included; passwords are left out.")


class ChangeAnswer(BaseModel):
    """One difference."""

    section: str = Field(description="Of the fleet file.", examples=["tenants"])
    name: str = Field(description="Of the tenant, pool, ...; empty for a section without names.")
    text: str = Field(examples=["requests_per_minute 60 -> 120"])
    needs: Needs = Field(
        description="What it takes until it counts: `nothing`, a restart of the `engines` of its pools, one "
        "after the other, or a `restart` of the service."
    )


class FleetChangeAnswer(FleetAnswer):
    """What a document has changed, or would change."""

    applied: bool = Field(
        description="Whether it counts now; false for a dry run, and where nothing differs."
    )
    changes: list[ChangeAnswer]
    reasons: list[str] = Field(description="Of a dry run: why it would be refused.")
    warnings: list[str]
    restarts: list[str] = Field(
        description="Pools whose engines restart now, or would, one pool after the other; each is at "
        "`/admin/v1/pools/{pool}/restart`.",
        examples=[["shared"]],
    )
    consequences: list[str] = Field(
        description="For what was made at run time: what no longer counts, and why. Nothing of it is deleted."
    )


class ApplyQuery(QueryPart):
    """How a document is applied."""

    dry_run: bool = Field(False, description="Only say what would change.")
    restart: bool = Field(
        False,
        description="Restart the engines whose settings change, one after the other, once the fleet counts; "
        "without it such a change is refused.",
    )
    revision: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Refuse with 409 where the fleet is at another one."
    )


@router.get("")
async def show_fleet(operator: Operator) -> FleetDocument:
    """Show the document that counts, and who applied it when. Operators only."""
    state = operator.services.management.fleets.state
    shown = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", state.document)
    return FleetDocument(**_told(state), document=shown)


@router.post("", responses=refusals(408, 409, 413, 415, 503), openapi_extra={"requestBody": _BODY})
async def apply_fleet(
    query: Annotated[ApplyQuery, Query()], request: Request, operator: Operator
) -> FleetChangeAnswer:
    """Replace the whole fleet by a fleet file, YAML or JSON, without a restart. Operators only.

    It is checked as at a start: folders are relative to the fleet file that the service was started with,
    variables are those of the gateway. It is kept in the state database before it counts. All problems are
    told (400 `fleet_invalid`), and all that cannot change while the service runs (409 `fleet_refused`).

    What engines are started with (`needs`: `engines`) is changed with `restart=true` only: then the pools of
    which an engine runs with other settings restart as by `POST /admin/v1/pools/{pool}/restart`, but for
    engines that have these settings already. The answer does not wait for that.
    """
    done = await operator.services.management.fleets.apply(
        await request.body(),
        actor=f"key {operator.identity.key}",
        expected=query.revision,
        dry_run=query.dry_run,
        restart=query.restart,
    )
    return FleetChangeAnswer(
        **_told(done.state),
        applied=done.applied,
        changes=[change_answer(each) for each in done.changes],
        reasons=list(done.reasons),
        warnings=list(map(str, done.warnings)),
        restarts=list(done.restarts),
        consequences=list(done.consequences),
    )


def change_answer(change: Change) -> ChangeAnswer:
    """Describe a difference."""
    return ChangeAnswer(section=change.section, name=change.name, text=change.text, needs=change.needs)


def _told(state: FleetState) -> dict[str, int | float | str]:
    return {"revision": state.revision, "at": state.at_s, "actor": state.actor}
