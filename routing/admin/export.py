"""The route that writes the present fleet as a fleet file. Operators only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import make_url

from fleet.types import StateSettings
from fleet.writer import write_fleet
from routing.admin.access import Operator
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/export", tags=["fleet"])
YAML = "application/yaml"
DATABASE = "TENANTRY_DATABASE"  # the variable that stands for a database's address with a password
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "A fleet file.", "content": {YAML: {"schema": {"type": "string"}}}}
}


@router.get("", response_class=Response, responses=_ANSWERS | refusals(404))
async def export_fleet(operator: Operator) -> Response:
    """Write the whole present fleet: what is declared, with the tenants' changes at run time on top.

    Keys are written as hashes. Keys, adapters and aliases made at run time stay in the state database.
    """
    fleet = operator.services.management.tenancy.fleet()
    text = write_fleet(replace(fleet, state=_without_password(fleet.state)), key_variables={})
    return Response(text, media_type=YAML)


def _without_password(state: StateSettings) -> StateSettings:
    if state.database is None or state.database_variable or make_url(state.database).password is None:
        return state
    return replace(state, database_variable=DATABASE)
