"""The routes for the live snapshot: once, or as a stream with one every second. Operators only."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from routing.admin.access import Operator
from routing.admin.errors import refusals
from routing.admin.live_answers import LiveAnswer
from routing.admin.live_feed import EventStream

router = APIRouter(prefix="/admin/v1/live", tags=["live"])

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `snapshot` every second, `history` every 5 s, `decisions` when "
        "there are any, with the same fields as in `GET /admin/v1/live`; `end` where it ends cleanly, and "
        "wants to be asked again.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("")
async def show_live(operator: Operator) -> LiveAnswer:
    """Show every model's last minute with a verdict, slots and queues, and the last decisions.

    Models come worst first. All of it is bounded; what is left out is counted.
    """
    return operator.services.live.answer()


@router.get("/stream", response_class=Response, responses={**_STREAM, **refusals(503)})
async def stream_live(operator: Operator) -> EventStream:
    """Show the same again and again, as server-sent events; ends after five minutes, to be asked again.

    A connection that takes nothing for 10 s is closed.
    """
    return EventStream(operator.services.live)
