"""The command `plan`: from demand, models and machines to a plan that was simulated. It changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import typer

from adapters.errors import AdapterError
from fleet import FleetError, read_fleet
from fleet.sources import SourceError, is_url, resolve
from fleet.types import Fleet, Strategy
from fleet.writer import write_fleet
from planning.answer import answer_of
from planning.costs import Measured, Switched, cost_of
from planning.fitting import measured_by, switched_by
from planning.fleets import added_models, today, with_added
from planning.page import page
from planning.placing import place_all
from planning.planner import Input, Planned, plan
from planning.reading.costs_file import read_costs
from planning.reading.machines import read_machines
from planning.reading.model_table import read_models
from planning.reading.models import fleet_models
from planning.reading.sources import Found
from planning.requests import DemandError
from planning.sharing import Rules
from planning.units import NoPlanError
from planning.values import Kind, Machine, Model
from planning.words import listed
from planning.writing import fleet_of
from tenantry.client import Answer
from tenantry.plan_inputs import found_demand
from tenantry.running import console

SPARED = ("mig", "model-mesh", "swap")  # strategies that a plan may do without


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command was asked for."""

    fleet: Fleet | None
    source: str | None
    over_s: float | None
    machines: str | None
    models: Path | None
    costs: Path | None
    rules: Rules
    seeds: int
    write: Path | None
    html: Path | None
    silent: bool


def rules_of(busy: float, switching: float, active: float, without: list[str]) -> Rules:
    """Return the rules of a plan. Raises `typer.BadParameter` for a strategy that it cannot do without."""
    unknown = [name for name in without if name not in SPARED]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!a} cannot be left out; there are {', '.join(SPARED)}")
    allowed = frozenset(strategy for strategy in Strategy if strategy.value not in without)
    return Rules(busy=busy / 100, switching=switching / 100, active=active, strategies=allowed)


def make(wish: Wish) -> Answer:
    """Make the plan, and write what was asked for. Raises `AdapterError` and `OSError`."""
    for path in filter(None, (wish.write, wish.html)):
        if not path.absolute().parent.is_dir():
            raise AdapterError(f"{path}: there is no folder {path.absolute().parent}; make it first")
    shown = console(stderr=True)
    try:
        found = found_demand(wish.source, wish.fleet, wish.over_s)
        found, models, notes = _models(wish, found)
        given = _input(wish, found, models)
        with shown.status("reading") as status:
            tell = (lambda text: None) if wish.silent else status.update
            planned = plan(given, wish.rules, seeds=wish.seeds, tell=tell)
        answer = answer_of(planned)
        answer["not_known"] += notes
        if wish.write is not None:
            answer["written"] = str(wish.write)
            answer["todo"] = _write(wish.write, planned, models, wish.fleet)
    except (DemandError, NoPlanError) as error:
        raise AdapterError(str(error)) from None
    if wish.html is not None:
        wish.html.write_text(page(answer), encoding="utf-8", errors="replace")
        answer["report"] = str(wish.html)
    return answer


def _models(wish: Wish, found: Found) -> tuple[Found, list[Model], list[str]]:
    """Return the demand as far as its models are known, the models, and what is not known of them.

    Those of the table count before the fleet's. Raises `NoPlanError` for a model whose files are not here.
    """
    told = _told(wish)
    if wish.fleet is None:
        return found, told, []
    read = fleet_models(wish.fleet, told)
    known = {model.name: model for model in read.models}
    for one in found.demand.models:
        if one.model in read.unread and one.model not in known:
            raise NoPlanError(f"{read.unread[one.model]}; or describe it in a table (--models)")
    if wish.source is not None:
        return found, [*read.models], [*read.notes]
    added = added_models(found.demand, found.added, known)
    demand = with_added(found.demand, wish.fleet, added)
    gone = [one.model for one in demand.models if one.model not in {*known, *(model.name for model in added)}]
    demand = replace(demand, models=tuple(one for one in demand.models if one.model not in gone))
    notes = [*read.notes]
    if gone:
        notes.append(f"left out, since nothing is known of them: {listed(gone)}; --models can describe them")
    return replace(found, demand=demand), [*read.models, *added], notes


def _told(wish: Wish) -> list[Model]:
    """Return the models of the table; what is to be written has sources that a fleet file takes."""
    if wish.models is None:
        return []
    told = read_models(wish.models)
    if wish.write is None:
        return told
    declared = {*wish.fleet.base_models, *wish.fleet.adapters} if wish.fleet is not None else set()
    return [one if one.name in declared else _sourced(one, wish.models) for one in told]


def _sourced(model: Model, table: Path) -> Model:
    """Return a model with its whole source: a folder is relative to the table. Raises `NoPlanError`."""
    where = f"{table}: `{model.name}` cannot be written"
    if not model.source:
        raise NoPlanError(f"{where}: name a folder or an address as its `source`")
    try:
        source = resolve(model.source, folder=table.absolute().parent, env=os.environ)
    except SourceError as error:
        raise NoPlanError(f"{where}: its source {error}; {error.remedy}") from None
    if model.kind is Kind.ADAPTER and not source.is_folder and not is_url(source.text):
        raise NoPlanError(f"{where}: its source `{source.text}` is no address; write hf://{source.text}")
    return replace(model, source=source.text)


def _input(wish: Wish, found: Found, models: list[Model]) -> Input:
    if not models:
        raise NoPlanError("no model is described: name a fleet file, or a table of models with --models")
    calibrated = read_costs(wish.costs) if wish.costs is not None else []
    measured, switched = measured_here(found, models)
    machines: list[Machine] = read_machines(wish.machines)
    now = today(wish.fleet) if wish.fleet is not None else None
    costs = partial(cost_of, measured=[*calibrated, *measured], switched=switched)
    return Input(found.demand, tuple(models), tuple(machines), costs, now)


def measured_here(found: Found, models: list[Model]) -> tuple[list[Measured], list[Switched]]:
    """Return what the engines of this machine took: for requests, and for switches.

    Nothing where this machine has no GPU that is known: it is not told then which device served them.
    """
    if found.served is None:
        return [], []
    try:
        (here,) = read_machines(None)
    except DemandError:
        return [], []
    source = found.demand.source
    switched = switched_by(found.came, models, here.device, source)
    return measured_by(found.served, models, here.device, source), switched


def _write(path: Path, planned: Planned, models: list[Model], now: Fleet | None) -> list[str]:
    """Write the fleet of a plan, and check it as `tenantry check` does. Raises `NoPlanError`."""
    written = fleet_of(place_all(planned.plan.found.sharings), models, now)
    path.write_text(write_fleet(written.fleet, key_variables=_variables(written.key_variables, now)))
    try:
        read_fleet(path, keys_needed=False)
    except FleetError as error:
        problems = "; ".join(problem.message for problem in error.problems[:3])
        raise NoPlanError(f"{path} was written, and `tenantry check` refuses it: {problems}") from None
    return [*written.todo, *_not_here(path)]


def _not_here(path: Path) -> list[str]:
    """Say which folders `tenantry check` would not find on this machine."""
    try:
        read_fleet(path, keys_needed=False, files=True)
    except FleetError as error:
        return [
            f"`tenantry check` on this machine: {listed([problem.message for problem in error.problems], 2)}"
        ]
    return []


def _variables(made: Mapping[str, str], now: Fleet | None) -> Mapping[str, str]:
    """Keys of today's fleet are written as their hashes: which variable held one is not known here."""
    return {} if now is not None else made
