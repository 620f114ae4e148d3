"""What may be asked of the ledger, and what does the answer look like?"""

from __future__ import annotations

from datetime import date

import pytest

from routing.errors import InvalidRequest
from routing.usage.query import (
    FOR_TENANTS,
    MAX_DAYS,
    MAX_ROWS,
    MEASURES,
    UsageQuery,
    answer,
    line,
    only_known,
    read_query,
)
from tests.unit.routing.usage.made import NOON_S


def read(**fields: str) -> UsageQuery:
    return read_query({name.rstrip("_"): value for name, value in fields.items()}, now_s=NOON_S, tenant="a")


def test_thirty_days_up_to_today_are_meant_where_nothing_is_said() -> None:
    assert read() == UsageQuery(date(2025, 12, 11), date(2026, 1, 9), (), "a")


def test_a_first_day_reaches_to_today_and_a_last_one_thirty_days_back() -> None:
    assert (read(from_="2026-01-02").first, read(from_="2026-01-02").last) == (
        date(2026, 1, 2),
        date(2026, 1, 9),
    )
    assert read(to="2025-01-30").first == date(2025, 1, 1)


def test_dimensions_come_in_one_order_however_they_are_named() -> None:
    assert read(group_by="outcome, day,day").group_by == ("day", "outcome")
    assert read(group_by="").group_by == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"from_": "yesterday"}, "from"),
        ({"from_": "20260101"}, "from"),
        ({"from_": "2026-W01-1"}, "from"),
        ({"to": "2026W01-1 "}, "to"),
        ({"to": "2026-02-30"}, "to"),
        ({"to": "2026-1-1"}, "to"),
        ({"from_": ""}, "from"),
        ({"from_": "2026-01-03", "to": "2026-01-02"}, "from"),
        ({"from_": "2020-01-01"}, "from"),
        ({"group_by": "day,user"}, "group_by"),
        ({"group_by": "day;drop table"}, "group_by"),
        ({"group_by": ",,"}, "group_by"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert (caught.value.param, caught.value.code, caught.value.status) == (param, "invalid_value", 400)


def test_as_many_days_as_are_kept_by_default_can_be_asked_for() -> None:
    assert (read(from_="2023-01-06").last - read(from_="2023-01-06").first).days == MAX_DAYS - 1


def test_the_first_day_of_all_is_no_error() -> None:
    assert read(to="0001-01-02").first == date.min


@pytest.mark.parametrize("dimension", ["tenant", "pool"])
def test_a_tenant_cannot_ask_how_the_fleet_is_cut(dimension: str) -> None:
    with pytest.raises(InvalidRequest):
        read_query({"group_by": dimension}, now_s=NOON_S, tenant="a", allowed=FOR_TENANTS)


def test_unknown_and_repeated_parameters_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="`tenant` is unknown"):
        only_known([("tenant", "b")], ("from", "to"))
    with pytest.raises(InvalidRequest, match="twice"):
        only_known([("from", "x"), ("from", "y")], ("from", "to"))


def test_an_answer_has_its_lines_and_their_total() -> None:
    query = read(group_by="day,adapter")
    lines = [
        line(query.group_by, ("2026-01-08", "", 2, 1, 10, 20, 5, 0.25, 1.0, 0.5, 0.1, 2.5, 1, 2_500_000_000)),
        line(query.group_by, ("2026-01-09", "x", 1, 0, 1, 2, 0, 0.25, 1.0, None, 0.1, 0.0, 0, 0)),
    ]
    told = answer(query, lines, "EUR")
    assert (told["from"], told["to"], told["group_by"]) == ("2025-12-11", "2026-01-09", ["day", "adapter"])
    assert [each["adapter"] for each in told["data"]] == [None, "x"]
    assert (told["currency"], [each["cost"] for each in told["data"]]) == ("EUR", ["2.5", None])
    assert told["total"] == {
        "requests": 3, "estimated_requests": 1,
        "prompt_tokens": 11, "completion_tokens": 22, "cached_tokens": 5,
        "queue_s": 0.5, "run_s": 2.0, "slot_s": 0.5, "engine_s": 0.2, "switch_s": 2.5,
        "priced_requests": 1, "cost": "2.5",
    }  # fmt: skip


def test_nothing_used_is_a_total_of_zeros() -> None:
    assert answer(read(), [line((), (None,) * len(MEASURES))])["total"]["requests"] == 0
    assert answer(read(group_by="day"), [])["total"] == {**dict.fromkeys(MEASURES, 0), "cost": None}


def test_an_answer_that_would_be_too_long_is_refused_and_not_cut_off() -> None:
    lines = [line((), (0,) * len(MEASURES))] * (MAX_ROWS + 1)
    with pytest.raises(InvalidRequest, match="more than 10000 lines"):
        answer(read(), lines)
