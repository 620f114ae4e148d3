"""Which user of a tenant is next? Virtual token counters one level below tenants, while requests wait.

The rule is the one between tenants (`fairness.py`), without weights: a user pays what its requests cost, one
that begins to wait is lifted to the tenant's virtual time, and waiting counts as it does for tenants. The
counters begin when a request that names a user has to wait, and end once nothing of the tenant waits: what
ran while there was room for everybody is held against nobody. Requests that name no user are one user.

At most `MOST_USERS` are told apart. Beyond them, those of which nothing waits are forgotten, the longest idle
first, and where all of them wait, newcomers stand together as one user. A user is also forgotten once the
virtual time has passed its counter: coming back, it would be lifted to it.

Bound: of two users of one tenant that both wait all the time for what both could run on, neither gets more
than the other by more than one request's price of each, plus what running requests were charged wrongly.
Pure: no clock, no queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

MOST_USERS = 1000  # of one tenant


@dataclass(slots=True, eq=False)
class User:
    """One user of a tenant, and what it has had."""

    name: str
    service: float = 0.0  # in prompt tokens
    granted_s: float = -math.inf  # while it is being served it does not age
    flows: dict[Any, None] = field(default_factory=dict)  # where it waits: `flows.UserFlow`


class Users:
    """The users of one tenant of which something waits, or has waited since anything did."""

    def __init__(self) -> None:
        self._known: dict[str, User] = {}
        self._idle: dict[User, None] = {}  # nothing of them waits; the longest idle first
        self._others: User | None = None  # those that are not told apart
        self._virtual_time = 0.0  # counter of the user served last

    def __len__(self) -> int:
        return len(self._known)

    @property
    def waiting(self) -> int:
        """Users that are told apart and wait."""
        return len(self._known) - len(self._idle) + (self._others is not None and bool(self._others.flows))

    def begin_to_wait(self, name: str) -> User:
        """Return the user of a request that is about to wait."""
        user = self._find(name)
        if not user.flows:
            self._idle.pop(user, None)
            user.service = max(user.service, self._virtual_time)
        return user

    def end_waiting(self, user: User) -> None:
        """Note that nothing of a user waits now."""
        if user is not self._others:
            self._idle[user] = None

    def serve(self, name: str, tokens: float, now_s: float) -> User:
        """Charge a request that begins to run to its user, and return that."""
        user = self._find(name)
        if not user.flows:
            user.service = max(user.service, self._virtual_time)
        self._virtual_time = max(self._virtual_time, user.service)
        user.service += tokens
        user.granted_s = now_s
        while self._idle and (idle := next(iter(self._idle))).service <= self._virtual_time:
            self._forget(idle)
        return user

    def _find(self, name: str) -> User:
        user = self._known.get(name)
        if user is not None:
            return user
        if len(self._known) >= MOST_USERS:
            if not self._idle:
                self._others = self._others or User("")
                return self._others
            self._forget(next(iter(self._idle)))
        user = self._known[name] = User(name)
        self._idle[user] = None
        return user

    def _forget(self, idle: User) -> None:
        del self._idle[idle], self._known[idle.name]
