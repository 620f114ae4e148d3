"""What engines did with requests that ended well, as columns: from this costs are measured. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Served:
    """Completed requests; columns of equal length."""

    replica: list[str] = field(default_factory=list)
    model: list[str] = field(default_factory=list)
    adapter: list[str] = field(default_factory=list)  # "": the base model itself
    granted_s: list[float] = field(default_factory=list)  # when a replica took it, on one clock for all
    run_s: list[float] = field(default_factory=list)  # from then to the end of the answer
    fresh: list[float] = field(default_factory=list)  # prompt tokens that were not cached
    completion: list[float] = field(default_factory=list)  # tokens, at least 1
    first_s: list[float] = field(default_factory=list)  # from the grant to the first token; NaN: not known

    def add(
        self,
        replica: str,
        model: str,
        adapter: str,
        *,
        granted_s: float,
        run_s: float,
        tokens: tuple[float, float],
        first_s: float = math.nan,
    ) -> None:
        """Add a request, unless it cannot be; `tokens` are fresh prompt tokens and completion tokens."""
        fresh, completion = tokens
        numbers = (granted_s, run_s, fresh, completion)
        if not all(map(math.isfinite, numbers)) or run_s <= 0 or fresh < 0 or completion < 1:
            return
        self.replica.append(replica)
        self.model.append(model)
        self.adapter.append(adapter)
        self.granted_s.append(granted_s)
        self.run_s.append(run_s)
        self.fresh.append(fresh)
        self.completion.append(completion)
        self.first_s.append(first_s if 0 < first_s <= run_s else math.nan)

    def __len__(self) -> int:
        return len(self.replica)


@dataclass(frozen=True, slots=True)
class Came:
    """How a model came at one host after one other model went, as a running mean."""

    model: str  # base model
    way: str  # by which it came last, as engines name it
    took_s: float


@dataclass(frozen=True, slots=True)
class Added:
    """An adapter that was added at run time."""

    tenant: str  # "": everybody's
    name: str
    base: str
    rank: int | None  # None: not known
    size_bytes: int


@dataclass(slots=True)
class ModelSeen:
    """What was asked of a model in some time, and when its answers began."""

    requests: int = 0
    first_s: list[float] = field(
        default_factory=list
    )  # arrival to first token; of streams; infinite: none came


@dataclass(slots=True)
class PoolSeen:
    """What a pool's hosts did in some time, by hour since the Unix epoch."""

    hosts: int = 1
    engine_s: dict[int, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # that engines ran, all hosts
    switch_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # that requests waited for


@dataclass(frozen=True, slots=True)
class Observed:
    """What was measured between two Unix times."""

    from_s: float
    to_s: float
    models: Mapping[str, ModelSeen]  # by the fleet's name
    pools: Mapping[str, PoolSeen]

    @property
    def length_s(self) -> float:
        """How long that was, at least a second."""
        return max(1.0, self.to_s - self.from_s)
