"""No value anywhere in a fleet file breaks the loader: it is taken, or there is a problem with a line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import FleetError, read_fleet
from fleet.writer import write_fleet
from tests.unit.fleet.files import changed, declared, write


def paths(value: Any, at: tuple[str, ...] = ()) -> Iterator[str]:
    """Every path of a fleet file."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, inner in items:
        yield "/".join((*at, str(key)))
        yield from paths(inner, (*at, str(key)))


VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    "base",
    "alpha",
    "a-support",
    "../..",
    "${NOT_SET}",
]
VALUES += [
    "\x1b[31m",
    "[red]",
    [],
    [None],
    ["base"],
    ["base", "base"],
    [[]],
    [{}],
    {},
    {"x": None},
    {"a": {"b": []}},
]
CHANGES = st.tuples(st.sampled_from(list(paths(declared()))), st.sampled_from(VALUES))


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_no_value_breaks_the_loader(changes: list[tuple[str, Any]]) -> None:
    data = declared()
    for path, value in changes:
        try:
            data = changed(path, value, data)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError):
            continue  # an earlier change took the place away
    with tempfile.TemporaryDirectory() as folder:
        try:
            fleet = read_fleet(write(Path(folder), data), env={}).fleet
        except FleetError as error:
            assert error.problems
            assert all(problem.message for problem in error.problems)
        else:
            assert (
                read_fleet(write(Path(folder), write_fleet(fleet, key_variables={})), env={}).fleet == fleet
            )


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>#%@\"'\n \t?,0", max_size=40), st.integers(0, 900))
def test_no_text_breaks_the_reader(noise: str, place: int) -> None:
    text = yaml.safe_dump(declared(), sort_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_fleet(write(Path(folder), text[:place] + noise + text[place:]), env={})
        except FleetError as error:
            assert error.problems
