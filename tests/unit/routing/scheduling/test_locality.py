"""Should a request wait for an engine that has its adapter in memory?"""

from __future__ import annotations

from dataclasses import replace

from routing.scheduling.locality import spares_read
from routing.scheduling.state import Engine
from tests.unit.routing.requests import end_on, engine, request, run_on, view_of


def pair() -> tuple[Engine, Engine]:
    """A busy engine that has never seen the adapter of `a`, and one that has it in memory."""
    busy, other = engine("shared-0"), engine("shared-1")
    run_on(busy, request("b"))
    run_on(other, request("a"))
    end_on(other, request("a"))
    return busy, other


def spares(
    busy: Engine,
    other: Engine,
    *,
    after_s: float = 0.0,
    failed_on: frozenset[str] = frozenset(),
) -> bool:
    """Whether the busy one leaves the request of `a` to the other."""
    asked = replace(request("a"), failed_on=failed_on)
    now_s = asked.arrived_s + after_s
    return spares_read(busy, asked, view_of(busy, other), now_s=now_s)


def test_a_busy_replica_leaves_a_request_to_one_that_has_its_adapter_in_memory() -> None:
    assert spares(*pair())


def test_but_for_a_short_time_only() -> None:
    assert spares(*pair(), after_s=0.19)
    assert not spares(*pair(), after_s=0.2)


def test_one_that_has_it_too_takes_it() -> None:
    busy, other = pair()
    busy.resident["a-support@1"] = None
    assert not spares(busy, other)


def test_one_that_runs_nothing_stalls_nobody() -> None:
    busy, other = pair()
    end_on(busy, request("b"))
    assert not spares(busy, other)


def test_one_that_takes_no_work_is_not_waited_for() -> None:
    for field, value in (("ready", False), ("draining", True), ("trusted", False)):
        busy, other = pair()
        setattr(other.replica if field == "draining" else other, field, value)
        assert not spares(busy, other)


def test_one_that_broke_under_the_request_is_not_waited_for() -> None:
    assert not spares(*pair(), failed_on=frozenset({"shared-1"}))


def test_what_is_nowhere_in_memory_is_read_at_once() -> None:
    busy, other = pair()
    other.forget_residency()
    assert not spares(busy, other)


def test_the_base_model_is_in_memory_everywhere() -> None:
    busy, other = pair()
    asked = request(base=True)
    view = view_of(busy, other)
    assert not spares_read(busy, asked, view, now_s=asked.arrived_s)
