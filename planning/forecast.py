"""What would tenants see? A division, simulated over a trace with the gateway's own decisions. Runs no model.

Sets of units share no device, so each is simulated by itself: its pool, its engines with the costs that the
plan goes by, its part of the trace. The first run is the busiest part of the recorded trace, where there is
one; the others are made from the demand of the same hours, each with another seed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fleet.types import Adapter, BaseModel, Caps, Fleet, GatewaySettings, Pool, Strategy, Tenant
from planning.loads import HOST_PLACES, MOST_SEQUENCES, Load
from planning.pools import base_models_of, pool_of
from planning.sharing import Sharing
from planning.traces import MAX_REQUESTS, busiest, grown, synthetic
from planning.values import HOUR_S, Demand, ModelDemand, ServingCost, Trace
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Call, Driver
from simulation.gateway import GatewayRouter

MOST_REQUESTS = 4_000  # simulated at once: some seconds on a slow core
LEAST_S, MOST_S = 900.0, HOUR_S  # of a run
WARMUP = 0.1  # part of a run whose requests do not count: models come for the first time
PROMISED = 0.99  # part of the requests within the objective, for it to be met
BY_CHANCE = 1.6  # standard deviations: of few requests, some more may be late by chance
SWEPT_S = 1.0
PATIENCE_S = 600.0  # a request waits so long
UNCAPPED = 10**9
ALL = "all"  # the tenant of a model that names none
POOL = "pool"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the requests of one model, or one tenant, saw in one run."""

    requests: int
    p50_s: float  # first token; of those that had one
    p99_s: float
    in_time: float  # part with a first token within the objective; without one, that were answered
    refused: float  # part
    tokens_per_s: float  # of completions


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated run of one set."""

    models: dict[str, Seen]
    tenants: dict[str, Seen]
    busy: float  # part of the devices' time in which engines step
    switching: float  # part of the hosts' time that switches take
    switches_per_h: float  # of each host
    length_s: float


@dataclass(frozen=True, slots=True)
class Missed:
    """How far a model is from its objective."""

    objective_s: float
    in_time: float  # part of its requests
    p99_s: float | None  # None: no request was answered

    def __str__(self) -> str:
        said = f"{100 * self.in_time:.1f} % of its first tokens within {self.objective_s:g} s"
        return f"{said}, {'none came' if self.p99_s is None else f'p99 {self.p99_s:.2g} s'}"


@dataclass(frozen=True, slots=True)
class Forecast:
    """All runs of one set, one for each seed."""

    sharing: Sharing
    runs: tuple[Run, ...]

    def misses(self) -> dict[str, Missed]:
        """Return models that miss their objective in all runs together."""
        found = {}
        for demand in (d for load in self.sharing.loads for d in load.unit.demands):
            seen = [run.models[demand.model] for run in self.runs if demand.model in run.models]
            requests = sum(one.requests for one in seen)
            late = sum(one.requests * (1 - one.in_time) for one in seen)
            if demand.ttft_s is not None and is_missed(late, requests):
                p99s = [one.p99_s for one in seen if not math.isnan(one.p99_s)]
                p99_s = float(np.mean(p99s)) if p99s else None
                found[demand.model] = Missed(demand.ttft_s, 1 - late / requests, p99_s)
        return found


def is_missed(late: float, requests: float) -> bool:
    """Whether more first tokens are late than the promise allows, by more than chance."""
    allowed = (1 - PROMISED) * requests
    return late > allowed + BY_CHANCE * math.sqrt(allowed)


class _Router(GatewayRouter):
    """Sweeps once a second, not four times: that takes most of the time, and finds little to do."""

    _swept_s = 0.0
    warm_s = 0.0  # switches count from here on: models have come for the first time
    _before: tuple[float, int] | None = None

    @property
    def switched(self) -> tuple[float, int]:
        """The time that switches took once all were warm, and how many there were."""
        seconds, count = self._switched()
        before_s, before = self._before or (seconds, count)
        return seconds - before_s, count - before

    def _switched(self) -> tuple[float, int]:
        turns = self.turns.get(POOL)
        return (turns.switching_s, turns.switch_count) if turns is not None else (0.0, 0)

    def tick(self, now: float) -> None:
        """Sweep, where that is due; turns are decided as often as in the gateway."""
        if self._before is None and now >= self.warm_s:
            self._before = self._switched()
        if now - self._swept_s >= SWEPT_S:
            self._swept_s = now
            super().tick(now)
        else:
            self.turn(now)


class Forecaster:
    """Simulates sets of units, each set and growth once."""

    def __init__(
        self, demand: Demand, seeds: int = 3, most: int = MOST_REQUESTS, most_s: float = MOST_S
    ) -> None:
        """A run has at most so many requests, and is at most so long."""
        self._demand, self._seeds, self._most, self._most_s = demand, seeds, most, most_s
        self._found: dict[tuple[object, ...], Forecast] = {}

    def of(self, sharing: Sharing, *, growth: float = 1.0, seeds: int | None = None) -> Forecast:
        """Return what the requests of a set see; `growth` times as many come."""
        names = tuple(sorted((load.unit.name, load.cost.device) for load in sharing.loads))
        count = seeds or self._seeds
        turns = sharing.awake, sharing.pinned, sharing.switches
        key = names, sharing.strategy, sharing.hosts, turns, growth, count
        if key not in self._found:
            runs = tuple(self._run(sharing, seed, growth) for seed in range(count))
            self._found[key] = Forecast(sharing, runs)
        return self._found[key]

    def _run(self, sharing: Sharing, seed: int, growth: float) -> Run:
        demands = {d.model: d for load in sharing.loads for d in load.unit.demands}
        trace, length_s = self._trace(demands, seed, growth)
        return simulate(sharing, calls_of(trace, sharing), length_s, demands)

    def _trace(self, demands: dict[str, ModelDemand], seed: int, growth: float) -> tuple[Trace, float]:
        """Return the requests of a run, and for how long they come."""
        demand, recorded = self._demand, self._demand.trace
        mine = replace(demand, models=tuple(demands.values()))
        rate = (
            growth
            * max(sum(hour) for hour in zip(*(d.hourly for d in demands.values()), strict=True))
            / HOUR_S
        )
        wanted_s = self._most / max(rate, 1e-9)
        length_s = min(max(LEAST_S, min(wanted_s, self._most_s)), demand.duration_s)
        length_s = min(length_s, MAX_REQUESTS / 2 / max(rate, 1e-9))
        if recorded is not None and not seed:
            indexes = [i for i, name in enumerate(recorded.models) if name in demands]
            kept = np.isin(recorded.model, indexes)
            columns = (recorded.time_s, recorded.model, recorded.prompt, recorded.cached, recorded.completion)
            only = Trace(recorded.models, *(column[kept] for column in columns))  # type: ignore[arg-type]
            return _first(grown(busiest(only, length_s * growth), growth), self._most, length_s)
        hour = _busiest_hour(mine)
        made = synthetic(mine, seed=seed + 1, begin_s=hour * HOUR_S, duration_s=length_s, growth=growth)
        return _first(made, self._most, length_s)


def _first(trace: Trace, count: int, length_s: float) -> tuple[Trace, float]:
    """Cut a trace off after this number of requests; returns its length too."""
    if len(trace) <= count:
        return trace, length_s
    columns = (trace.time_s, trace.model, trace.prompt, trace.cached, trace.completion)
    return Trace(trace.models, *(column[:count] for column in columns)), float(trace.time_s[count])  # type: ignore[arg-type]


def _busiest_hour(demand: Demand) -> int:
    hours = [sum(hour) for hour in zip(*(one.hourly for one in demand.models), strict=True)]
    return int(np.argmax(hours)) if hours else 0


def calls_of(trace: Trace, sharing: Sharing) -> list[Call]:
    """Return a trace's requests as calls; a model's tenants ask in turn. Cached tokens need no computing."""
    owners: dict[str, tuple[str, str | None, tuple[str, ...]]] = {}
    for load in sharing.loads:
        adapters = {adapter.name for adapter in load.unit.adapters}
        for demand in load.unit.demands:
            adapter = demand.model if demand.model in adapters else None
            owners[demand.model] = load.unit.base.name, adapter, demand.tenants or (ALL,)
    calls = []
    columns = (trace.time_s, trace.model, trace.prompt, trace.cached, trace.completion)
    for number, (at_s, index, prompt, cached, completion) in enumerate(
        zip(*(c.tolist() for c in columns), strict=True)
    ):
        base, adapter, tenants = owners[trace.models[index]]
        tenant = tenants[number % len(tenants)]
        calls.append(
            Call(at_s, tenant, adapter, max(1, prompt - cached), max(1, completion), base_model=base)
        )
    return calls


def simulate(sharing: Sharing, calls: list[Call], length_s: float, demands: dict[str, ModelDemand]) -> Run:
    """Run the calls of one set; `length_s` is how long they come."""
    fleet = fleet_of(sharing)
    pool = fleet.pools[POOL]
    by_model = {load.unit.base.name: load for load in sharing.loads}
    engines, costs, devices = [], [], []
    for number, host in enumerate(pool.hosts):
        for model in host.base_models:
            engines.append(engine_settings(by_model[model], sharing))
            costs.append(step_costs(by_model[model].cost))
            devices.append(number)

    def switch_s(model: str, went: str | None) -> float:
        # A place is empty only as the run begins, and a fleet that serves has begun long before.
        return sharing.switches.between(by_model[model], by_model[went]) if went else 0.0

    router = _Router(fleet, switch_s)
    router.warm_s = WARMUP * length_s
    driver = Driver(engines, costs, router, devices=devices)
    driver.run(calls, until_s=length_s + PATIENCE_S + 60.0)
    whole_s = max(length_s, driver.now)
    switching_s, switches = router.switched
    warm_s = (whole_s - router.warm_s) * sharing.hosts
    return Run(
        _by(calls, lambda call: call.adapter or call.base_model, length_s, by_model, demands),
        _by(calls, lambda call: call.tenant, length_s, by_model, demands),
        sum(engine.totals.busy_s for engine in driver.engines) / whole_s / sharing.hosts,
        switching_s / warm_s,
        switches * HOUR_S / warm_s,
        length_s,
    )


def fleet_of(sharing: Sharing) -> Fleet:
    """Return a fleet of this pool alone, in which nothing but its queue bounds a tenant."""
    models = base_models_of([sharing])
    caps = Caps(max_concurrency=UNCAPPED, max_queued=UNCAPPED, queue_timeout_s=PATIENCE_S)
    owned: dict[str, set[str]] = defaultdict(set)
    adapters: dict[str, Adapter] = {}
    for load in sharing.loads:
        for adapter in load.unit.adapters:
            adapters[adapter.name] = Adapter(adapter.name, f"/{adapter.name}", load.unit.base.name)
        for demand in load.unit.demands:
            for tenant in demand.tenants or (ALL,):
                owned[tenant].add(demand.model)
    tenants = {
        name: Tenant(name, frozenset(), {m: m for m in sorted(of)}, caps=caps) for name, of in owned.items()
    }
    pool = pool_of(sharing, POOL, tuple(tenants))
    if pool.strategy is Strategy.MIG:
        pool = _as_whole_devices(pool, models)
    return Fleet(models, adapters, tenants, {POOL: pool}, GatewaySettings())


def _as_whole_devices(pool: Pool, models: dict[str, BaseModel]) -> Pool:
    """A slice is a device of its own, with the costs of a slice."""
    serves = any(model.serves_adapters for model in models.values())
    return replace(pool, strategy=Strategy.MULTI_LORA if serves else Strategy.REPLICA_PER_MODEL)


def engine_settings(load: Load, sharing: Sharing) -> EngineSettings:
    """Return the engine of a unit."""
    places = max(load.slots, min(HOST_PLACES, len(load.unit.adapters)))
    return EngineSettings(load.slots, places, MOST_SEQUENCES, kv_tokens=max(1, sharing.cache_tokens(load)))


def step_costs(cost: ServingCost) -> StepCosts:
    """Return the costs of a step in the simulator's unit, milliseconds."""
    return StepCosts(
        base_ms=1000 * cost.base_s.value,
        sequence_ms=1000 * cost.sequence_s.value,
        adapter_ms=1000 * cost.adapter_s.value,
        sequence_adapter_ms=1000 * cost.sequence_adapter_s.value,
        slot_ms=1000 * cost.slot_s.value,
        prefill_token_ms=1000 * cost.prefill_token_s.value,
        adapter_token_ms=1000 * cost.adapter_token_s.value,
        gpu_load_ms=1000 * cost.slot_load_s.value,
        disk_load_ms=1000 * cost.disk_load_s.value,
    )


def _by(
    calls: Sequence[Call],
    key: Callable[[Call], str],
    length_s: float,
    loads: dict[str, Load],
    demands: dict[str, ModelDemand],
) -> dict[str, Seen]:
    """Sum up what the calls of each key saw."""
    groups: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.at_s >= WARMUP * length_s:
            groups[key(call)].append(call)
    return {name: _seen(group, length_s * (1 - WARMUP), loads, demands) for name, group in groups.items()}


def _seen(
    calls: Sequence[Call], length_s: float, loads: dict[str, Load], demands: dict[str, ModelDemand]
) -> Seen:
    first = []
    in_time = 0
    for call in calls:
        if call.ttft_s is None:
            continue
        first_s = call.ttft_s + loads[call.base_model].cost.request_s.value
        objective_s = demands[call.adapter or call.base_model].ttft_s
        first.append(first_s)
        in_time += objective_s is None or first_s <= objective_s
    tokens = sum(call.completion_tokens for call in calls if call.finished_s is not None)
    return Seen(
        len(calls),
        float(np.percentile(first, 50)) if first else math.nan,
        float(np.percentile(first, 99)) if first else math.nan,
        in_time / len(calls),
        sum(call.refused_s is not None for call in calls) / len(calls),
        tokens / length_s,
    )
