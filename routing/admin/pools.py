"""The routes for pools: restart their engines, one replica after the other. Operators only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from fleet.fields import Name
from routing.admin.access import Operator
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals
from routing.lifecycle.ports import PoolRestart, RestartState, StepState

router = APIRouter(prefix="/admin/v1/pools", tags=["replicas"])

MAX_DRAIN_S = 24 * 3600.0
PoolName = Annotated[Name, InPath(description="Name of the pool.", examples=["shared"])]


class RestartQuery(QueryPart):
    """Which replicas restart, and how long each is waited for."""

    replica: Name | None = Field(None, description="Restart this one alone.", examples=["shared-0"])
    drain_s: float | None = Field(
        None,
        ge=0,
        le=MAX_DRAIN_S,
        description="For what a replica runs; what takes longer is cut off. Without it `request_timeout_s` "
        "of the gateway, the longest that a request may run.",
    )


class RestartStepAnswer(BaseModel):
    """The restart of one replica."""

    replica: str = Field(examples=["shared-0"])
    state: StepState = Field(
        description="`waiting`: for its turn. `draining`: what it runs ends. `restarting`: its engine ends "
        "and another one starts. `done`, `failed`. `kept`: it had the wanted settings already, and was left "
        "alone. `left`: it takes part no more."
    )
    in_flight: int = Field(description="Sequences that it still runs while it drains.")
    reason: str = Field(description="Why it failed, else empty.")


class PoolRestartAnswer(BaseModel):
    """The restart of a pool, as far as it is."""

    pool: str = Field(examples=["shared"])
    actor: str = Field(description="Who began it.", examples=["key 1a2b3c4d"])
    state: RestartState = Field(
        description="`failed`: a replica did not come back, and those after it were not touched. "
        "`cancelled`: the gateway shut down, or a pool before it failed."
    )
    began_at: float = Field(description="Unix time, s.")
    ended_at: float | None = Field(description="Unix time, s; null while it runs.")
    replicas: list[RestartStepAnswer] = Field(description="In the order in which they restart.")


@router.post("/{pool}/restart", status_code=202, responses=refusals(404, 408, 409, 413, 415, 503))
async def restart_pool(
    pool: PoolName, query: Annotated[RestartQuery, Query()], operator: Operator
) -> PoolRestartAnswer:
    """Restart a pool's engines, one replica after the other; returns at once. Operators only.

    A replica gets no new request and what it runs ends; its engine restarts, with the settings that its base
    model has now; once it is ready and has
    confirmed its adapters, the next one follows. Meanwhile requests go to the other replicas, and wait where
    there is none, up to their tenant's `queue_timeout_s`. A replica that was drained stays drained. Where one
    does not come back, it ends there. It goes on if the caller leaves. While it runs, another one of the pool
    is refused with 409 `restart_running`.
    """
    return _told(
        operator.services.management.restarts.begin(pool, replica=query.replica, drain_s=query.drain_s)
    )


@router.get("/{pool}/restart", responses=refusals(404))
async def show_restart(pool: PoolName, operator: Operator) -> PoolRestartAnswer:
    """Show how far the last restart of a pool is. Operators only.

    404 `no_restart` where there was none since the gateway started.
    """
    return _told(operator.services.management.restarts.of(pool))


def _told(restart: PoolRestart) -> PoolRestartAnswer:
    steps = [
        RestartStepAnswer(replica=s.replica, state=s.state, in_flight=s.in_flight, reason=s.reason)
        for s in restart.steps
    ]
    return PoolRestartAnswer(
        pool=restart.pool,
        actor=restart.actor,
        state=restart.state,
        began_at=restart.began_s,
        ended_at=restart.ended_s,
        replicas=steps,
    )
