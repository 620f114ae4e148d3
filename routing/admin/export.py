"""The route that writes the present fleet as a fleet file. Operators only."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from routing.admin.access import Operator
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/export", tags=["fleet"])
YAML = "application/yaml"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "A fleet file.", "content": {YAML: {"schema": {"type": "string"}}}}
}


@router.get("", response_class=Response, responses=_ANSWERS | refusals(404))
async def export_fleet(operator: Operator) -> Response:
    """Write the whole present fleet: what is declared, with the tenants' changes at run time in its place.

    It is the declared document, whose comments stay; where its values cannot be replaced one by one it is
    written anew without comments, with hashes of keys. Keys, adapters and aliases made at run time stay in
    the state database.
    """
    return Response(await operator.services.management.fleets.export(), media_type=YAML)
