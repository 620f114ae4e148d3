"""Commands about a fleet file: check it, show which tenants share engines, make a key for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fleet import FleetError, LoadedFleet, Problem, read_fleet
from fleet.api_keys import new_key
from fleet.sharing import who_shares
from fleet.types import Pool
from tenantry.fleet_tables import fleet_tables, print_problems, sharing_tables
from tenantry.running import console, print_whole

MAY_BE_MORE = "there may be more problems behind these; check again once they are fixed"
FleetPath = Annotated[Path, typer.Argument(help="Fleet file.", show_default=True)]


def check(
    fleet: FleetPath = Path("fleet.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    files: Annotated[bool, typer.Option("--files/--no-files", help="Check the model folders.")] = True,
    keys: Annotated[bool, typer.Option("--keys/--no-keys", help="Read keys from the environment.")] = True,
) -> None:
    """Check a fleet file: show its contents, or every problem with its line."""
    try:
        found: LoadedFleet | FleetError = read_fleet(fleet, keys_needed=keys, files=files)
    except FleetError as error:
        found = error
    came: Mapping[str, str] = {}
    if files and isinstance(found, LoadedFleet) and any(map(_takes_turns, found.fleet.pools.values())):
        from tenantry import switch_costs  # takes half a second, and few fleets need it

        took = switch_costs.switches_of(found.fleet)
        late = switch_costs.warn_of(found, str(fleet), took).warnings
        found, came = replace(found, warnings=(*found.warnings, *late)), switch_costs.in_words(took)
    if as_json:
        typer.echo(json.dumps(_report(fleet, found), indent=2))
    else:
        _show(fleet, found, came)
    raise typer.Exit(1 if isinstance(found, FleetError) else 0)


def sharing(fleet: FleetPath = Path("fleet.yaml")) -> None:
    """Show which tenants can meet in one engine: tenant by tenant, replica by replica, model by model."""
    loaded = load(fleet)
    print_whole(console(), sharing_tables(loaded.fleet))


def make_key() -> None:
    """Make an API key. It is shown this once; fleet.yaml holds its sha256."""
    key = new_key()
    typer.echo(f"key (shown once):  {key}")
    typer.echo(f"for fleet.yaml:    api_keys: [{{sha256: {hashlib.sha256(key.encode()).hexdigest()}}}]")


def load(path: Path) -> LoadedFleet:
    """Load a fleet, its keys set or not, or print its problems and exit with 1."""
    try:
        return read_fleet(path, keys_needed=False)
    except FleetError as error:
        refuse(error.problems, may_be_more=error.may_be_more)
        raise


def refuse(problems: Sequence[Problem], *, may_be_more: bool = False) -> None:
    """Print problems and exit with 1, if there are any."""
    if problems:
        print_problems(console(stderr=True), problems, style="red", word="error")
        if may_be_more:
            console(stderr=True).print(MAY_BE_MORE)
        raise typer.Exit(1)


def fail(message: str) -> NoReturn:
    """Print one sentence and exit with 1."""
    console(stderr=True).print(message, style="red")
    raise typer.Exit(1)


def _report(path: Path, found: LoadedFleet | FleetError) -> dict[str, object]:
    """Return the JSON of `--json`."""
    failed = found if isinstance(found, FleetError) else None
    return {
        "file": str(path),
        "ok": failed is None,
        "problems": [asdict(problem) for problem in failed.problems] if failed else [],
        "may_be_more": failed.may_be_more if failed else False,
        "warnings": [asdict(problem) for problem in found.warnings],
        "replicas": []
        if isinstance(found, FleetError)
        else [asdict(company) for company in who_shares(found.fleet)],
    }


def _takes_turns(pool: Pool) -> bool:
    return pool.strategy.shares_hosts


def _show(path: Path, found: LoadedFleet | FleetError, came: Mapping[str, str]) -> None:
    """Print the tables of a fleet, or its problems."""
    errors = console(stderr=True)
    print_problems(errors, found.warnings, style="yellow", word="warning")
    if not isinstance(found, FleetError):
        print_whole(console(), fleet_tables(found.fleet, came))
        return
    print_problems(errors, found.problems, style="red", word="error")
    count = len(found.problems)
    errors.print(f"{path}: {count} problem{'s' if count > 1 else ''}")
    if found.may_be_more:
        errors.print(MAY_BE_MORE)
