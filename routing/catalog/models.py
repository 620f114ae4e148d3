"""Whole models that the gateway fetches, and their versions. Plain values; pure.

A model is declared in fleet.yaml with a URL as its source, or added at run time by an operator. Its name is
that of a base model, which is the fleet's: no tenant's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.states import PREPARING, VersionState, check_transition
from routing.catalog.sources import Source

MAX_STRIKES = 3  # engines that did not start with a version; then it is quarantined


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model; its content never changes."""

    number: int  # 1, 2, ... within the model
    source: Source
    state: VersionState = VersionState.REGISTERED
    reason: str = ""  # why it is quarantined, or why the last attempt failed
    sha256: str | None = None  # promised at registration
    digest: str | None = None  # sha256 over its files, once they are stored; the name of its folder
    size_bytes: int = 0
    strikes: int = 0  # engines that did not start with it, since one did
    proven: bool = False  # an engine has come awake with it
    created_s: float = 0.0  # Unix time

    def moved(self, to: VersionState, reason: str = "") -> ModelVersion:
        """Return it in another state. Raises `IllegalTransition`."""
        check_transition(self.state, to)
        strikes = 0 if self.state is VersionState.QUARANTINED else self.strikes
        return replace(self, state=to, reason=reason, strikes=strikes)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model with all its versions."""

    name: str
    pool: str | None  # of one that was added at run time; None: it is declared
    values: Mapping[str, Any] = field(default_factory=dict)  # of an entry of `base_models`; of the former
    live: int | None = None  # number of the version that engines are started with
    previous: int | None = None  # was live before; a rollback, or a failure of the live one, goes back to it
    versions: tuple[ModelVersion, ...] = ()  # by number
    revision: int = 0  # grows with each change
    retiring: bool = False  # it is forgotten as soon as no engine has it

    def version(self, number: int | None) -> ModelVersion | None:
        """Return a version by its number."""
        return next((version for version in self.versions if version.number == number), None)

    def with_version(self, version: ModelVersion) -> ModelEntry:
        """Return the model with a version, new or changed."""
        others = (each for each in self.versions if each.number != version.number)
        versions = tuple(sorted((*others, version), key=lambda each: each.number))
        return replace(self, versions=versions)

    @property
    def next_number(self) -> int:
        """The number of its next version."""
        return max((version.number for version in self.versions), default=0) + 1

    @property
    def serving(self) -> ModelVersion | None:
        """The version that engines are started with."""
        return self.version(self.live)

    @property
    def newest(self) -> ModelVersion | None:
        """The version that was added last and is not retired."""
        found = [version for version in self.versions if version.state is not VersionState.RETIRED]
        return found[-1] if found else None

    @property
    def untried(self) -> ModelVersion | None:
        """A version that is to be tried once more, beside the one that serves."""
        ready = [v for v in self.versions if v.state is VersionState.READY and v.strikes and not v.proven]
        return next((version for version in ready if version.number != self.live), None)

    @property
    def unfinished(self) -> list[ModelVersion]:
        """Versions on their way to be ready."""
        return [version for version in self.versions if version.state in PREPARING]

    def digests(self) -> set[str]:
        """Return what it needs of the store: versions that serve, may serve again, or are to be tried."""
        ready = (version for version in self.versions if version.state is VersionState.READY)
        return {version.digest for version in ready if version.digest is not None}
