"""The command `build`: a Bento of one pool or of the whole fleet."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adapters.errors import AdapterError
from fleet import FleetError, check_files, project
from tenantry import bundle
from tenantry.fleets import fail, load, refuse


class Platform(StrEnum):
    """Where a Bento runs."""

    GPU = "gpu"
    CPU = "cpu"


def build(  # noqa: PLR0913  # an argument for each option, as typer wants it
    pool: Annotated[
        str | None, typer.Option(help="Build this pool alone.", show_default="the whole fleet")
    ] = None,
    fleet: Annotated[Path, typer.Option(help="Fleet file.")] = Path("fleet.yaml"),
    name: Annotated[
        str | None, typer.Option(help="Name of the Bento.", show_default="tenantry, or tenantry-POOL")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Version.", show_default="BentoML makes one")] = None,
    platform: Annotated[
        Platform, typer.Option(help="Where it will run; decides the lock that it installs.")
    ] = Platform.GPU,
    base_image: Annotated[
        str | None,
        typer.Option(help="Base of its image: a Debian or Ubuntu.", show_default="python:3.11-slim"),
    ] = None,
    index_url: Annotated[
        str | None,
        typer.Option(
            help="Index that its image's packages come from, PyTorch's for CPUs too.", show_default="PyPI"
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Set in its image, also while that is built. Repeatable."),
    ] = None,
    embed_base_models: Annotated[
        bool, typer.Option("--embed-base-models", help="Copy base models from folders into the Bento.")
    ] = False,
) -> None:
    """Build a Bento of one pool, with nothing of other pools in it, or of the whole fleet."""
    loaded = load(fleet)
    options = bundle.Options(
        platform.value, embed_base_models, name, base_image, index_url, _variables(env or [])
    )
    try:
        part = loaded.fleet if pool is None else project(loaded.fleet, pool)
        refuse(check_files(part, file=str(fleet), lines=loaded.lines))
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
        refuse(error.problems, may_be_more=error.may_be_more)
        raise
    except (bundle.BundleError, AdapterError, OSError) as error:
        fail(str(error))
    typer.echo(f"Built {tag}\n  bentoml serve {tag}\n  bentoml containerize {tag}")


def _variables(given: Sequence[str]) -> dict[str, str]:
    """Take `NAME=VALUE` apart. Ends the program where one is something else."""
    pairs = [text.partition("=") for text in given]
    for text, (name, sign, _) in zip(given, pairs, strict=True):
        if not (name and sign):
            fail(f"--env {text}: give it as NAME=VALUE")
    return {name: value for name, _, value in pairs}
