"""The route for the usage ledger, as JSON or CSV. Operators only."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.fields import Name
from fleet.types import tenant_of_account
from routing.admin.access import Operator
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals
from routing.types import Outcome
from routing.usage.budget import Level
from routing.usage.query import DIMENSIONS, MAX_DAYS, MAX_ROWS, answer, read_query
from routing.usage.spreadsheet import to_csv

router = APIRouter(prefix="/admin/v1/usage", tags=["usage"])
CSV = "text/csv"


class Format(StrEnum):
    """How the answer is written."""

    JSON = "json"
    CSV = "csv"


class UsageQueryPart(QueryPart):
    """Which usage, and how it is split."""

    model_config = ConfigDict(validate_by_name=False, validate_by_alias=True)

    first: str | None = Field(
        None,
        alias="from",
        max_length=10,
        description="First day, UTC; without it 30 days up to the last.",
        examples=["2026-01-01"],
    )
    to: str | None = Field(
        None,
        max_length=10,
        description=f"Last day, included; without it today. At most {MAX_DAYS} days in all.",
        examples=["2026-01-31"],
    )
    group_by: str | None = Field(
        None,
        max_length=200,
        description=f"Any of {', '.join(DIMENSIONS)}, separated by commas; without it one line.",
        examples=["tenant,day"],
    )
    tenant: Name | None = Field(None, description="Of this tenant alone.", examples=["example"])
    format: Format | None = Field(None, description="Without it, csv for `Accept: text/csv`, else json.")


class Measures(BaseModel):
    """What was used, added up."""

    requests: int = Field(description="That had a model, however they ended.")
    estimated_requests: int = Field(description="Of those, with tokens that the engine did not count.")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="Of the prompt tokens, found in the prefix cache.")
    queue_s: float = Field(description="Waited for a replica.")
    run_s: float = Field(description="From the grant of a replica to the end.")
    slot_s: float = Field(description="Share of adapter slots' time.")
    engine_s: float = Field(description="Share of engines' time.")


class UsageLineAnswer(Measures):
    """One line; of the dimensions, those that were asked for."""

    day: str = Field("", examples=["2026-01-31"])
    tenant: str = Field("", examples=["example"])
    model: str = Field("", description="What the tenant calls it.", examples=["support"])
    adapter: str | None = Field(None, description="null: the base model.")
    version: int | None = None
    pool: str = ""
    outcome: Outcome = Outcome.COMPLETED


class BudgetAnswer(BaseModel):
    """How a tenant stands in its budget of this month."""

    tenant: str = Field(examples=["example"])
    monthly_tokens: int
    used_tokens: int = Field(description="And what runs, as expected.")
    remaining_tokens: int
    level: Level = Field(description="below, soft or spent, by what has ended.")
    resets_at: str = Field(examples=["2026-02-01T00:00:00Z"])


class UsageAnswer(BaseModel):
    """Usage by what was asked for."""

    object: str = "list"
    first: str = Field(alias="from", examples=["2026-01-01"])
    to: str = Field(examples=["2026-01-31"])
    group_by: list[str]
    data: list[UsageLineAnswer]
    total: Measures
    budgets: list[BudgetAnswer] = Field(description="Of the tenants that are meant and have one.")


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"The sums, at most {MAX_ROWS} lines.",
        "content": {CSV: {"schema": {"type": "string"}, "example": "day,tenant,model,...\r\n"}},
    }
}


@router.get("", response_model=UsageAnswer, responses=_ANSWERS | refusals(404, 503))
async def show_usage(
    query: Annotated[UsageQueryPart, Query()], request: Request, operator: Operator
) -> Response:
    """Show what tenants used, from the ledger; requests that have just ended are in it.

    As CSV it always has the same columns.
    """
    tenant = None if query.tenant is None else operator.tenant_of_now_or_before(query.tenant)
    fields = {"from": query.first, "to": query.to, "group_by": query.group_by}
    wanted = read_query(fields, now_s=time.time(), tenant=tenant, former=tenant is not None)
    ledger = operator.services.ledger
    told = answer(wanted, await ledger.sums(wanted))
    headers = {"vary": "Accept"}
    if (query.format or _accepted(request)) is Format.CSV:
        name = f"usage-{told['from']}-{told['to']}.csv"
        headers["content-disposition"] = f'attachment; filename="{name}"'
        return Response(to_csv(told["data"]), headers=headers, media_type=CSV)
    accounts = [a for a in ledger.budgets.tenants if tenant in (None, tenant_of_account(a))]
    statuses = (ledger.budgets.status(account, time.time()) for account in accounts)
    budgets = [{"tenant": each.tenant, **each.answer()} for each in statuses if each is not None]
    return Response(orjson.dumps(told | {"budgets": budgets}), headers=headers, media_type="application/json")


def _accepted(request: Request) -> Format:
    return Format.CSV if CSV in request.headers.get("accept", "") else Format.JSON
