"""Do the values between gateway and engine survive the wire?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.residency import DesiredAdapters, EngineAdapter, Fault, FaultKind, Residency, TrialReport


def over_the_wire(value: Any) -> Any:
    """The value as it arrives."""
    return type(value).from_json(json.loads(json.dumps(value.to_json())))


@pytest.mark.parametrize(
    "value",
    [
        DesiredAdapters(3, (EngineAdapter("a/b@1", "/x", pinned=True), EngineAdapter("c@2", "/y"))),
        DesiredAdapters(1, ()),
        Residency("w", 2, 3, ("a",), ("b", "a"), ("a",), ("c",), (("d", Fault(FaultKind.CRASH, 2, "it")),)),
        Residency("w", 0, 0),
        TrialReport(False, "why", 0.5, 0.25),
    ],
)
def test_what_is_sent_arrives_as_it_was(value: Any) -> None:
    assert over_the_wire(value) == value


@pytest.mark.parametrize(
    "value", [{}, {"revision": 1}, {"revision": "x", "adapters": []}, {"revision": 1, "adapters": [1]}]
)
def test_what_is_no_desired_set_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        DesiredAdapters.from_json(value)


def test_a_fault_of_an_unknown_kind_is_refused() -> None:
    value = Residency("w", 1, 1).to_json() | {"faults": {"a": {"kind": "mood", "count": 1, "reason": ""}}}
    with pytest.raises(ValueError, match="mood"):
        Residency.from_json(value)
