"""docs/usage.md: its commands, parameters, measures and numbers are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from typer.core import TyperGroup
from typer.main import get_command

from routing.http.sweeper import SWEEP_INTERVAL_S
from routing.usage.journal import MAX_BYTES
from routing.usage.ledger import BUDGETS_S, INTERVAL_S, MAX_PENDING
from routing.usage.query import FOR_TENANTS, MAX_DAYS, MAX_ROWS, MEASURES
from tenantry.app import app

PAGE = (Path(__file__).parents[4] / "docs" / "usage.md").read_text()


def test_every_measure_and_dimension_is_explained() -> None:
    table = PAGE[PAGE.index("| measure |") : PAGE.index("`adapter` and `version` are null")]
    assert re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines() if "|" in row)) == [
        *MEASURES
    ]
    assert ", ".join(f"`{name}`" for name in FOR_TENANTS) in PAGE


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"{MAX_ROWS:,}".replace(",", " ") + " lines" in PAGE
    assert f"At most {MAX_DAYS} days" in PAGE
    assert f"every {INTERVAL_S} s" in PAGE and f"the last {SWEEP_INTERVAL_S + 3 * INTERVAL_S} s" in PAGE
    assert f"{MAX_BYTES // 2**20} MiB" in PAGE
    assert f"up to {MAX_PENDING:,}".replace(",", " ") in PAGE
    assert f"every {BUDGETS_S:g} s" in PAGE


def test_the_commands_are_there() -> None:
    shown = re.findall(r"^tenantry (.+?)(?: > .+)?$", PAGE, re.MULTILINE)
    assert len(shown) == 5
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for line in shown:
        name, *words = shlex.split(line, comments=True)
        group.commands[name].make_context(line, words)  # raises for wrong use
