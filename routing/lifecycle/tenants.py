"""Admits, changes, suspends and removes tenants while the gateway runs. Implements `TenantManagement`.

A change is checked by the rules of fleet files, written to the state database together with its event, and
then counts: the fleet that all parts read is replaced. Whatever is declared later, the changes are put on top
of it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from fleet.changes import Amended, set_values, values_of, with_changes
from fleet.current import CurrentFleet
from fleet.entries import differences
from fleet.isolation import why_shared
from fleet.tenant_change import SUSPENDED, TenantChange
from fleet.types import Fleet, account_of
from fleet.wording import in_words
from routing.catalog.entries import ApiKey, KeyRole
from routing.errors import Conflict, InvalidRequest, NotFound, still_starting
from routing.lifecycle.changes import ACTOR, Changes, change
from routing.lifecycle.consequences import consequences, oddities
from routing.lifecycle.new_keys import make_key
from routing.lifecycle.registry import Registry, patiently
from routing.lifecycle.tenant_ports import TenantChanged, TenantView
from routing.lifecycle.tenant_values import copied, told_values, with_pools
from routing.state import Note, changed_meanwhile

ALL = "fleet"  # changes of the fleet are made one after the other: tenants share pools
RETRY_AFTER_S = 2.0
_BY_ITSELF = frozenset(
    {"suspended", "resumed"}
)  # counts even where the rest of a tenant's change does not fit
log = logging.getLogger("tenantry.lifecycle")


class Tenants:
    """The tenants of one gateway."""

    def __init__(
        self,
        fleet: CurrentFleet,
        registry: Registry,
        changes: Changes,
        depart: Callable[[str], None],
        running: Callable[[], Mapping[str, Set[str]]],
    ) -> None:
        """`depart` begins to remove all adapters of a tenant that was removed.

        `running` says whose requests run in each pool.
        """
        self._fleet = fleet
        self._registry = registry
        self._directory = registry.directory
        self._depart = depart
        self._running = running
        self.changes = changes
        self._amended = self._next = Amended(fleet.now, {}, fleet.now, {})
        self._dropped: set[str] = set()  # declared no more since the start; what they used may not be written
        fleet.amend = self._amend
        fleet.follow(self._take_next)

    async def load(self) -> None:
        """Put what was changed before this start on top of the fleet; waits until the database answers."""
        changes, aliases = await patiently(self._registry.tenants)
        for alias in aliases:
            self._directory.put_alias(alias)
        declared = self._fleet.extend(self._fleet.declared)
        if changes or declared is not self._fleet.declared:
            self._put(with_changes(declared, {each.tenant: each for each in changes}))
        self._tell()
        for each in changes:
            if each.removed and self._has_adapters(each.tenant):
                self._depart(each.tenant)

    def is_suspended(self, name: str) -> bool:
        """Whether a tenant is suspended."""
        tenant = self._fleet.now.tenants.get(name)
        return tenant is not None and tenant.suspended

    def account(self, name: str) -> str:
        """Return the name under which a tenant's usage is counted."""
        tenant = self._fleet.now.tenants.get(name)
        return name if tenant is None else tenant.account

    def change_of(self, name: str) -> TenantChange:
        """Return what was changed of a tenant at run time; of revision 0 where nothing was."""
        return self._amended.changes.get(name) or TenantChange(name)

    def consequences(self, declared: Fleet) -> list[str]:
        """Say what another declared fleet would mean for what was made at run time."""
        return consequences(self._amended, self._under(declared), self._directory)

    def show(self, name: str) -> TenantView:
        """Show one tenant; also one that was removed. Raises `NotFound`."""
        if name not in self._amended.changes and name not in self._amended.fleet.tenants:
            raise _unknown(name)
        return self._view(self._amended, name)

    @change
    async def create(
        self, name: str, values: Mapping[str, Any], *, like: str | None, key: bool, dry_run: bool
    ) -> TenantChanged:
        """Admit a tenant."""
        self._require_known()
        async with self.changes.of(ALL):
            now, before = self._amended, self._amended.changes.get(name)
            if name in now.fleet.tenants or (before is not None and not before.removed):
                raise Conflict(f"There is a tenant `{name}` already.", code="tenant_exists", param="name")
            if self._has_adapters(name):
                self._depart(name)
                raise _still_leaving(name)
            generation = await self._next_generation(name, before)
            if like is not None:
                if like not in now.fleet.tenants:
                    raise NotFound(f"There is no tenant `{like}`.", code="tenant_not_found", param="like")
                values = copied(now.fleet, like, values)
            admitted = TenantChange(
                name,
                generation,
                revision=1 if before is None else before.revision + 1,
                admitted=True,
                apart=name in now.declared.tenants,
            )
            admitted = self._stamped(admitted, with_pools(now.fleet, values))
            made = make_key(KeyRole.INFERENCE, name, note="first") if key else None
            return await self._commit(admitted, "admitted", dry_run=dry_run, made=made)

    @change
    async def set(
        self,
        name: str,
        values: Mapping[str, Any],
        *,
        reset: Sequence[str],
        revision: int | None,
        dry_run: bool,
    ) -> TenantChanged:
        """Set values at run time, and take others back."""
        self._require_known()
        async with self.changes.of(ALL):
            before = self._known(name, revision)
            unset = [path for path in reset if path not in before.values]
            if unset:
                raise InvalidRequest(
                    f"{', '.join(unset)} is not set at run time.", param="reset", code="not_set_at_run_time"
                )
            if not (values or reset or dry_run):
                raise InvalidRequest(
                    "Name at least one value to set, or one to `reset`.", code="missing_required_parameter"
                )
            kept = {path: each for path, each in before.values.items() if path not in reset}
            changed = replace(before, revision=before.revision + 1, values=kept)
            return await self._commit(self._stamped(changed, values), "changed", dry_run=dry_run)

    @change
    async def suspend(self, name: str, *, dry_run: bool) -> TenantChanged:
        """Refuse a tenant's keys and what waits of it."""
        return await self._set_suspended(name, True, "suspended", dry_run=dry_run)

    @change
    async def resume(self, name: str, *, dry_run: bool) -> TenantChanged:
        """Take a tenant's keys again."""
        return await self._set_suspended(name, False, "resumed", dry_run=dry_run)

    @change
    async def remove(self, name: str, *, revision: int | None, dry_run: bool) -> TenantChanged:
        """Remove a tenant with its keys and adapters."""
        self._require_known()
        async with self.changes.of(("tenant", name)), self.changes.of(ALL):
            before = self._known(name, revision)
            removed = replace(before, revision=before.revision + 1, removed=True, values={})
            removed = replace(removed, changed_s=time.time(), changed_by=ACTOR.get())
            done = await self._commit(removed, "removed", dry_run=dry_run)
        if not dry_run:
            self._depart(name)
        return done

    # -- how a change is made ------------------------------------------------------------------------------

    async def _set_suspended(self, name: str, wanted: bool, verb: str, *, dry_run: bool) -> TenantChanged:
        self._require_known()
        async with self.changes.of(ALL):
            before = self._known(name, None)
            declared = self._amended.declared.tenants.get(name)
            changed = replace(before, revision=before.revision + 1)
            if wanted or (declared is not None and declared.suspended and not before.apart):
                changed = self._stamped(changed, {SUSPENDED: wanted})
            else:
                kept = {path: each for path, each in before.values.items() if path != SUSPENDED}
                changed = self._stamped(replace(changed, values=kept), {})
            return await self._commit(changed, verb, dry_run=dry_run)

    async def _commit(
        self,
        changed: TenantChange,
        verb: str,
        *,
        dry_run: bool,
        made: tuple[str, ApiKey] | None = None,
    ) -> TenantChanged:
        """Check a change, write it, and let it count. Raises `InvalidRequest` with every problem."""
        now, name = self._amended, changed.tenant
        proposed = now.with_change(changed)
        problems = [
            problem
            for tenant, found in proposed.unfit.items()
            if tenant not in now.unfit or (tenant == name and verb not in _BY_ITSELF)
            for problem in found
        ]
        if problems:
            raise InvalidRequest("; ".join(problems), code="tenant_invalid", param=_param(problems[0], name))
        self._refuse_if_shared(now.fleet, proposed.fleet)
        differing = differences(values_of(now.fleet, name), values_of(proposed.fleet, name))
        words = in_words(differing)
        if not dry_run:
            text = verb if verb in {*_BY_ITSELF, "removed"} else f"{verb}: {'; '.join(words)}"
            account = account_of(name, changed.generation)
            note = Note(ACTOR.get(), f"tenant {name}", text, account, differing)
            key = None if made is None else made[1]
            await self._registry.change_tenant(changed, key, note, self._take)
        view = self._view(proposed if dry_run else self._amended, name)
        return TenantChanged(view, differing, words, None if dry_run else made)

    def _refuse_if_shared(self, before: Fleet, after: Fleet) -> None:
        """Raise `Conflict` where a dedicated tenant would meet requests of others on an engine."""
        reasons = why_shared(before, after, self._running()) if before is not after else []
        if reasons:
            raise Conflict("Nothing was changed: " + "; ".join(reasons), code="tenant_would_share")

    def _take(self, changed: TenantChange) -> None:
        """Let a change count that the database has; what is declared may be another fleet by now."""
        self._put(self._amended.with_change(changed))

    def _put(self, amended: Amended) -> None:
        self._next = amended
        self._fleet.change(amended.fleet)

    def _amend(self, declared: Fleet) -> Fleet:
        """Put the changes on top of another fleet that is declared."""
        self._next = self._under(declared)
        return self._next.fleet

    def _under(self, declared: Fleet) -> Amended:
        """Return another declared fleet with the changes on top; that of the last one is at hand."""
        now, declared = self._next, self._fleet.extend(declared)
        if now.declared is declared and now.changes is self._amended.changes:
            return now
        return with_changes(declared, self._amended.changes)

    def _take_next(self, _: Fleet) -> None:
        was_declared, self._amended = self._amended.declared, self._next
        if self._amended.declared is not was_declared:
            self._dropped |= was_declared.tenants.keys() - self._amended.declared.tenants.keys()
        if self._amended.declared is not was_declared and not self._fleet.is_known:
            self._tell()  # later on, whoever applies another fleet tells what has changed by it

    def _tell(self) -> None:
        """Log what is odd: changes that do not fit, and tenants that are declared and made at run time."""
        for text in oddities(self._amended).values():
            log.warning("%s", text)

    def _stamped(self, changed: TenantChange, values: Mapping[str, Any]) -> TenantChange:
        now_s, by = time.time(), ACTOR.get()
        return replace(set_values(changed, values, now_s, by), changed_s=now_s, changed_by=by)

    def _known(self, name: str, revision: int | None) -> TenantChange:
        """Return what was changed of a tenant before. Raises `NotFound`; `Conflict` for another revision."""
        found = self.change_of(name)
        if found.removed or (found.revision == 0 and name not in self._amended.fleet.tenants):
            raise _unknown(name)
        if revision is not None and revision != found.revision:
            raise changed_meanwhile(name, found)
        return found

    async def _next_generation(self, name: str, before: TenantChange | None) -> int:
        if before is not None:
            return before.generation + 1
        return int(name in self._dropped or await self._registry.tenant_was_used(name))

    def _has_adapters(self, name: str) -> bool:
        return bool(self._directory.adapters_of(name))

    def _require_known(self) -> None:
        if not self._fleet.is_known:
            raise still_starting(RETRY_AFTER_S)

    def _view(self, amended: Amended, name: str) -> TenantView:
        found = amended.changes.get(name) or TenantChange(name)
        return TenantView(
            name=name,
            tenant=amended.fleet.tenants.get(name),
            declared=name in amended.declared.tenants,
            change=found,
            values=told_values(amended, name),
            problems=amended.unfit.get(name, ()),
            aliases=self._directory.aliases(name),
        )


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no tenant `{name}`.", code="tenant_not_found", param="tenant")


def _still_leaving(name: str) -> Conflict:
    return Conflict(
        f"Adapters of the former tenant `{name}` are still being removed. Try again in some seconds.",
        code="tenant_leaving",
        retry_after_s=RETRY_AFTER_S,
    )


def _param(problem: str, name: str) -> str | None:
    """Return the field of the tenant that a problem is about; None: it is about something else."""
    path, _, _ = problem.partition(": ")
    start = f"tenants.{name}."
    return path.removeprefix(start) if path.startswith(start) else None
