"""Can a spreadsheet read it, and can nothing in it run?"""

from __future__ import annotations

import csv
import io

import pytest

from routing.usage.query import line
from routing.usage.spreadsheet import COLUMNS, FORMULA, to_csv

MEASURED = (2, 1, 10, 20, 5, 0.25, 1.0, 0.5, 0.1, 2.5, 1, 1500)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_columns_are_always_the_same() -> None:
    one = to_csv([line(("tenant",), ("a", *MEASURED))])
    other = to_csv([line(("day", "adapter"), ("2026-01-09", "", *MEASURED))])
    assert one.split("\r\n")[0] == other.split("\r\n")[0] == to_csv([]).strip() == ",".join(COLUMNS)


def test_a_line_is_read_as_it_was_meant() -> None:
    (found,) = read(to_csv([line(("day", "adapter", "version"), ("2026-01-09", "", 0, *MEASURED))]))
    assert (found["day"], found["adapter"], found["version"], found["tenant"]) == ("2026-01-09", "", "", "")
    assert (found["requests"], found["queue_s"], found["engine_s"]) == ("2", "0.25", "0.1")


@pytest.mark.parametrize("sign", FORMULA)
def test_no_text_is_a_formula(sign: str) -> None:
    (found,) = read(to_csv([line(("model",), (f'{sign}HYPERLINK("x")', *MEASURED))]))
    assert found["model"] == f'\'{sign}HYPERLINK("x")'


def test_commas_quotes_and_line_breaks_stay_in_their_cell() -> None:
    (found,) = read(to_csv([line(("model",), ('a,"b"\r\nc', *MEASURED))]))
    assert found["model"] == 'a,"b"\r\nc'
