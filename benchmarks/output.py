"""Where does a finished report go? Prints it with the machine it was measured on, or writes it as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Origin, origin


class Report(Protocol):
    """What a benchmark has measured."""

    def complaints(self) -> list[str]:
        """What makes the figures doubtful; nothing where all went well."""

    def as_json(self, head: Origin) -> str:
        """Everything, with where it comes from."""


def show(report: Report, table: Table, json_file: Path | None) -> None:
    """Print a report and write it where asked; `-` is stdout alone. Raises typer.Exit where it complains."""
    head = origin()
    if json_file is not None and str(json_file) == "-":
        sys.stdout.write(report.as_json(head))
        return
    if json_file is not None:
        json_file.write_text(report.as_json(head))
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
