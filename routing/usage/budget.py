"""May this tenant use more this month? Budgets by calendar month, UTC. Pure; the ledger feeds it.

A budget is in tokens or in money; both are counted, so that another kind of budget holds at once.

Used is what the ledger has of the month, what has ended since and is not written yet, and what runs, as it is
expected. So the limit holds from the first request after a restart, and requests that come at once cannot
pass it together. What runs is finished: a month ends above its limit by no more than what was running then
has used beyond its estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from fleet.money import written
from fleet.types import Budget


class Use(NamedTuple):
    """What requests have used, or are expected to."""

    tokens: int = 0
    cost: int = 0  # in units of a cost

    def plus(self, other: Use) -> Use:
        """Add another one."""
        return Use(self.tokens + other.tokens, self.cost + other.cost)

    def minus(self, other: Use, *, least: int | None = None) -> Use:
        """Take another one away, down to a least number of each."""
        tokens, cost = self.tokens - other.tokens, self.cost - other.cost
        return Use(tokens, cost) if least is None else Use(max(least, tokens), max(least, cost))

    def of(self, budget: Budget) -> int:
        """What of it a budget counts."""
        return self.tokens if budget.monthly_cost is None else self.cost


NOTHING = Use()


class Level(StrEnum):
    """How much of a budget is used."""

    BELOW = "below"
    SOFT = "soft"  # as much as the operator wants to be warned of
    SPENT = "spent"


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """One tenant's budget at one moment."""

    tenant: str
    limit: int  # tokens, or units of a cost
    used: int  # and what runs, as expected
    level: Level
    resets_s: float  # Unix time
    currency: str | None = None  # None: it is in tokens

    @property
    def remaining(self) -> int:
        """What is left; 0 where it is overdrawn."""
        return max(0, self.limit - self.used)

    def of(self, use: Use) -> int:
        """Return what of a use counts here."""
        return use.tokens if self.currency is None else use.cost

    def amount(self, units: int) -> str:
        """Write a number of its units, without their name."""
        return str(units) if self.currency is None else written(units)

    @property
    def unit(self) -> str:
        """The name of what it counts."""
        return self.currency or "tokens"

    def answer(self) -> dict[str, Any]:
        """Describe it as queries do."""
        if self.currency is None:
            told: dict[str, Any] = {
                "monthly_tokens": self.limit,
                "used_tokens": self.used,
                "remaining_tokens": self.remaining,
            }
        else:
            told = {
                "monthly_cost": written(self.limit),
                "used_cost": written(self.used),
                "remaining_cost": written(self.remaining),
            }
        return told | {
            "level": self.level.value,
            "resets_at": datetime.fromtimestamp(self.resets_s, UTC).isoformat().replace("+00:00", "Z"),
        }


@dataclass(slots=True)
class _Account:
    budget: Budget
    written: Use = NOTHING  # of this month, in the ledger's tables as last seen
    unwritten: Use = NOTHING  # of this month, of what ended here and is not in `written`
    reserved: Use = NOTHING  # of what runs or waits here, as expected
    told: Level | None = None  # None: nothing is known yet, or a month has begun

    @property
    def limit(self) -> int:
        return self.budget.monthly_tokens or self.budget.monthly_cost or 0

    @property
    def used(self) -> int:
        return self.written.of(self.budget) + self.unwritten.of(self.budget)

    @property
    def level(self) -> Level:
        """Of what has ended; what runs may still use less than was expected."""
        if self.used >= self.limit:
            return Level.SPENT
        soft = self.budget.soft * self.limit
        return Level.SOFT if self.used >= soft else Level.BELOW


class Budgets:
    """The budgets of all tenants that have one. `now_s` is Unix time."""

    def __init__(self, budgets: Mapping[str, Budget], currency: str | None = None) -> None:
        """`currency` is the fleet's; budgets in money need one."""
        self.currency = currency
        self._accounts = {tenant: _Account(budget) for tenant, budget in budgets.items()}
        self._former: dict[str, _Account] = {}  # of tenants that have none now, while something is reserved
        self._month = ""  # as 2026-01
        self._begins_s = self._ends_s = 0.0
        self.is_known = not budgets  # whether the ledger has said what was used before

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._accounts

    def take(self, budgets: Mapping[str, Budget], currency: str | None = None) -> None:
        """Let these budgets count; what is used and reserved stays so."""
        self.currency = currency
        known = self._former | self._accounts
        self._accounts = {tenant: known.get(tenant, _Account(budget)) for tenant, budget in budgets.items()}
        for tenant, account in self._accounts.items():
            account.budget = budgets[tenant]
        self._former = {
            t: account for t, account in known.items() if any(account.reserved) and t not in budgets
        }

    @property
    def tenants(self) -> list[str]:
        """Who has a budget."""
        return list(self._accounts)

    def status(self, tenant: str, now_s: float) -> BudgetStatus | None:
        """Tell how a tenant stands; None where it has no budget."""
        account = self._accounts.get(tenant)
        if account is None:
            return None
        self._turn(now_s)
        used = account.used + account.reserved.of(account.budget)
        currency = None if account.budget.monthly_cost is None else self.currency
        return BudgetStatus(tenant, account.limit, used, account.level, self._ends_s, currency)

    def reserve(self, tenant: str, use: Use, now_s: float) -> bool:
        """Reserve what a request is expected to use, if that is left; returns whether it was."""
        account = self._accounts.get(tenant)
        if account is None:
            return True
        self._turn(now_s)
        if account.used + account.reserved.plus(use).of(account.budget) > account.limit:
            return False
        account.reserved = account.reserved.plus(use)
        return True

    def release(self, tenant: str, use: Use) -> None:
        """Give back what was reserved; what was used has been counted by then."""
        account = self._accounts.get(tenant) or self._former.get(tenant)
        if account is not None:
            account.reserved = account.reserved.minus(use)
            if not any(account.reserved):
                self._former.pop(tenant, None)

    def count(self, tenant: str, use: Use, at_s: float) -> None:
        """Count what a request has used that ended then, and is not written yet.

        One that ended in the month before and is told only now counts there, and that month is over.
        """
        account = self._accounts.get(tenant)
        if account is not None and at_s >= self._begins_s:
            self._turn(at_s)
            account.unwritten = account.unwritten.plus(use)

    def note_written(self, month: str, here: Mapping[str, Use]) -> None:
        """Note what was counted here and is written now. A month that is over changes nothing."""
        if month != self._month:
            return
        for tenant, use in here.items():
            account = self._accounts.get(tenant)
            if account is not None:
                account.written = account.written.plus(use)
                account.unwritten = account.unwritten.minus(use, least=0)

    def take_totals(self, month: str, written: Mapping[str, Use], here: Mapping[str, Use]) -> None:
        """Take over what the ledger has of a month in all, for the tenants of which it was asked.

        `here` is what of that was counted here and was not told by `note_written` or `take_totals` before.
        """
        if month != self._month:
            return
        self.note_written(month, here)
        for tenant, account in self._accounts.items():
            account.written = written.get(tenant, account.written)
            if not self.is_known:
                account.told = account.level  # before this start; it was told then
        self.is_known = True

    def newly_reached(self, now_s: float) -> list[BudgetStatus]:
        """Return those that have reached their soft or their hard limit since they were last asked for."""
        found = []
        for tenant, account in self._accounts.items():
            status = self.status(tenant, now_s)
            if status is None or not self.is_known or account.told is status.level:
                continue
            account.told = status.level
            if status.level is not Level.BELOW:
                found.append(status)
        return found

    def month(self, now_s: float) -> tuple[str, str, str]:
        """Return the month that it is, its first day and the first day after it."""
        self._turn(now_s)
        return self._month, f"{self._month}-01", datetime.fromtimestamp(self._ends_s, UTC).date().isoformat()

    def _turn(self, now_s: float) -> None:
        """Begin a new month, if one has begun. What runs counts in the month in which it ends.

        A clock that was ahead may be set back, into a month whose use the ledger tells anew.
        """
        if self._begins_s <= now_s < self._ends_s:
            return
        now = datetime.fromtimestamp(now_s, UTC)
        year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        self._month = f"{now:%Y-%m}"
        self._begins_s = datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()
        self._ends_s = datetime(year, month, 1, tzinfo=UTC).timestamp()
        for account in self._accounts.values():
            account.written = account.unwritten = NOTHING
            if account.told is not None:
                account.told = Level.BELOW
