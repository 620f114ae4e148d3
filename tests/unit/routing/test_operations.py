"""docs/operations.md: every code, field, metric and command on it is real, and every real one is on it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from routing.errors import BreaksEngine, EngineFailed, OverLimit, Quarantined, QuotaExceeded
from routing.flights.flight import Abort
from routing.observing.metrics.definitions import GATEWAY_METRICS
from routing.record import Record
from routing.scheduling.admission import Cap
from routing.scheduling.affinity import Affinity
from routing.scheduling.decisions import KEPT, Action
from routing.scheduling.filters import WaitReason
from routing.scheduling.profile import ONLY
from routing.types import Outcome
from tenantry.app import app
from tests.unit.routing.requests import target

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    _, found, rest = PAGE.partition(f"# {title}\n")
    assert found, title
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> set[str]:
    """Every code in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)} - {"field"}


def logged() -> dict[str, object]:
    line = str(Record("id", target(), Outcome.COMPLETED, 200))
    return dict(json.loads(line))


def test_every_field_of_the_log_line_is_explained() -> None:
    assert first_cells(section("The log line")) == logged().keys()


def test_the_example_is_a_log_line() -> None:
    (example,) = re.findall(r"```json\n(.+?)\n```", section("The log line"), re.DOTALL)
    assert list(json.loads(example)) == list(logged())


def test_every_reason_to_wait_is_explained() -> None:
    assert first_cells(section("Why it waited: `held`")) - {"held"} == set(WaitReason)


def test_everything_that_speaks_for_a_replica_is_explained() -> None:
    assert first_cells(section("Why that replica: `picked`")) - {"picked"} == {ONLY, *Affinity}


def test_every_reason_that_a_request_can_end_with_is_explained() -> None:
    unavailable = {"no_replica_ready", "queue_timeout", "adapter_unavailable"}
    codes = first_cells(section("Why it was refused")) - {"reason"}
    own = {
        error.default_code for error in (BreaksEngine, EngineFailed, OverLimit, Quarantined, QuotaExceeded)
    }
    assert codes == {*Cap, *Abort, *own, *unavailable}


@pytest.mark.parametrize("word", [*Outcome, *Action])
def test_every_outcome_and_decision_is_named(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_how_many_decisions_are_kept_is_said_right() -> None:
    assert f"the last {KEPT} decisions" in PAGE


def test_the_metrics_are_those_of_the_gateway() -> None:
    names = re.findall(r"`(tenantry_\w+)[`{]", PAGE)
    assert names
    assert set(names) <= {metric.sample for metric in GATEWAY_METRICS}


def test_the_commands_of_the_page_are_there() -> None:
    shown = re.findall(r"^tenantry (.+)$", PAGE, re.MULTILINE)
    assert len(shown) >= 9
    for line in shown:
        command, words = get_command(app), shlex.split(line, comments=True)
        while isinstance(command, TyperGroup):
            name = words.pop(0)
            assert name in command.commands, line
            command = command.commands[name]
        command.make_context(line, words)  # raises for wrong use
