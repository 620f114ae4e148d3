"""The admin API's changes at run time, on adapters, keys and replicas.

Implements `routing.lifecycle.ports.Management`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.states import PREPARING, VersionState
from fleet.current import CurrentFleet
from fleet.key_hash import FINGERPRINT_CHARS
from fleet.types import KeyLimits, Tenant
from routing.catalog.directory import Directory
from routing.catalog.entries import (
    AdapterEntry,
    AdapterKey,
    ApiKey,
    DeclaredKey,
    Event,
    KeyRole,
    Rollout,
    RolloutPlan,
    Version,
)
from routing.catalog.sources import Upload
from routing.errors import Conflict, InvalidRequest, NotFound, still_starting
from routing.lifecycle.aliases import Aliases
from routing.lifecycle.changes import change
from routing.lifecycle.fleets import FleetChanges
from routing.lifecycle.lifecycle import Lifecycle
from routing.lifecycle.models import Models
from routing.lifecycle.new_keys import make_key
from routing.lifecycle.pins import require_slot, require_version, why_quarantined
from routing.lifecycle.plans import Plans
from routing.lifecycle.ports import NewVersion, ReplicaResidency, VersionProgress, WholeManagement
from routing.lifecycle.registration import Registration
from routing.lifecycle.restarts import RollingRestarts
from routing.lifecycle.tenant_ports import AliasManagement, TenantManagement
from routing.scheduling.decisions import KEPT
from routing.scheduling.replica_figures import replica_figures
from routing.scheduling.report import SchedulerReport
from routing.scheduling.state import Replica
from routing.turns.driver import Turns


class Manager:
    """Changes adapters, keys and replicas of one gateway for operators and tenants."""

    def __init__(self, fleet: CurrentFleet, directory: Directory, lifecycle: Lifecycle, turns: Turns) -> None:
        self._fleet = fleet
        self._directory = directory
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self.restarts = RollingRestarts(
            fleet, lifecycle.dispatcher, lifecycle.clients, lifecycle.engines, lifecycle.registry
        )
        self.fleets = FleetChanges(
            fleet, lifecycle.registry, lifecycle.dispatcher, lifecycle.tenants, self.restarts
        )
        lifecycle.resume_fleet = self._resume
        whole = lifecycle.whole
        self.fleets.of_models, self.fleets.as_told = whole.shelf.unfit, whole.shelf.as_told
        turns.follow(whole.steps.outcome, whole.absence)
        self.models = Models(turns, lifecycle.registry)
        self.whole: WholeManagement = whole
        self.plans = Plans(lifecycle.registry)
        self._registration = Registration(fleet, directory, lifecycle.registry, lifecycle.uploads)
        self.changes = lifecycle.changes
        self.tenancy: TenantManagement = lifecycle.tenants
        self.aliases: AliasManagement = Aliases(fleet, lifecycle.registry, lifecycle.changes)

    async def _resume(self) -> None:
        """Go on with what was there before the gateway started."""
        await self.fleets.resume()
        await self.plans.load()

    def adapters(self) -> Sequence[AdapterEntry]:
        """List every adapter, by key."""
        return sorted(self._directory.adapters(), key=lambda entry: str(entry.key))

    def adapter(self, key: AdapterKey) -> AdapterEntry:
        """Return one adapter. Raises `NotFound`."""
        entry = self._directory.adapter(key)
        if entry is None:
            raise NotFound(f"There is no adapter `{key.name}`.", code="adapter_not_found")
        return entry

    def progress(self, version: Version) -> VersionProgress | None:
        """Return how far the fetch of a version is; None if none is running."""
        return self._lifecycle.preparation.progress.get(version.id)

    @change
    async def add(self, key: AdapterKey, base_model: str | None, new: NewVersion) -> Version:
        """Register a version, and the adapter if it is new."""
        self._require_reconciled()
        source = await self._registration.check(key, new)
        # A tenant that is removed meanwhile leaves no adapter behind.
        async with self.changes.of(("tenant", key.tenant)), self.changes.of(key):
            self._registration.require_open(key, new)
            entry = await self._registration.entry_for(key, base_model)
            if new.rollout is not None and entry.rollout is not None:
                raise Conflict(
                    f"Version {entry.rollout.candidate} of `{key.name}` is being rolled out; promote it or "
                    "roll it back first.",
                    code="rollout_running",
                )
            version = await self._registration.add_version(key, source, new)
            if new.rollout is not None:  # where nothing is live yet, the version before it may become so
                self._lifecycle.conclusions.begin(key)
                await self._registry.route(
                    key,
                    live=entry.live,
                    previous=entry.previous,
                    rollout=Rollout(version.number, new.rollout),
                )
        self._lifecycle.preparation.start(version)
        return version

    @change
    async def promote(self, key: AdapterKey, number: int | None) -> AdapterEntry:
        """Send all traffic to a version; without a number, to the rollout's candidate."""
        async with self.changes.of(key):
            entry = self.adapter(key)
            if number is None:
                if entry.rollout is None:
                    raise Conflict("Nothing is being rolled out; name a version.", code="no_rollout")
                number = entry.rollout.candidate
            self._require_ready(entry, number)
            previous = entry.live if entry.live != number else entry.previous
            entry = await self._registry.route(key, live=number, previous=previous, rollout=None)
        await self._note(entry, f"version {number} promoted")
        return entry

    @change
    async def rollback(self, key: AdapterKey) -> AdapterEntry:
        """End a rollout in favour of the live version; without a rollout, go back to the previous version."""
        async with self.changes.of(key):
            entry = self.adapter(key)
            if entry.rollout is not None:
                self._require_prepared(entry, entry.rollout.candidate)
                live, previous = entry.live, entry.previous
            elif entry.previous is not None and entry.ready(entry.previous):
                live, previous = entry.previous, None
            else:
                raise Conflict("There is no version to go back to.", code="no_previous_version")
            entry = await self._registry.route(key, live=live, previous=previous, rollout=None)
        await self._note(entry, f"rolled back to version {live}")
        return entry

    @change
    async def rollout(self, key: AdapterKey, number: int, plan: RolloutPlan) -> AdapterEntry:
        """Send a part of the traffic to a ready version."""
        async with self.changes.of(key):
            entry = self.adapter(key)
            self._require_ready(entry, number)
            if number == entry.live:
                raise Conflict(f"Version {number} answers everything already.", code="version_live")
            if entry.rollout is None or entry.rollout.candidate != number:
                self._lifecycle.conclusions.begin(key)
            entry = await self._registry.route(
                key, live=entry.live, previous=entry.previous, rollout=Rollout(number, plan)
            )
        await self._note(entry, f"version {number} gets {plan.weight:.0%}")
        return entry

    @change
    async def pin(self, key: AdapterKey, pinned: bool) -> AdapterEntry:
        """Keep the live version in a slot of every replica of its pools, or stop doing so."""
        async with self.changes.of(key):
            entry = self.adapter(key)
            if pinned:
                require_version(entry)
            async with self.changes.of(("pins", entry.base_model)):  # they are counted together
                if pinned and not entry.pinned:
                    base = self._fleet.now.base_models.get(entry.base_model)
                    require_slot(entry, self._directory, base.max_loras if base is not None else 0)
                entry = await self._registry.set_pinned(key, pinned)
        await self._note(entry, "pinned" if pinned else "no longer pinned")
        return entry

    @change
    async def verify(self, key: AdapterKey, number: int) -> Version:
        """Verify a quarantined version again, from the beginning."""
        version = self._version(self.adapter(key), number)
        if version.state is not VersionState.QUARANTINED:
            raise Conflict(f"Version {number} is {version.state}, not quarantined.", code="not_quarantined")
        kept = version.digest is not None and self._lifecycle.store.has(version.digest)
        if isinstance(version.source, Upload) and not kept:
            raise Conflict("The uploaded archive is not kept any more; upload it again.", code="upload_gone")
        await self._lifecycle.unpin_idle(key)  # another adapter may hold the slot by now
        version = await self._registry.move(version, VersionState.REGISTERED)
        self._lifecycle.preparation.start(version)
        return version

    @change
    async def retire(self, key: AdapterKey, number: int | None) -> AdapterEntry:
        """Take a version, or all versions, out of traffic; running requests end on their version."""
        if key.tenant is None:
            raise Conflict(
                "This adapter is declared in fleet.yaml; remove it there.", code="adapter_declared"
            )
        async with self.changes.of(key):
            entry = self.adapter(key)
            if number is None:
                entry = await self._registry.route(key, live=None, previous=None, rollout=None)
                chosen = [v for v in entry.versions if v.state is not VersionState.RETIRED]
            else:
                chosen = [self._version(entry, number)]
                if number == entry.live:
                    raise Conflict(
                        f"Version {number} is live; promote another one first, or retire the adapter.",
                        code="version_live",
                    )
                candidate = entry.rollout.candidate if entry.rollout else None
                if number in (candidate, entry.previous):
                    await self._registry.route(
                        key,
                        live=entry.live,
                        previous=entry.previous if number != entry.previous else None,
                        rollout=entry.rollout if number != candidate else None,
                    )
            for version in chosen:
                await self._lifecycle.retire_version(version)
            await self._lifecycle.unpin_idle(key)
        return self.adapter(key)

    def tenants(self) -> Sequence[Tenant]:
        """List the fleet's tenants."""
        return list(self._fleet.now.tenants.values())

    def replicas(self) -> Sequence[ReplicaResidency]:
        """List every replica with its resident adapters."""
        return [self._replica_residency(replica) for replica in self._lifecycle.dispatcher.replicas.values()]

    async def set_draining(self, name: str, draining: bool) -> ReplicaResidency:
        """Give a replica no new work, or work again. Raises `NotFound`."""
        replica = self._lifecycle.dispatcher.replicas.get(name)
        if replica is None:
            raise NotFound(f"There is no replica `{name}`.", code="replica_not_found")
        if replica.draining != draining:
            self._lifecycle.dispatcher.set_draining(name, draining)
            text = "drained: it gets no new work" if draining else "resumed: it gets work again"
            await self._registry.record(f"replica {name}", text)
        return self._replica_residency(replica)

    def scheduler(self, decisions: int = KEPT) -> SchedulerReport:
        """Copy the scheduler's state, with its last decisions, at most this number."""
        return self._lifecycle.dispatcher.report(decisions)

    def _replica_residency(self, replica: Replica) -> ReplicaResidency:
        return ReplicaResidency(
            pool=replica.pool,
            figures=replica_figures(replica.engine),
            leases={adapter: lease.sequences for adapter, lease in replica.engine.leases.items()},
            residency=self._lifecycle.engines.residency(replica.name),
        )

    async def events(
        self,
        limit: int,
        before: int | None,
        *,
        tenant: str | None = None,
        since_s: float | None = None,
        former: bool = False,
    ) -> Sequence[Event]:
        """List events, the newest first."""
        return await self._registry.events(limit, before, tenant=tenant, since_s=since_s, former=former)

    def declared_keys(self) -> Sequence[DeclaredKey]:
        """List the keys of fleet.yaml: operators' first, then by tenant."""
        operators = [
            DeclaredKey(digest[:FINGERPRINT_CHARS], KeyRole.OPERATOR, None)
            for digest in sorted(self._fleet.now.gateway.operator_key_hashes)
        ]
        return operators + [
            DeclaredKey(
                digest[:FINGERPRINT_CHARS],
                KeyRole.INFERENCE,
                tenant.name,
                tenant.key_names.get(digest, ""),
                tenant.key_limits.get(digest),
            )
            for tenant in self.tenants()
            for digest in sorted(tenant.key_hashes)
        ]

    def keys(self) -> Sequence[ApiKey]:
        """List the keys made at run time, revoked and expired ones too."""
        return sorted(self._directory.keys(), key=lambda key: key.created_s)

    @change
    async def create_key(
        self,
        role: KeyRole,
        tenant: str | None,
        *,
        note: str,
        expires_s: float | None,
        limits: KeyLimits | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key. Returns it with its record; it is never shown again."""
        self._require_reconciled()
        if (role is KeyRole.OPERATOR) != (tenant is None):
            raise InvalidRequest("An operator's key has no tenant, every other key has one.", param="tenant")
        if limits is not None and role is not KeyRole.INFERENCE:
            raise InvalidRequest("Only a key that calls models has limits.", param="limits")
        async with self.changes.of(("tenant", tenant)):  # one that is removed meanwhile gets no key
            if tenant is not None and tenant not in self._fleet.now.tenants:
                raise NotFound(f"There is no tenant `{tenant}`.", code="tenant_not_found")
            secret, key = make_key(role, tenant, note=note, expires_s=expires_s, limits=limits)
            await self._registry.add_key(key)
        text = f"created: {role} of {tenant or 'operators'}"
        await self._registry.record(f"key {key.id}", text, tenant=tenant)
        return secret, key

    @change
    async def set_key_limits(self, key_id: str, limits: Mapping[str, int | None]) -> ApiKey:
        """Replace limits of a key, by their names; None takes one away. Raises `NotFound` and `Conflict`."""
        self._require_reconciled()
        key = await self._registry.set_key_limits(key_id, limits)
        told = ", ".join(f"{name} {'none' if limit is None else limit}" for name, limit in limits.items())
        await self._registry.record(f"key {key.id}", f"limits: {told}", tenant=key.tenant)
        return key

    @change
    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key at once. Raises `NotFound`."""
        key = await self._registry.revoke_key(key_id)
        await self._registry.record(f"key {key.id}", "revoked", tenant=key.tenant)
        return key

    def _version(self, entry: AdapterEntry, number: int) -> Version:
        version = entry.version(number)
        if version is None:
            raise NotFound(f"`{entry.key.name}` has no version {number}.", code="version_not_found")
        return version

    def _require_ready(self, entry: AdapterEntry, number: int) -> None:
        version = self._version(entry, number)
        if version.state is VersionState.QUARANTINED:
            raise Conflict(why_quarantined(version), code="version_not_ready")
        if version.state is not VersionState.READY:
            raise Conflict(f"Version {number} is {version.state}, not ready.", code="version_not_ready")

    def _require_prepared(self, entry: AdapterEntry, number: int) -> None:
        """Raise `Conflict` for a candidate on its way: without its rollout it would take over once ready."""
        version = self._version(entry, number)
        if version.state in PREPARING:
            raise Conflict(
                f"Version {number} is {version.state}, so that it gets no traffic yet; retire it alone if it "
                "is not to get any.",
                code="version_not_ready",
            )

    def _require_reconciled(self) -> None:
        if not self._lifecycle.is_reconciled:
            raise still_starting(2.0)

    async def _note(self, entry: AdapterEntry, text: str) -> None:
        self._lifecycle.engines.tell_all()
        await self._registry.record(str(entry.key), text, tenant=entry.key.tenant)
