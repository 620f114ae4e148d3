"""The routes for plans: publish one, tell what was seen of it, show both. Operators only."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Response

from routing.admin.access import Operator
from routing.admin.errors import refusals
from routing.admin.plan_documents import LookAnswer, PlanAnswer, PlanKept
from routing.catalog.plans import PlanDocument, PlanFigures, PlanKind

router = APIRouter(prefix="/admin/v1/plan", tags=["plan"])


@router.get("", response_class=Response, responses={200: {"model": PlanKept}, **refusals(503)})
async def show_plan(operator: Operator) -> Response:
    """Show the plan that was published last, and what was seen of it since. Operators only."""
    kept = await operator.services.management.plans.kept()
    told = ", ".join(f'"{kind.value}": {_told(kept.get(kind))}' for kind in PlanKind)
    return Response(f'{{"object": "plan", {told}}}', media_type="application/json")


@router.put("", status_code=204, responses=refusals(408, 413, 415, 503))
async def publish_plan(plan: PlanAnswer, operator: Operator) -> None:
    """Keep the answer of `tenantry plan` in the place of the last one. Operators only.

    Nothing follows it: it is what the console shows, and what later looks are compared with. An event says
    that it came. `tenantry plan --publish` sends it.
    """
    devices = plan.devices
    now = "" if devices.now is None else f", {devices.now} in use"
    missed = "" if plan.meets_objectives else ", not all objectives met"
    said = f"published: {devices.planned} device{'' if devices.planned == 1 else 's'}{now}{missed}"
    await operator.services.management.plans.publish(plan.model_dump_json(), said)


@router.put("/look", status_code=204, responses=refusals(408, 413, 415, 503))
async def put_look(look: LookAnswer, operator: Operator) -> None:
    """Keep a look at the plan in the place of the last one. Operators only.

    Where its advice is another one than before, that is an event. `tenantry plan --watch` sends it.
    """
    figures = PlanFigures(look.devices.now, look.devices.anew, look.advice, look.to_s)
    await operator.services.management.plans.look(look.model_dump_json(), figures, look.said)


def _told(document: PlanDocument | None) -> str:
    """Return a document, which is JSON already, as a part of an answer."""
    if document is None:
        return "null"
    head: dict[str, Any] = {"at": document.at_s, "actor": document.actor}
    return f'{json.dumps(head)[:-1]}, "answer": {document.text}}}'
