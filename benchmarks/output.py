"""Where does a finished report go? Prints it with the machine it was measured on, or writes it as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType

from benchmarks.machine import origin
from benchmarks.processes import end_on_sigterm
from benchmarks.tools import ToolError

JsonFile = Annotated[Path | None, typer.Option("--json", help="Where the figures go; - is stdout.")]


class Report(Protocol):
    """What a benchmark has measured: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def complaints(self) -> list[str]:
        """What makes the figures doubtful; nothing where all went well."""


@contextmanager
def benchmark() -> Iterator[None]:
    """Let SIGTERM end what is started, and print a ToolError. Raises typer.Exit where there was one."""
    end_on_sigterm()
    try:
        yield
    except ToolError as error:
        Console(stderr=True).print(f"[red]{error}", highlight=False)
        raise typer.Exit(1) from error


def show(report: Report, table: RenderableType, json_file: Path | None) -> None:
    """Print a report and write it where asked; `-` is stdout alone. Raises typer.Exit where it complains."""
    head = origin()
    if json_file is not None:
        text = json.dumps({"origin": asdict(head)} | asdict(report), default=BaseModel.model_dump) + "\n"
        if str(json_file) == "-":
            sys.stdout.write(text)
            return
        json_file.write_text(text)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for line in head.lines():
        console.print(line, highlight=False)
    console.print(table)
    for line in report.complaints():
        console.print(f"[red]{line}")
    if report.complaints():
        raise typer.Exit(1)
