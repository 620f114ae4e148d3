"""The routes for replicas: what is resident in them, drain, resume. Operators only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath

from routing.admin.access import Operator
from routing.admin.answers import ReplicaAnswer, ReplicaList, replica_answer
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/replicas", tags=["replicas"])

ReplicaName = Annotated[
    str,
    InPath(
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$",
        description="Name of the replica.",
        examples=["shared-0"],
    ),
]


@router.get("")
async def list_replicas(operator: Operator) -> ReplicaList:
    """List every replica with the adapters in its slots and host memory. Operators only."""
    return ReplicaList(data=[replica_answer(report) for report in operator.services.management.replicas()])


@router.post("/{name}/drain", responses=refusals(404, 408, 413, 415))
async def drain(name: ReplicaName, operator: Operator) -> ReplicaAnswer:
    """Give a replica no new work; what it runs goes on to its end. Operators only.

    It is empty once `in_flight` is 0. Where all replicas of the pool with its base model are drained,
    requests, those that wait included, get a 503 `no_replica_ready` with `Retry-After`; where one is left
    that is not ready, they wait for it. A restart of the gateway forgets it.
    """
    return replica_answer(await operator.services.management.set_draining(name, True))


@router.post("/{name}/resume", responses=refusals(404, 408, 413, 415))
async def resume(name: ReplicaName, operator: Operator) -> ReplicaAnswer:
    """Give a drained replica work again. Operators only."""
    return replica_answer(await operator.services.management.set_draining(name, False))
