"""Where a report goes, and what becomes of its complaints."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from rich.table import Table

from benchmarks.output import benchmark, show
from benchmarks.tools import ToolError


@dataclass
class FakeReport:
    """Measured nothing."""

    doubts: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        return self.doubts


def test_the_table_comes_below_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    show(FakeReport(), Table("the figures"), None)
    text = capsys.readouterr().out
    assert text.index("machine ") < text.index("the figures")


def test_a_file_gets_the_json_and_the_terminal_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(FakeReport(), Table("the figures"), tmp_path / "out.json")
    assert "commit" in json.loads((tmp_path / "out.json").read_text())["origin"]
    assert "the figures" in capsys.readouterr().out


def test_json_on_stdout_is_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    show(FakeReport(), Table("the figures"), Path("-"))
    whole = json.loads(capsys.readouterr().out)
    assert "commit" in whole["origin"] and whole["doubts"] == []


def test_complaints_are_printed_and_end_in_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised:
        show(FakeReport(["2 of 3 requests failed"]), Table("the figures"), None)
    assert raised.value.exit_code == 1
    assert "2 of 3 requests failed" in capsys.readouterr().out


def test_what_does_not_start_is_printed_and_ends_in_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, benchmark():
        raise ToolError("gcc is not on the PATH")
    assert raised.value.exit_code == 1
    assert "gcc" in capsys.readouterr().err
