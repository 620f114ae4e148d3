"""What must stay together, and what must stay apart? Models become units; a unit runs in one engine. Pure.

A unit is a whole model with its adapters, as far as one circle of isolation asks for them: a dedicated
tenant's adapter has a copy of its base model that nobody else uses. Units of different circles share no
device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.types import Isolation
from planning.values import DAY_S, Demand, Kind, Model, ModelDemand, Spread

OPEN = ""  # the circle of all who need no isolation


class NoPlanError(Exception):
    """No plan can be made from what was given; says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A whole model, the adapters on it, and who asks for them."""

    base: Model
    adapters: tuple[Model, ...]
    demands: tuple[ModelDemand, ...]  # of the base model, where it is asked for, and of the adapters
    circle: str  # of isolation: `OPEN`, or whose

    @property
    def name(self) -> str:
        """The base model, and whose copy of it this is where it is not everybody's."""
        return self.base.name if self.circle == OPEN else f"{self.base.name} for {self.circle}"

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all that it serves."""
        return tuple(demand.model for demand in self.demands)

    @property
    def tenants(self) -> tuple[str, ...]:
        """Who asks for something of it."""
        return tuple(dict.fromkeys(name for demand in self.demands for name in demand.tenants))

    @property
    def ttft_s(self) -> float | None:
        """The tightest objective of what it serves."""
        return min((d.ttft_s for d in self.demands if d.ttft_s is not None), default=None)

    @property
    def most_rank(self) -> int:
        """The largest rank of its adapters."""
        return max((adapter.rank for adapter in self.adapters), default=0)


def circle_of(demand: ModelDemand) -> str:
    """Return the circle within which a model may share devices. Raises `NoPlanError` where it is in two."""
    if demand.isolation is not Isolation.DEDICATED:
        return f"group {demand.group}" if demand.group else OPEN
    if len(demand.tenants) > 1:
        raise NoPlanError(
            f"`{demand.model}` is dedicated, and {' and '.join(demand.tenants)} ask for it: a dedicated "
            "model "
            "has one tenant; give each a model of its own, or drop `dedicated`"
        )
    return f"tenant {demand.tenants[0]}" if demand.tenants else f"model {demand.model}"


def units_of(models: Sequence[Model], demand: Demand) -> tuple[Unit, ...]:
    """Group models into units. Raises `NoPlanError`."""
    known = {model.name: model for model in models}
    _check_known(known, demand)
    _check_isolation(demand.models)
    found: dict[tuple[str, str], list[ModelDemand]] = defaultdict(list)
    for one in (*demand.models, *_unnamed(models, demand)):
        model = known[one.model]
        counted = one if one.requests > 0 else idle(one, demand)
        found[model.base or model.name, circle_of(one)].append(counted)
    return tuple(
        Unit(
            known[base],
            tuple(known[d.model] for d in demands if known[d.model].kind is Kind.ADAPTER),
            tuple(demands),
            circle,
        )
        for (base, circle), demands in sorted(found.items())
    )


def idle(one: ModelDemand, demand: Demand) -> ModelDemand:
    """Return the demand with which a model counts that nobody asked for: one request a day."""
    requests = demand.duration_s / DAY_S
    hours = max(1, demand.hours)
    return replace(
        one,
        requests=requests,
        hourly=(requests / hours,) * hours,
        prompt=one.prompt if one.prompt.mean else Spread(512, 512, 512, 512, 512),
        completion=one.completion if one.completion.mean else Spread(128, 128, 128, 128, 128),
    )


def _unnamed(models: Sequence[Model], demand: Demand) -> list[ModelDemand]:
    """Models of which the demand says nothing; those that only carry adapters need none."""
    named = {one.model for one in demand.models}
    carrying = {model.base for model in models}
    nothing = Spread(0, 0, 0, 0, 0)
    return [
        ModelDemand(model.name, (), 0.0, (), nothing, nothing)
        for model in models
        if model.name not in named and model.name not in carrying
    ]


def _check_known(known: Mapping[str, Model], demand: Demand) -> None:
    """Every model that is asked for is described, and so is what adapters change."""
    for one in demand.models:
        if one.model not in known:
            raise NoPlanError(
                f"`{one.model}` is asked for, and no model is called so: describe it, or name it as it is"
            )
    for model in known.values():
        _check_base(model, known)
    if not any(one.requests > 0 for one in demand.models):
        raise NoPlanError("nobody asks for any model: there is nothing to plan for")


def _check_base(model: Model, known: Mapping[str, Model]) -> None:
    """What a model changes, or could change, is a whole model other than itself."""
    is_adapter = model.kind is Kind.ADAPTER
    base = model.base if is_adapter else model.could_be
    if not base and not is_adapter:
        return
    said = f"`{model.name}` {'is' if is_adapter else 'could be'} an adapter of `{base}`"
    if base not in known:
        raise NoPlanError(f"{said}, which is not described: describe it too")
    if known[base].kind is Kind.ADAPTER or base == model.name:
        raise NoPlanError(f"{said}, which is no other whole model: name the whole model that it changes")


def _check_isolation(demands: Iterable[ModelDemand]) -> None:
    """A tenant is dedicated with all of its models, or with none: the fleet has isolation by tenant."""
    circles: dict[str, dict[bool, str]] = defaultdict(dict)
    for one in demands:
        for tenant in one.tenants:
            circles[tenant].setdefault(one.isolation is Isolation.DEDICATED, one.model)
    for tenant, found in circles.items():
        if len(found) == 2:
            raise NoPlanError(
                f"tenant `{tenant}` is dedicated with `{found[True]}` and not with `{found[False]}`: a "
                "tenant "
                "shares with all of its models or with none; make it two tenants, or say the same of both"
            )
