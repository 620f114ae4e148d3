"""What is resident in which replica?"""

from __future__ import annotations

from fastapi import APIRouter

from routing.admin.access import Operator
from routing.admin.answers import ReplicaList, replica_answer

router = APIRouter(prefix="/admin/v1/replicas", tags=["replicas"])


@router.get("")
async def list_replicas(operator: Operator) -> ReplicaList:
    """List every replica with the adapters in its slots and host memory. Operators only."""
    return ReplicaList(data=[replica_answer(report) for report in operator.desk.management.replicas()])
