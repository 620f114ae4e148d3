"""The route for the usage ledger, as JSON or CSV. A tenant's key sees what its tenant used."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.fields import Name
from fleet.types import tenant_of_account
from routing.admin.access import Caller, CallerHere
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals
from routing.types import Outcome
from routing.usage.budget import Level
from routing.usage.query import (
    DIMENSIONS,
    FOR_TENANTS,
    MAX_DAYS,
    MAX_ROWS,
    UsageLine,
    UsageQuery,
    answer,
    read_query,
)
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
    switch_s: float = Field(
        description="Share of the time of the switches between whole models that it waited for."
    )
    priced_requests: int = Field(description="Requests whose model had a price.")
    cost: str | None = Field(
        description="Of those, exactly, by the prices at their time; null: there were none.",
        examples=["0.0125"],
    )


class UsageLineAnswer(Measures):
    """One line; of the dimensions, those that were asked for."""

    day: str = Field("", examples=["2026-01-31"])
    tenant: str = Field("", examples=["example"])
    key: str | None = Field(None, description="Id of the API key; null: not known.")
    model: str = Field("", description="What the tenant calls it.", examples=["support"])
    adapter: str | None = Field(None, description="null: the base model.")
    version: int | None = None
    pool: str = ""
    outcome: Outcome = Outcome.COMPLETED


class BudgetAnswer(BaseModel):
    """How a tenant stands in its budget of this month, which is in tokens or in money."""

    tenant: str = Field(examples=["example"])
    monthly_tokens: int | None = None
    used_tokens: int | None = Field(None, description="And what runs, as expected.")
    remaining_tokens: int | None = None
    monthly_cost: str | None = Field(None, examples=["100"])
    used_cost: str | None = Field(None, description="And what runs, as expected.", examples=["12.5"])
    remaining_cost: str | None = Field(None, examples=["87.5"])
    level: Level = Field(description="below, soft or spent, by what has ended.")
    resets_at: str = Field(examples=["2026-02-01T00:00:00Z"])


class UsageAnswer(BaseModel):
    """Usage by what was asked for."""

    object: str = "list"
    first: str = Field(alias="from", examples=["2026-01-01"])
    to: str = Field(examples=["2026-01-31"])
    group_by: list[str]
    currency: str | None = Field(description="Of costs; null: nothing has a price.", examples=["EUR"])
    data: list[UsageLineAnswer]
    total: Measures
    budgets: list[BudgetAnswer] = Field(description="Of the tenants that are meant and have one.")


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"The sums, at most {MAX_ROWS} lines.",
        "content": {CSV: {"schema": {"type": "string"}, "example": "day,tenant,model,...\r\n"}},
    }
}


@router.get("", response_model=UsageAnswer, responses=_ANSWERS | refusals(404, 429, 503))
async def show_usage(
    query: Annotated[UsageQueryPart, Query()], request: Request, caller: CallerHere
) -> Response:
    """Show what tenants used, from the ledger; requests that have just ended are in it.

    A tenant's key sees what its tenant used, one query at a time, and not split by pool. As CSV it always
    has the same columns.
    """
    tenant, former = caller.account_meant(query.tenant)
    fields = {"from": query.first, "to": query.to, "group_by": query.group_by}
    allowed = DIMENSIONS if caller.is_operator else FOR_TENANTS
    wanted = read_query(fields, now_s=time.time(), tenant=tenant, allowed=allowed, former=former)
    budgets_of = caller.services.ledger.budgets
    told = answer(wanted, await _sums(caller, wanted), budgets_of.currency)
    headers = {"vary": "Accept"}
    if (query.format or _accepted(request)) is Format.CSV:
        name = f"usage-{told['from']}-{told['to']}.csv"
        headers["content-disposition"] = f'attachment; filename="{name}"'
        return Response(to_csv(told["data"], told["currency"]), headers=headers, media_type=CSV)
    accounts = [a for a in budgets_of.tenants if tenant in (None, a, *([tenant_of_account(a)] * former))]
    statuses = (budgets_of.status(account, time.time()) for account in accounts)
    budgets = [{"tenant": each.tenant, **each.answer()} for each in statuses if each is not None]
    return Response(orjson.dumps(told | {"budgets": budgets}), headers=headers, media_type="application/json")


async def _sums(caller: Caller, query: UsageQuery) -> list[UsageLine]:
    """Ask the ledger. Raises `CapReached` while another query of the caller's tenant runs."""
    ledger, tenant = caller.services.ledger, caller.identity.tenant
    if tenant is None:
        return await ledger.sums(query)
    async with caller.services.usage_queries.running(tenant):
        return await ledger.sums(query)


def _accepted(request: Request) -> Format:
    return Format.CSV if CSV in request.headers.get("accept", "") else Format.JSON
