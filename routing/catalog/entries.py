"""Adapters, their versions, and the choice of the version that answers a request. Plain values; pure.

An adapter's name belongs to its tenant: two tenants may use the same name, and neither learns of the other's.
Adapters declared in fleet.yaml belong to no tenant; the fleet lists their users.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from adapters.states import PREPARING, VersionState
from fleet.types import KeyLimits
from routing.catalog.sources import Source

_FOLDERS = re.compile(r"(?<![\w.:/~-])(?:file://)?(?:/[^/\s'\"`,;:()]+)*/(?=[\w.@~-])")
DIGEST_IN_ID = 16  # hex digits; 64 bits tell the versions of one adapter apart


def without_folders(text: str) -> str:
    """Cut absolute paths down to their last part; URLs stay as they are."""
    return _FOLDERS.sub("", text)


class AdapterKey(NamedTuple):
    """The owner and the name of an adapter."""

    tenant: str | None  # None: declared in fleet.yaml
    name: str

    def __str__(self) -> str:
        return self.name if self.tenant is None else f"{self.tenant}/{self.name}"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an adapter; its content never changes."""

    id: int  # the database's
    adapter: AdapterKey
    number: int  # 1, 2, ... within the adapter
    source: Source  # the source of its files
    state: VersionState
    reason: str = ""  # why it is quarantined, or why the last attempt failed
    sha256: str | None = None  # promised at registration, of the archive or of the weights file
    digest: str | None = None  # sha256 over its files, once they are stored; the name of its folder
    rank: int | None = None
    size_bytes: int = 0
    strikes: int = 0  # engines that died while they tried it
    created_s: float = 0.0  # Unix time

    @property
    def engine_id(self) -> str:
        """Return the engines' name for it; it differs with the content."""
        if self.digest is None:
            raise ValueError(f"version {self.number} of {self.adapter} has no files yet")
        return f"{self.adapter}@{self.digest[:DIGEST_IN_ID]}"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The steps by which a new version replaces the live one."""

    weight: float = 0.1  # fraction of the requests for the candidate
    min_requests: int = 50  # of the candidate, before it is judged; a clear failure ends it earlier
    promote_after: int | None = None  # requests of the candidate; None: an operator promotes it
    max_error_rise: float = 0.02  # allowed rise of the error rate, absolute
    max_empty_rise: float = 0.05  # allowed rise of the rate of empty answers, absolute
    max_latency_ratio: float = 1.5  # allowed ratio of the mean time per request


@dataclass(frozen=True, slots=True)
class Rollout:
    """A split of an adapter's traffic between its live version and a candidate."""

    candidate: int  # version number
    plan: RolloutPlan = field(default_factory=RolloutPlan)


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """An adapter with all its versions, and the one or two of them that answer."""

    key: AdapterKey
    base_model: str
    declared: bool  # in fleet.yaml, and changed only there
    pinned: bool = False
    live: int | None = None  # number of the version that answers
    previous: int | None = None  # was live before; a rollback goes back to it
    rollout: Rollout | None = None
    versions: tuple[Version, ...] = ()  # by number

    def version(self, number: int) -> Version | None:
        """Return a version by its number."""
        return next((version for version in self.versions if version.number == number), None)

    def ready(self, number: int) -> Version | None:
        """Return a version by its number if it may take traffic."""
        version = self.version(number)
        return version if version is not None and version.state is VersionState.READY else None

    @property
    def is_retired(self) -> bool:
        """Whether every version is retired, so that only a new one could answer."""
        return bool(self.versions) and all(v.state is VersionState.RETIRED for v in self.versions)

    @property
    def can_use_a_pin(self) -> bool:
        """Whether a version answers or is being prepared; else nothing can be kept in a slot."""
        live = None if self.live is None else self.ready(self.live)
        return live is not None or any(version.state in PREPARING for version in self.versions)

    @property
    def refused(self) -> Version | None:
        """Return the quarantined version because of which no version answers, nor will by itself."""
        if any(v.state in PREPARING or v.state is VersionState.READY for v in self.versions):
            return None
        quarantined = [v for v in self.versions if v.state is VersionState.QUARANTINED]
        return quarantined[-1] if quarantined else None

    @property
    def serving(self) -> tuple[Version, ...]:
        """Return the versions that answer now."""
        numbers = {self.live} | ({self.rollout.candidate} if self.rollout else set())
        return tuple(v for v in self.versions if v.number in numbers and v.state is VersionState.READY)

    def choose(self, sticky: str) -> Version | None:
        """Return the version that answers; the same `sticky` always leads to the same side of a split.

        As the weight grows, no side goes back to the live version. None if no version answers.
        """
        by_number = {version.number: version for version in self.serving}
        if self.rollout is not None and self.rollout.candidate in by_number:
            point = hashlib.blake2b(f"{self.key}|{self.rollout.candidate}|{sticky}".encode(), digest_size=8)
            if int.from_bytes(point.digest()) / 2**64 < self.rollout.plan.weight:
                return by_number[self.rollout.candidate]
        return None if self.live is None else by_number.get(self.live)


@dataclass(frozen=True, slots=True)
class Alias:
    """A tenant's name for a model that it may call, set at run time."""

    tenant: str
    alias: str
    model: str  # an adapter of its own, or what fleet.yaml gives it
    changed_s: float  # Unix time
    changed_by: str


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a tenant, an alias, an adapter, a rollout, a key or a replica."""

    id: int  # grows with time
    at_s: float  # Unix time
    actor: str
    subject: str
    text: str
    tenant: str | None = None  # its account; None: it concerns no tenant
    changes: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # path -> before, after


class KeyRole(StrEnum):
    """The rights of an API key."""

    INFERENCE = "inference"  # call the tenant's models
    ADAPTERS = "adapters"  # manage the tenant's own adapters
    OPERATOR = "operator"  # manage everything; belongs to no tenant


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key made at run time. The key itself is shown once and kept nowhere."""

    id: str  # random, safe to show
    prefix: str  # the first characters of the key, so that its owner recognises it
    sha256: str  # of the key
    role: KeyRole
    tenant: str | None  # None for an operator's
    note: str = ""
    created_s: float = 0.0  # Unix time
    expires_s: float | None = None
    revoked_s: float | None = None
    limits: KeyLimits | None = None  # its own, beside its tenant's

    def is_valid(self, now_s: float) -> bool:
        """Whether it is valid at this Unix time."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


@dataclass(frozen=True, slots=True)
class DeclaredKey:
    """An API key of fleet.yaml, which is changed only there."""

    fingerprint: str  # the beginning of its sha256, by which usage knows it
    role: KeyRole
    tenant: str | None
    name: str = ""
    limits: KeyLimits | None = None


@dataclass(frozen=True, slots=True)
class FleetRevision:
    """A document that was applied as the fleet while the service ran."""

    number: int  # 1, 2, ...
    at_s: float  # Unix time
    actor: str
    document: str
    file_sha256: str  # of the fleet file on disk, over which it was applied; empty: there was none
