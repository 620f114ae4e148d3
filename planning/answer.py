"""The answer of a plan as plain data: what `--json` prints, and what tables and the report show. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from planning.forecast import Forecast, Seen
from planning.loads import Load
from planning.placing import Placed, place_all
from planning.planner import Checked, Planned
from planning.reasons import served_as, why
from planning.sharing import Sharing
from planning.units import circle_of
from planning.values import DAY_S, HOUR_S, ModelDemand, Source
from planning.words import listed

Answer = dict[str, Any]


def answer_of(planned: Planned) -> Answer:
    """Return the whole answer."""
    given, plan = planned.given, planned.plan
    placed = place_all(plan.found.sharings)
    now = given.today.devices if given.today is not None else None
    return {
        "source": given.demand.source,
        "duration_s": given.demand.duration_s,
        "meets_objectives": planned.meets,
        "devices": {"now": now, "planned": plan.found.devices},
        "money_per_hour": plan.found.money_per_hour,
        "at_least": plan.found.bound,
        "is_best": plan.found.is_exact,
        "gap": plan.found.gap,
        "moves": plan.found.score[2],
        "ways": [_way(name, way) for name, way in planned.ways.items()],
        "models": [
            _model(planned, one, forecast, load, demand)
            for one, forecast in zip(placed, plan.forecasts, strict=True)
            for load in one.sharing.loads
            for demand in load.unit.demands
        ],
        "tenants": _tenants(plan.forecasts),
        "pools": [_pool(one, forecast) for one, forecast in zip(placed, plan.forecasts, strict=True)],
        "second": None if planned.second is None else _second(planned.second),
        "attempts": [asdict(attempt) for attempt in planned.attempts],
        "headroom": [asdict(room) for room in planned.headroom],
        "would_change": list(planned.changes),
        "not_known": _not_known(planned),
    }


def _way(name: str, way: tuple[int, float | None] | str) -> Answer:
    if isinstance(way, str):
        return {"way": name, "devices": None, "money_per_hour": None, "why_not": way}
    return {"way": name, "devices": way[0], "money_per_hour": way[1], "why_not": ""}


def _model(planned: Planned, one: Placed, forecast: Forecast, load: Load, demand: ModelDemand) -> Answer:
    missed = forecast.misses().get(demand.model)
    second = _seen_in(planned.second, demand.model) if planned.second is not None else []
    return {
        "model": demand.model,
        "tenants": list(demand.tenants),
        "pool": one.name,
        "served": served_as(one.sharing, load, demand.model),
        "why": why(one.sharing, load, demand.model, planned.rules),
        "requests_per_day": demand.requests / planned.given.demand.duration_s * DAY_S,
        "objective_s": demand.ttft_s,
        "missed": None if missed is None else str(missed),
        "costs_from": _source(load),
        **_figures([run.models[demand.model] for run in forecast.runs if demand.model in run.models]),
        "in_the_second_plan": _figures(second) if second else None,
    }


def _seen_in(checked: Checked | None, model: str) -> list[Seen]:
    forecasts = checked.forecasts if checked is not None else ()
    return [run.models[model] for forecast in forecasts for run in forecast.runs if model in run.models]


def _figures(seen: Sequence[Seen]) -> Answer:
    """Return the mean of each figure, and its least and most over the runs; None where nothing was seen."""
    whole = sum(one.requests for one in seen)
    return {
        "simulated": whole,
        "first_token_p50_s": _spread(one.p50_s for one in seen),
        "first_token_p99_s": _spread(one.p99_s for one in seen),
        "in_time": sum(one.in_time * one.requests for one in seen) / whole if whole else None,
        "refused": sum(one.refused * one.requests for one in seen) / whole if whole else None,
        "tokens_per_s": _spread(one.tokens_per_s for one in seen),
    }


def _spread(values: Iterable[float]) -> list[float] | None:
    """Return mean, least and most."""
    known = [value for value in values if not math.isnan(value)]
    return [sum(known) / len(known), min(known), max(known)] if known else None


def _tenants(forecasts: Sequence[Forecast]) -> list[Answer]:
    names = sorted({name for forecast in forecasts for run in forecast.runs for name in run.tenants})
    found = []
    for name in names:
        seen = [run.tenants[name] for f in forecasts for run in f.runs if name in run.tenants]
        found.append({"tenant": name, **_figures(seen)})
    return found


def _pool(one: Placed, forecast: Forecast) -> Answer:
    sharing, runs = one.sharing, forecast.runs
    return {
        "pool": one.name,
        "strategy": sharing.strategy.value,
        "models": [load.unit.base.name for load in sharing.loads],
        "whose": sharing.circle,
        "hosts": sharing.hosts,
        "awake": sharing.awake,
        "always_awake": list(sharing.pinned) if sharing.takes_turns else [],
        "device": sharing.machine.device.kind,
        "profile": sharing.profile.name if sharing.profile is not None else None,
        "places": [asdict(place) for place in one.places],
        "busy": _spread(run.busy for run in runs),
        "switching": _spread(run.switching for run in runs),
        "switches_per_h": _spread(run.switches_per_h for run in runs),
        "simulated_s": runs[0].length_s if runs else 0.0,
        "memory": _memory(sharing),
        "hours": _hours(sharing),
    }


def _memory(sharing: Sharing) -> Answer:
    """Return what is on one device while the largest are awake, and what sleeps in the host's memory."""
    largest = sorted(sharing.loads, key=lambda load: load.need_bytes, reverse=True)
    stay = [load for load in largest if load.unit.base.name in sharing.pinned]
    awake = [*stay, *(load for load in largest if load not in stay)][: sharing.awake]
    return {
        "device_bytes": sharing.memory_bytes,
        "awake": [_held(load, sharing) for load in awake],
        "asleep_bytes": sum(load.weight_bytes for load in sharing.loads if load not in awake),
    }


def _held(load: Load, sharing: Sharing) -> Answer:
    per_token = load.unit.base.kv_bytes_per_token // load.devices
    planned = load.kv_tokens * per_token
    return {
        "model": load.unit.name,
        "weights_bytes": load.weight_bytes,
        "cache_bytes": sharing.cache_tokens(load) * per_token,
        "other_bytes": load.need_bytes - load.weight_bytes - planned,
    }


def _hours(sharing: Sharing) -> list[float]:
    """Return how busy each device is, hour by hour, with full batches."""
    found: list[float] = []
    for load in sharing.loads:
        peak = load.rate_per_s * HOUR_S
        hours = [sum(hour) for hour in zip(*(one.hourly for one in load.unit.demands), strict=False)]
        part = [load.load * count / peak / sharing.hosts if peak else 0.0 for count in hours]
        found = [a + b for a, b in zip(found, part, strict=False)] if found else part
    return found


def _second(checked: Checked) -> Answer:
    return {
        "devices": checked.found.devices,
        "money_per_hour": checked.found.money_per_hour,
        "first_token_p99_s": checked.p99_s,
        "missed": {name: str(how) for name, how in checked.missed.items()},
        "strategies": sorted({sharing.strategy.value for sharing in checked.found.sharings}),
    }


def _source(load: Load) -> str:
    return str(load.cost.base_s.source)


def _not_known(planned: Planned) -> list[str]:
    """Say what the plan had to guess, each one sentence."""
    demand = planned.given.demand
    said = [*demand.notes, *_guessed_costs(planned)]
    if any(not one.requests for one in demand.models):
        said.append("models that nobody asked for are planned as if asked for once a day")
    if demand.trace is None:
        said.append("no single requests are recorded: arrivals are made, with the rates, bursts and lengths")
    if len({circle_of(one) for one in demand.models}) > 1:
        said.append("isolation is kept by devices; what machines, disks and networks share is not looked at")
    said.append("faults are not simulated: a pool on one device has no spare for one that fails")
    return said


def _loads(planned: Planned) -> list[Load]:
    return [load for sharing in planned.plan.found.sharings for load in sharing.loads]


def _guessed_costs(planned: Planned) -> list[str]:
    loads = _loads(planned)
    said = []
    computed = sorted({load.cost.device for load in loads if load.cost.base_s.source is Source.ROOFLINE})
    if computed:
        kinds = ", ".join(computed)
        said.append(f"no engine was measured on {kinds}: costs are computed (`tenantry plan calibrate`)")
    bare = [load.unit.base for load in loads if load.unit.adapters and not load.unit.base.slot_bytes_per_rank]
    if bare:
        names = listed([f"`{base.name}`" for base in bare], 3)
        said.append(f"what an adapter's slot takes is not known of {names}: counted as nothing")
    guessed = [f"`{load.unit.name}`" for load in loads if not load.cost.switches]
    if guessed:
        said.append(f"what a switch takes is not known of {listed(guessed, 3)}: no turns for these")
    return said
