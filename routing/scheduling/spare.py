"""May a line of a batch begin now? Only on room that nobody else needs, below the lowest band. Pure.

It never waits in the queue of requests: whoever runs the batch asks again later. It begins on an engine where
all of this holds:

1. Nothing waits in the engine's group.
2. The engine passes every filter that requests must pass.
3. Lines run in no more than `batch_share` of what other requests leave of its capacity, or nothing else runs
   there. The rest is for requests that come while the line runs, since nothing that runs is taken back.
4. Its adapter has a slot there, or those of lines have less than `batch_share` of the slots. A slot in which
   only lines run is drained at once for any request that needs it (`leases.py`).
5. At least half of every cap and rate of its tenant, and of its key, is left for other requests of theirs.

What runs so counts in caps, rates and budgets; not in the tenant's service (`fairness.py`), nor as a flood.
"""

from __future__ import annotations

from routing.errors import NoSpareRoom
from routing.scheduling.accounts import Accounts
from routing.scheduling.group import Group
from routing.scheduling.groups import Groups
from routing.scheduling.profile import Pick
from routing.scheduling.state import Engine
from routing.scheduling.view import View, home_key
from routing.types import Request

RETRY_AFTER_S = 0.5


class SpareRoom:
    """Room for the lines of batches, in all groups of one gateway."""

    def __init__(self, groups: Groups, accounts: Accounts) -> None:
        self._groups = groups
        self._accounts = accounts

    def has(self, request: Request) -> bool:
        """Whether a line could begin now, as far as can be seen. Where no replica is there, one is wanted."""
        group = self._groups.find(request.target)
        return group is not None and self._find(group, request) is not None

    def pick(self, request: Request) -> Pick:
        """Choose the engine for a line. Raises `NoSpareRoom`."""
        group = self._groups.of_target(request.target)
        found = self._find(group, request)
        if found is None:
            raise NoSpareRoom(
                "No replica has room to spare for a line of a batch.", retry_after_s=RETRY_AFTER_S
            )
        return found

    def _find(self, group: Group, request: Request) -> Pick | None:
        if not group.scale.takes_work() or group.backlog:  # 1
            return None
        if not self._accounts.leaves_half(request):  # 5
            return None
        share = group.settings.batch_share
        able = [engine for engine in group.engines if _leaves_enough(engine, request, share)]
        found = group.profile.pick(request, View(able, group.floods, home_key(request)))  # 2
        return found if isinstance(found, Pick) else None


def _leaves_enough(engine: Engine, request: Request, share: float) -> bool:
    """Whether a line leaves enough sequences (3) and slots (4) of an engine to others."""
    left = engine.capacity - (engine.sequences - engine.spare)
    if engine.sequences and (left < 2 or engine.spare + request.sequences > max(1.0, share * left)):
        return False
    adapter = request.target.adapter_id
    if adapter is None or engine.holds(adapter):
        return True
    return sum(lease.is_spare for lease in engine.leases.values()) < max(1.0, share * engine.slots)
