"""What does `make clients` say? A fault is what plain vLLM alone passes, unless there is a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.clients import reasons
from tests.clients.__main__ import report
from tests.clients.suites import SUITES, Outcome, Outcomes

HERE = Path(__file__).parents[1] / "clients"
RIGHT, WRONG = Outcome(passed=True), Outcome(passed=False, error="why not")


@pytest.mark.parametrize(
    ("there", "here", "status"),
    [
        ({"a": RIGHT}, {"a": RIGHT}, 0),
        ({"a": WRONG}, {"a": WRONG}, 0),
        ({"a": WRONG}, {"a": RIGHT}, 0),
        ({"a": RIGHT}, {"a": WRONG}, 1),
        ({"a": RIGHT}, {}, 1),
    ],
)
def test_only_what_the_gateway_alone_fails_is_a_fault(there: Outcomes, here: Outcomes, status: int) -> None:
    assert report({"locust": there}, {"locust": here}) == status


def test_what_is_meant_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reasons.REASONS, ("locust", "a*"), "it is meant")
    assert report({"locust": {"a1": RIGHT}}, {"locust": {"a1": WRONG}}) == 0
    assert report({"aiperf": {"a1": RIGHT}}, {"aiperf": {"a1": WRONG}}) == 1


def test_reasons_are_of_suites_that_there_are() -> None:
    assert {suite for suite, _ in reasons.REASONS} <= SUITES.keys()


@pytest.mark.parametrize("path", sorted((HERE / "requirements").iterdir()), ids=lambda path: path.stem)
def test_every_client_in_python_is_pinned(path: Path) -> None:
    wrong = [
        line for line in path.read_text().splitlines() if not re.fullmatch(r"[\w.\[\],-]+==[\w.+!]+", line)
    ]
    assert not wrong


def test_every_client_in_node_is_pinned() -> None:
    asked = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
    locked = json.loads((HERE / "node" / "package-lock.json").read_text())["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in asked} == asked
