"""docs/operations.md and scheduler.md: what they name is real, and nothing real is missing."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from routing.errors import (
    AccountSuspended,
    BreaksEngine,
    EngineFailed,
    ModelMoved,
    ModelRetired,
    NoSpareRoom,
    OverLimit,
    Quarantined,
    QuotaExceeded,
    TenantRemoved,
)
from routing.flights.endings import Abort
from routing.flights.guards import Of
from routing.http.admission import KEY_BUDGET
from routing.observing.metrics.definitions import GATEWAY_METRICS
from routing.observing.request_log import line_of
from routing.openai.media import NOT_ALLOWED
from routing.scheduling.admission import Cap
from routing.scheduling.affinity import Affinity
from routing.scheduling.decisions import KEPT, Action
from routing.scheduling.filters import WaitReason
from routing.scheduling.profile import ONLY
from routing.types import Outcome, Record
from tenantry.app import app
from tests.unit.routing.requests import target

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "operations.md").read_text()
SCHEDULER = (DOCS / "scheduler.md").read_text()


def section(title: str, page: str = PAGE) -> str:
    """The text below a heading, up to the next one."""
    _, found, rest = page.partition(f"# {title}\n")
    assert found, title
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> set[str]:
    """Every code in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)} - {"field"}


def logged() -> dict[str, object]:
    line = line_of(Record("id", target(), Outcome.COMPLETED, 200))
    return dict(json.loads(line))


def test_every_field_of_the_log_line_is_explained() -> None:
    assert first_cells(section("The log line")) == logged().keys()


def test_the_example_is_a_log_line() -> None:
    (example,) = re.findall(r"```json\n(.+?)\n```", section("The log line"), re.DOTALL)
    assert list(json.loads(example)) == list(logged())


def test_every_reason_to_wait_is_explained() -> None:
    assert first_cells(section("Why it waits: `waits_for`", SCHEDULER)) - {"waits_for"} == set(WaitReason)


def test_everything_that_speaks_for_a_replica_is_explained() -> None:
    assert first_cells(section("Why that replica: `picked`", SCHEDULER)) - {"picked"} == {ONLY, *Affinity}


def test_every_reason_that_a_request_can_end_with_is_explained() -> None:
    others = {"no_replica_ready", "queue_timeout", "adapter_unavailable", "unsupported_endpoint"}
    others |= {f"{of}_flagged" for of in Of} | {"prompt_not_text", "guard_unavailable", "invalid_form"}
    others |= {NOT_ALLOWED, NoSpareRoom.default_code}
    codes = first_cells(section("Why it was refused")) - {"reason"}
    own = {
        error.default_code
        for error in (
            AccountSuspended,
            BreaksEngine,
            EngineFailed,
            ModelMoved,
            ModelRetired,
            OverLimit,
            Quarantined,
            QuotaExceeded,
            TenantRemoved,
        )
    }
    assert codes == {*Cap, *Abort, *own, *others, KEY_BUDGET}


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_named(outcome: str) -> None:
    assert f"`{outcome}`" in PAGE


def test_every_decision_is_explained() -> None:
    assert first_cells(section("Reading one decision", SCHEDULER)) - {"decision"} == set(Action)


def test_the_reasons_to_wait_stand_in_the_order_in_which_they_are_asked() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("Why it waits: `waits_for`", SCHEDULER), re.MULTILINE)
    assert rows[1:] == [*WaitReason]


def test_rules_are_numbered_without_a_gap_and_those_that_are_named_are_there() -> None:
    rules = SCHEDULER.partition("## When a request arrives")[2]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", rules, re.MULTILINE)]
    assert numbers == [*range(1, len(numbers) + 1)]
    named = re.findall(r"rules? (\d+)(?: (?:to|and) (\d+))?", SCHEDULER)
    assert {int(number) for pair in named for number in pair if number} <= {*numbers}


def test_how_many_decisions_are_kept_is_said_right() -> None:
    assert f"the last {KEPT} decisions" in SCHEDULER.replace("\n", " ")


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
