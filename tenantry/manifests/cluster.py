"""What only the cluster's owner knows about where a fleet runs: images, sizes, and which nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}(Mi|Gi|Ti)$")]
Cpus = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}$|^[1-9][0-9]{0,5}m$")]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
Registry = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*$")
]
_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class ClusterError(ValueError):
    """The file about the cluster cannot be used; says why."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Toleration(_Section):
    """A taint that pods put up with: with this value, or whatever its value is."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None  # None: as a value is given or not
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Toleration:
        if self.value is not None and self.operator == "Exists":
            raise ValueError("Exists goes with no value")
        if self.key is None and (self.value is not None or self.operator == "Equal"):
            raise ValueError("a value needs the key that has it")
        return self

    def to_kubernetes(self) -> dict[str, str]:
        """Return it as Kubernetes takes it."""
        operator = self.operator or ("Exists" if self.value is None else "Equal")
        return self.model_copy(update={"operator": operator}).model_dump(exclude_none=True)


class Engines(_Section):
    """What a pod of engines gets, and where it may run. Sizes with defaults suit a small model on one GPU."""

    cpu: Cpus = "4"
    memory: Quantity = "32Gi"
    shared_memory: Quantity = "2Gi"  # /dev/shm; counts in `memory`
    cache: Quantity = "100Gi"  # weights of the hub, compiled kernels, copies of adapters
    node_selector: dict[str, str] = {}
    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False)] = ()
    priority_class: ObjectName | None = None
    runtime_class: ObjectName | None = None


class Keda(_Section):
    """KEDA is in the cluster and is to set the number of replicas of pools with a range."""

    prometheus: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")]  # has our metrics


class Cluster(_Section):
    """All of it; every key has a default."""

    namespace: Label = "tenantry"  # dedicated pools have `<namespace>-<pool>`
    registry: Registry | None = None  # before the names of images, such as registry.example.com/team
    tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")] = "1"
    storage_class: ObjectName | None = None  # of claims; None: the cluster's default
    state: Quantity = "20Gi"  # of each gateway: the database, adapters
    keda: Keda | None = None  # None: something else scales pools with a range
    engines: Engines = Engines()
    pools: dict[str, dict[str, Any]] = {}  # keys of `engines` that differ for one pool

    def engines_of(self, pool: str) -> Engines:
        """Return what holds for a pool. Raises `ClusterError`."""
        try:
            return Engines.model_validate({**self.engines.model_dump(), **self.pools.get(pool, {})})
        except ValidationError as error:
            raise ClusterError(f"pools.{pool}.{_first(error)}") from None


def read_cluster(path: Path | None) -> Cluster:
    """Read the file; without one, what holds by default. Raises `ClusterError`."""
    if path is None:
        return Cluster()
    try:
        return Cluster.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"{path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ClusterError(f"{path}: {_first(error)}") from None


def in_bytes(quantity: str) -> int:
    """Return a quantity of memory in bytes."""
    return int(quantity[:-2]) * _BYTES[quantity[-2:]]


def _first(error: ValidationError) -> str:
    """Say the first thing that is wrong, and where."""
    found = error.errors()[0]
    return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
