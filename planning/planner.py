"""From demand, models and machines to a plan that was simulated. Pure but for the time that it takes.

A plan is searched (`search`), then simulated (`forecast`). Models that miss their objectives in the
simulation bind the next search: they must not take turns, or their load counts more. What is shown has been
simulated; where no search leads to all objectives, the answer names who misses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fleet.types import Isolation, Strategy
from planning.forecast import LEAST_S, MOST_REQUESTS, Forecast, Forecaster, Missed
from planning.loads import CostOf
from planning.search import Found, Search
from planning.sharing import Rules, Sharing, Sharings
from planning.units import NoPlanError, Unit, units_of
from planning.values import Demand, Kind, Machine, Model, Today
from planning.words import counted

ATTEMPTS, ATTEMPTS_OF_MANY = 10, 2
COUNTS_MORE = 1.5  # load of a model that misses its objective though it is awake, at each further attempt
GROWTHS = (1.25, 1.5, 2.0, 3.0, 5.0)  # at which headroom is looked at
FEW_UNITS = 120  # with more a plan is simulated once, with fewer requests, and some questions are not asked
MOST_OF_MANY = 400
SETS_WITH_HEADROOM, SETS_OF_MANY = 12, 2  # the busiest
ADAPTERS_ONLY = frozenset({Strategy.MULTI_LORA, Strategy.REPLICA_PER_MODEL})
WITH_TURNS = ADAPTERS_ONLY | {Strategy.MODEL_MESH, Strategy.SWAP}
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Input:
    """What a plan is made from."""

    demand: Demand
    models: tuple[Model, ...]
    machines: tuple[Machine, ...]
    cost_of: CostOf
    today: Today | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A division that was simulated."""

    found: Found
    forecasts: tuple[Forecast, ...]  # of each of its sets

    @property
    def missed(self) -> dict[str, Missed]:
        """Models that miss their objective."""
        return {name: how for forecast in self.forecasts for name, how in forecast.misses().items()}

    @property
    def p99_s(self) -> float:
        """The p99 of the first token, averaged over models by their requests."""
        seen = [one for forecast in self.forecasts for run in forecast.runs for one in run.models.values()]
        seen = [one for one in seen if not np.isnan(one.p99_s)]
        whole = sum(one.requests for one in seen)
        return sum(one.p99_s * one.requests for one in seen) / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A division that was not taken."""

    devices: int | None  # None: there are too few
    why: str


@dataclass(frozen=True, slots=True)
class Headroom:
    """How much more of a set's demand it bears."""

    models: tuple[str, ...]
    holds: float  # growth at which all objectives are met still
    breaks: float | None  # the first growth tried at which one is not, 1: as it is; None: none was found
    first: str = ""  # the model that misses first, and how
    by_load: bool = False  # no objective says where it breaks: its devices would be full


@dataclass(frozen=True, slots=True)
class Planned:
    """The answer."""

    given: Input
    rules: Rules  # with which the plan was found
    plan: Checked
    second: Checked | None
    ways: Mapping[str, tuple[int, float | None] | str]  # name -> devices and money, or why not
    attempts: tuple[Attempt, ...]
    headroom: tuple[Headroom, ...]
    changes: tuple[str, ...]  # what would change the answer, each one sentence

    @property
    def meets(self) -> bool:
        """Whether all objectives are met in the simulation."""
        return not self.plan.missed


def plan(
    given: Input,
    rules: Rules | None = None,
    *,
    seeds: int = 3,
    most: int = MOST_REQUESTS,
    tell: Tell = lambda text: None,
) -> Planned:
    """Make a plan; `most` requests are simulated at once, `tell` hears what is being done.

    Raises `NoPlanError`.
    """
    rules = rules or Rules()
    units = units_of(given.models, given.demand)
    Search(units, Sharings(given.machines, given.cost_of, given.demand.duration_s, rules)).require_places()
    _check_objectives(units, given)
    forecaster = Forecaster(given.demand, seeds, most)
    if len(units) > FEW_UNITS:
        forecaster = Forecaster(given.demand, 1, min(most, MOST_OF_MANY), LEAST_S)
    checked, final, attempts = _search(given, units, rules, forecaster, tell)
    is_large = len(units) > FEW_UNITS
    second = None if is_large else _second(given, units, final, checked, forecaster, tell)
    tell("headroom")
    busiest = sorted(checked.found.sharings, key=lambda sharing: sharing.busy, reverse=True)
    count = SETS_OF_MANY if is_large else SETS_WITH_HEADROOM
    headroom = tuple(_headroom(sharing, forecaster) for sharing in busiest[:count])
    tell("other ways")
    ways = _ways(given, units, final)
    changes = () if is_large else tuple(_changes(given, final, checked.found))
    return Planned(given, final, checked, second, ways, tuple(attempts), headroom, changes)


def _find(given: Input, units: Sequence[Unit], rules: Rules) -> Found:
    sharings = Sharings(given.machines, given.cost_of, given.demand.duration_s, rules)
    return Search(units, sharings, given.today).best()


def _search(
    given: Input, units: Sequence[Unit], rules: Rules, forecaster: Forecaster, tell: Tell
) -> tuple[Checked, Rules, list[Attempt]]:
    """Search and simulate until all objectives are met, or searches lead to nothing new."""
    attempts: list[Attempt] = []
    best: tuple[Checked, Rules] | None = None
    bound, fewest, most = 0, 0, ATTEMPTS if len(units) <= FEW_UNITS else ATTEMPTS_OF_MANY
    for number in range(most):
        tell(f"search {number + 1}")
        try:
            found = _find(given, units, rules)
            bound = bound or found.bound  # of the loads as they are
            found = replace(found, bound=bound, is_exact=found.is_exact and not attempts)
        except NoPlanError as error:
            if best is None:
                raise
            attempts.append(Attempt(None, f"more devices than there are would be needed: {error}"))
            break
        tell(f"simulation {number + 1}: {counted(found.devices, 'device')}")
        checked = Checked(found, tuple(forecaster.of(sharing) for sharing in found.sharings))
        missed = checked.missed
        if best is None or len(missed) < fewest:
            best, fewest = (checked, rules), len(missed)
        if not missed:
            break
        attempts.append(Attempt(found.devices, _said(missed)))
        rules = replace(_tightened(rules, checked, missed.keys()), wary=number + 2 >= most)  # the last one
    if best is None:
        raise AssertionError("a search gives a division or says why not")
    return best[0], best[1], attempts


def _tightened(rules: Rules, checked: Checked, late: Collection[str]) -> Rules:
    """Bind the next search by who missed, in each set by the busiest: others may miss for its sake.

    If it took turns it stays awake; if it was awake its load counts more, so that it gets more room.
    """
    awake, spare = set(rules.awake), dict(rules.spare)
    for sharing in checked.found.sharings:
        missed = [load for load in sharing.loads if not {*load.unit.models}.isdisjoint(late)]
        if not missed:
            continue
        turning = [load for load in missed if load.unit.base.name not in sharing.pinned]
        if sharing.takes_turns and turning:
            awake |= {*max(turning, key=lambda load: load.active).unit.models}
        else:
            busiest = max(sharing.loads, key=lambda load: load.load)
            for name in busiest.unit.models:
                spare[name] = spare.get(name, 1.0) * COUNTS_MORE
    return replace(rules, awake=frozenset(awake), spare=tuple(sorted(spare.items())))


def _said(missed: Mapping[str, Missed]) -> str:
    """Say in a clause who misses most."""
    name, how = min(missed.items(), key=lambda item: item[1].in_time)
    others = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    return f"`{name}`{others}: {how}"


def _second(
    given: Input, units: Sequence[Unit], rules: Rules, first: Checked, forecaster: Forecaster, tell: Tell
) -> Checked | None:
    """Return the best plan that does without something that the first one uses."""
    used = {sharing.strategy for sharing in first.found.sharings}
    found = []
    for without in ({Strategy.MODEL_MESH, Strategy.SWAP}, {Strategy.MIG}):
        if not used & without:
            continue
        try:
            found.append(_find(given, units, replace(rules, strategies=rules.strategies - without)))
        except NoPlanError:
            continue
    if not found:
        return None
    tell("simulation of the second plan")
    second = min(found, key=lambda one: one.score)
    return Checked(second, tuple(forecaster.of(sharing) for sharing in second.sharings))


def _headroom(sharing: Sharing, forecaster: Forecaster) -> Headroom:
    models = tuple(name for unit in sharing.units for name in unit.models)
    if all(demand.ttft_s is None for load in sharing.loads for demand in load.unit.demands):
        full = 1.0 / max(sharing.busy, 1e-9)
        return Headroom(models, min(full, GROWTHS[-1]), full if full < GROWTHS[-1] else None, by_load=True)
    holds = 1.0
    for growth in (1.0, *GROWTHS):
        missed = forecaster.of(sharing, growth=growth, seeds=None if growth == 1.0 else 1).misses()
        if missed:
            return Headroom(models, holds, growth, _said(missed))
        holds = growth
    return Headroom(models, holds, None)


# -- what else could be -----------------------------------------------------------------------------------


def _ways(given: Input, units: Sequence[Unit], rules: Rules) -> dict[str, tuple[int, float | None] | str]:
    """Count devices of the plan's alternatives, all by the same rules; not simulated."""
    found: dict[str, tuple[int, float | None] | str] = {}
    apart = [
        Unit(
            unit.base,
            tuple(a for a in unit.adapters if a.name == demand.model),
            (demand,),
            f"model {demand.model}",
        )
        for unit in units
        for demand in unit.demands
    ]
    for name, some, strategies in (
        ("one fleet a model", apart, ADAPTERS_ONLY),
        ("adapters share their base", units, ADAPTERS_ONLY),
        ("adapters, and whole models by turns", units, WITH_TURNS),
        ("the same, and slices", units, frozenset(Strategy)),
    ):
        unlimited = replace(given, machines=tuple(replace(m, count=None) for m in given.machines), today=None)
        try:
            one = _find(unlimited, some, replace(rules, strategies=rules.strategies & strategies))
            found[name] = one.devices, one.money_per_hour
        except NoPlanError as error:
            found[name] = str(error)
    return found


def _changes(given: Input, rules: Rules, found: Found) -> list[str]:
    """Say which other demands would need fewer devices."""
    demand, said = given.demand, []
    questions = (
        ("without objectives", replace(demand, models=tuple(replace(d, ttft_s=None) for d in demand.models))),
        (
            "if nobody were dedicated and there were no groups",
            replace(
                demand, models=tuple(replace(d, isolation=Isolation.SHARED, group="") for d in demand.models)
            ),
        ),
    )
    for question, other in questions:
        if other != demand:
            said.append(_change(question, replace(given, demand=other), rules, found))
    if any(model.could_be for model in given.models):
        said.append(
            _change("if the whole models that could be adapters were", _extracted(given), rules, found)
        )
    half = _find_devices(replace(given, demand=_scaled(demand, 0.5)), rules)
    twice = _find_devices(replace(given, demand=_scaled(demand, 2.0)), rules)
    said.append(f"with half of the demand: {half}; with twice as much: {twice}")
    return said


def _change(question: str, given: Input, rules: Rules, found: Found) -> str:
    devices = _find_devices(given, rules)
    same = devices == counted(found.devices, "device")
    return f"{question}: {'the same number of devices' if same else devices}"


def _find_devices(given: Input, rules: Rules) -> str:
    given = replace(given, machines=tuple(replace(machine, count=None) for machine in given.machines))
    try:
        return counted(_find(given, units_of(given.models, given.demand), rules).devices, "device")
    except NoPlanError as error:
        return str(error)


def _scaled(demand: Demand, factor: float) -> Demand:
    models = tuple(
        replace(one, requests=one.requests * factor, hourly=tuple(count * factor for count in one.hourly))
        for one in demand.models
    )
    return replace(demand, models=models)


def _extracted(given: Input) -> Input:
    """Return the input with whole models as the adapters that they could be; not those that carry some."""
    carrying = {model.base or model.could_be for model in given.models}
    models = tuple(
        replace(m, kind=Kind.ADAPTER, base=m.could_be, rank=m.could_be_rank, weight_bytes=0)
        if m.could_be and m.name not in carrying
        else m
        for m in given.models
    )
    return replace(given, models=models)


def _check_objectives(units: Sequence[Unit], given: Input) -> None:
    """A prompt alone on the fastest device must be within the objective. Raises `NoPlanError`."""
    for unit in units:
        for demand in unit.demands:
            if demand.ttft_s is None:
                continue
            costs = [given.cost_of(unit.base, machine.device) for machine in given.machines]
            least_s = min(cost.prefill_s(demand.prompt.p99 * (1 - demand.cached)) for cost in costs)
            if least_s > demand.ttft_s:
                raise NoPlanError(
                    f"`{demand.model}` is to have its first token within {demand.ttft_s:g} s, and one "
                    "prompt in a "
                    f"hundred takes {least_s:.2g} s on an idle device ({demand.prompt.p99:.0f} tokens): "
                    "ask for "
                    f"{least_s * 1.2:.2g} s or more, for shorter prompts, or name a faster device"
                )
