"""Commands about a fleet file: is it right, who shares engines, and a key for it?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from routing.config import FleetError, LoadedFleet, Problem, check_files, read_fleet
from routing.config.api_keys import new_key
from routing.config.sharing import who_shares
from tenantry.fleet_tables import fleet_tables, print_problems, sharing_tables
from tenantry.running import console, print_whole

FleetPath = Annotated[Path, typer.Argument(help="Fleet file.", show_default=True)]


def check(
    fleet: FleetPath = Path("fleet.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    files: Annotated[bool, typer.Option("--files/--no-files", help="Look into the model folders.")] = True,
    keys: Annotated[bool, typer.Option("--keys/--no-keys", help="Look for keys in the environment.")] = True,
) -> None:
    """Check a fleet file: show what it declares, or every problem with its line."""
    try:
        loaded = read_fleet(fleet, keys_needed=keys)
        problems = check_files(loaded.fleet, file=str(fleet), lines=loaded.lines) if files else []
    except FleetError as error:
        loaded, problems = None, list(error.problems)
    if as_json:
        typer.echo(json.dumps(_report(fleet, loaded, problems), indent=2))
    else:
        _show(fleet, loaded, problems)
    raise typer.Exit(1 if problems else 0)


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
        refuse(error.problems)
        raise


def refuse(problems: tuple[Problem, ...] | list[Problem]) -> None:
    """Print problems and exit with 1, if there are any."""
    if problems:
        print_problems(console(stderr=True), problems, style="red", word="error")
        raise typer.Exit(1)


def fail(message: str) -> NoReturn:
    """Print one sentence and exit with 1."""
    console(stderr=True).print(message, style="red")
    raise typer.Exit(1)


def _report(path: Path, loaded: LoadedFleet | None, problems: list[Problem]) -> dict[str, object]:
    """Return what `--json` prints."""
    warnings = loaded.warnings if loaded else ()
    return {
        "file": str(path),
        "ok": not problems,
        "problems": [asdict(problem) for problem in problems],
        "warnings": [asdict(problem) for problem in warnings],
        "replicas": [asdict(company) for company in who_shares(loaded.fleet)] if loaded else [],
    }


def _show(path: Path, loaded: LoadedFleet | None, problems: list[Problem]) -> None:
    """Print the tables of a fleet, or its problems."""
    errors = console(stderr=True)
    if loaded:
        print_problems(errors, loaded.warnings, style="yellow", word="warning")
    if problems:
        print_problems(errors, problems, style="red", word="error")
        count = len(problems)
        errors.print(f"{path}: {count} problem{'s' if count > 1 else ''}", markup=False, soft_wrap=True)
    elif loaded:
        print_whole(console(), fleet_tables(loaded.fleet))
