"""The command `python -m routing`: check a fleet file, build Bentos, make keys, look at a running scheduler.

Exit codes: 0 all is well, 1 problems were found or the gateway refused, 2 the command was used wrongly,
3 no gateway answers `keys`, `scheduler`, `top`, `drain` or `resume`.
Only `new-key` and `keys create` show a key.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adapters.cli import keys as key_commands
from adapters.cli import scheduler as scheduler_commands
from adapters.cli import top as top_commands
from adapters.cli import usage as usage_commands
from adapters.errors import AdapterError
from routing import bundle
from routing.config import FleetError, LoadedFleet, Problem, check_files, project, read_fleet
from routing.config.api_keys import new_key
from routing.config.schema import json_schema
from routing.config.sharing import who_shares
from routing.config.tables import fleet_tables, print_problems, sharing_tables

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(key_commands.app, name="keys")
app.add_typer(scheduler_commands.app)
app.add_typer(top_commands.app)
app.add_typer(usage_commands.app)

FleetPath = Annotated[Path, typer.Argument(help="Fleet file.", show_default=True)]


class Platform(StrEnum):
    """Where a Bento runs."""

    GPU = "gpu"
    CPU = "cpu"


@app.command()
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


@app.command()
def schema() -> None:
    """Print the JSON Schema of fleet.yaml, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def metrics() -> None:
    """Print what every metric means, as Markdown: docs/metrics.md."""
    from routing.metrics.document import (
        document,
    )  # declares the engine's metrics too, which nobody else needs here

    typer.echo(document(), nl=False)


@app.command("new-key")
def new_key_() -> None:
    """Make an API key. It is shown this once; fleet.yaml holds its sha256."""
    key = new_key()
    typer.echo(f"key (shown once):  {key}")
    typer.echo(f"for fleet.yaml:    api_keys: [{{sha256: {hashlib.sha256(key.encode()).hexdigest()}}}]")


@app.command("who-shares")
def who_shares_(fleet: FleetPath = Path("fleet.yaml")) -> None:
    """Show which tenants can meet in one engine: tenant by tenant, replica by replica, model by model."""
    loaded = _load(fleet)
    _console().print(sharing_tables(loaded.fleet))


@app.command()
def build(
    pool: Annotated[
        str | None, typer.Option(help="Build this pool alone.", show_default="the whole fleet")
    ] = None,
    fleet: Annotated[Path, typer.Option(help="Fleet file.")] = Path("fleet.yaml"),
    name: Annotated[
        str | None, typer.Option(help="Name of the Bento.", show_default="tenantry, or tenantry-POOL")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Version.", show_default="BentoML makes one")] = None,
    platform: Annotated[
        Platform, typer.Option(help="Where it will run: which lock it installs.")
    ] = Platform.GPU,
    embed_base_models: Annotated[
        bool, typer.Option("--embed-base-models", help="Copy base models from folders into the Bento.")
    ] = False,
) -> None:
    """Build a Bento of one pool, with nothing of anybody else in it, or of the whole fleet."""
    loaded = _load(fleet)
    options = bundle.Options(platform.value, embed_base_models, name)
    try:
        part = loaded.fleet if pool is None else project(loaded.fleet, pool)
        _refuse(check_files(part, file=str(fleet), lines=loaded.lines))
        with tempfile.TemporaryDirectory(prefix="tenantry-build-") as folder:
            bundle.stage(
                loaded.fleet, pool, Path(folder), options=options, key_variables=loaded.key_variables
            )
            variables = set(loaded.key_variables.values())
            tag = bundle.build(
                Path(folder),
                version=version,
                key_variables=variables,
                database_variable=loaded.fleet.state.database_variable,
            )
    except FleetError as error:
        _refuse(error.problems)
        raise
    except (bundle.BundleError, AdapterError, OSError) as error:
        _console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    typer.echo(f"Built {tag}\n  bentoml serve {tag}\n  bentoml containerize {tag}")


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
    errors = _console(stderr=True)
    if loaded:
        print_problems(errors, loaded.warnings, style="yellow", word="warning")
    if problems:
        print_problems(errors, problems, style="red", word="error")
        count = len(problems)
        errors.print(f"{path}: {count} problem{'s' if count > 1 else ''}", markup=False, soft_wrap=True)
    elif loaded:
        _console().print(fleet_tables(loaded.fleet))


def _load(path: Path) -> LoadedFleet:
    """Load a fleet, its keys set or not, or print its problems and exit with 1."""
    try:
        return read_fleet(path, keys_needed=False)
    except FleetError as error:
        _refuse(error.problems)
        raise


def _refuse(problems: tuple[Problem, ...] | list[Problem]) -> None:
    """Print problems and exit with 1, if there are any."""
    if problems:
        print_problems(_console(stderr=True), problems, style="red", word="error")
        raise typer.Exit(1)


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False)


if __name__ == "__main__":
    sys.exit(app(prog_name="python -m routing"))
