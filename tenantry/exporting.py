"""The command `export`: the present fleet of a gateway as a fleet file."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tenantry.client import Gateway
from tenantry.running import URL, Url, ask, printable


def export(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write.", show_default="the terminal")
    ] = None,
    url: Url = URL,
) -> None:
    """Write the present fleet as a fleet file: what is declared, with all changes of tenants at run time.

    Comments of the declared file stay where they can. Keys, adapters and aliases that were made at run time
    are not in it: they stay in the state database.
    """

    async def work(gateway: Gateway) -> str:
        return await gateway.text("/export", {})

    def write(console: Console, text: str) -> None:
        if output is None:
            typer.echo(text, nl=False)
            return
        _replace(output, text)
        console.print(printable(f"{output} holds the present fleet."))

    ask(ctx, url, False, work, write)


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all. Only its owner may read it, as it holds hashes of keys."""
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(made, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(made)
        raise
