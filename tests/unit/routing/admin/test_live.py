"""The live picture that operators read: what is in it, who may see it, and how the stream begins and ends."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.types import Caps
from routing.admin import live_answers as answers
from routing.admin.live_feed import END, MAX_VIEWERS, EventStream, LiveFeed
from routing.admin.tenant_answers import CapsAnswer
from routing.errors import Unavailable
from routing.observing.live import figures
from routing.observing.live.figures import BUCKET_S, BUCKETS
from routing.scheduling.decisions import KEPT
from routing.types import Outcome
from tests.fakes import Client, eventually
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk, Watched, error_of
from tests.unit.routing.observing.live.records import answered, ended
from tests.unit.routing.requests import target
from tests.unit.routing.scheduling.busy import Busy, busy
from tests.unit.routing.scheduling.whole import Whole

LIVE = "/admin/v1/live"
OPERATOR: dict[str, Any] = {"key": "operator-key"}


@pytest.fixture
def house() -> Busy:
    return busy()


@pytest.fixture
def desk(tmp_path: Path, house: Busy) -> Desk:
    """An admin API in front of a dispatcher that is busy."""
    desk = fakes.desk(tmp_path, tenants=house.fleet.tenants)
    fill(desk.management, desk.watched, house)
    return desk


def fill(management: fakes.FakeManagement, watched: Watched, house: Busy) -> None:
    """Let operators see a dispatcher."""
    management.scheduled = house.dispatcher.report(KEPT)
    management.known_tenants = list(house.fleet.tenants.values())
    watched.clock.now = house.clock.now
    watched.queue = [(ticket.request, ticket.waits_for) for ticket in house.dispatcher.waiting()]


async def live(desk: Desk) -> dict[str, Any]:
    answer = await desk.ask("GET", LIVE, **OPERATOR)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# -- one picture -------------------------------------------------------------------------------------------


async def test_a_model_that_only_waits_is_in_the_picture_with_its_reason(desk: Desk) -> None:
    picture = await live(desk)
    (model,) = picture["models"]
    assert (model["tenant"], model["model"], model["pool"]) == ("a", "sales", "shared")
    assert (model["queued"], model["oldest_s"], model["requests"]) == (1, 11.5, 0)
    assert (model["verdict"], model["limit_s"], model["limit_source"]) == ("green", 60.0, "objective")
    assert picture["queued"] == 1


async def test_the_slowest_model_comes_first_and_says_why(desk: Desk) -> None:
    now = desk.watched.clock.now
    for first_s, of in ((0.2, target("b")), *[(90.0, target("a", "sales"))] * 3, (0.4, target("a"))):
        desk.watched.figures.observe(answered(first_s, of=of), now)
    models = (await live(desk))["models"]
    assert [(m["tenant"], m["model"], m["verdict"]) for m in models] == [
        ("a", "sales", "slow"),
        ("a", "support", "green"),
        ("b", "support", "green"),
    ]
    assert models[0]["reason"].startswith("p99 first token 8")
    assert [m["reason"] for m in models[1:]] == ["", ""]


async def test_a_failing_model_comes_before_a_slow_one(desk: Desk) -> None:
    now = desk.watched.clock.now
    for _ in range(3):
        desk.watched.figures.observe(answered(90.0, of=target("a", "sales")), now)
        desk.watched.figures.observe(ended(Outcome.FAILED, 502, "engine_failed", of=target("b")), now)
    models = (await live(desk))["models"]
    assert [m["verdict"] for m in models] == ["failing", "slow"]
    assert models[0]["reason"] == "100 % of its requests fail (engine_failed)"


async def test_a_pool_with_several_base_models_is_shown_once_with_all_it_has(desk: Desk) -> None:
    house = Whole(width=1)
    tickets = [house.submit(*who) for who in (("large", "a"), ("large", "b"), ("small", "b"), ("small", "b"))]
    desk.management.scheduled = house.dispatcher.report()
    (pool,) = (await live(desk))["pools"]
    assert (pool["name"], pool["queued_by_band"]["standard"]) == ("whole", 2)
    assert [(t["name"], t["queued"], t["tickets"]) for t in pool["tenants"]] == [("b", 2, 3), ("a", 0, 1)]
    assert [replica["name"] for replica in pool["replicas"]] == ["whole-0", "whole-1"]
    house.end(*tickets)


async def test_slots_show_who_runs_who_is_pinned_who_leaves_and_what_lies_idle(desk: Desk) -> None:
    scheduled = desk.management.scheduled
    pool = scheduled.pools[0]
    wide = replace(pool.replicas[0], slots=3, pinned=("b-support@1",))
    desk.management.scheduled = replace(scheduled, pools=(replace(pool, replicas=(wide,)),))
    desk.management.reports = [fakes.report(slots=("a-sales@1", "x@1", "b-support@1"))]
    (replica,) = (await live(desk))["pools"][0]["replicas"]
    assert (replica["state"], replica["slots"], replica["slot_drains_for"]) == ("ready", 3, "a-sales@1")
    assert [(s["adapter"], s["use"], s["pinned"], s["sequences"]) for s in replica["in_slots"]] == [
        ("a-support@1", "draining", False, 1),
        ("b-support@1", "pinned", True, 0),
        ("x@1", "idle", False, 0),
    ]
    assert (replica["in_host"], replica["faults"]) == (2, 1)


async def test_a_replica_that_fails_says_what_is_wrong(desk: Desk, house: Busy) -> None:
    house.fail("shared-0", 3)
    desk.management.scheduled = house.dispatcher.report()
    (replica,) = (await live(desk))["pools"][0]["replicas"]
    assert replica["state"] == "ready", "the last one of its pool is asked all the same"
    assert "3 of 3 requests failed lately; it failed while it answered" in replica["trouble"]


async def test_history_has_a_value_for_each_bucket_and_ends_with_the_last_closed_one(desk: Desk) -> None:
    clock = desk.watched.clock
    desk.watched.figures.observe(answered(0.25), clock.now)
    clock.now += BUCKET_S
    history = (await live(desk))["history"]
    (model,) = history["models"]
    assert (history["bucket_s"], history["buckets"]) == (BUCKET_S, BUCKETS)
    assert history["ends_at"] == 1e9 + clock.now - clock.now % BUCKET_S
    assert model["first_token_p99_s"][:-1] == [None] * (BUCKETS - 1)
    assert model["first_token_p99_s"][-1] == pytest.approx(0.25, rel=0.05)
    assert model["requests"][-1] == 1


async def test_of_many_decisions_grants_are_left_out_first_and_counted(desk: Desk) -> None:
    scheduled = desk.management.scheduled
    granted = scheduled.decisions[-1]._replace(at_s=scheduled.now_s)
    many = tuple(granted._replace(request_id=f"r{number}") for number in range(200))
    desk.management.scheduled = replace(scheduled, decisions=many + scheduled.decisions)
    decisions = (await live(desk))["decisions"]
    assert len(decisions["data"]) == 50
    assert decisions["left_out"] == 204 - 50
    actions = [d["action"] for d in decisions["data"]]
    assert {"queued", "rejected", "draining"} <= set(actions)
    ages = [d["ago_s"] for d in decisions["data"]]
    assert ages == sorted(ages)


async def test_two_thousand_models_make_a_bounded_picture(desk: Desk) -> None:
    now = desk.watched.clock.now
    for number in range(2000):
        desk.watched.figures.observe(answered(of=target("a", f"m{number}")), now)
    answer = await desk.ask("GET", LIVE, **OPERATOR)
    picture = answer.json()
    assert len(picture["models"]) == len(picture["history"]["models"]) + 1 == 100
    assert picture["models_left_out"] == 101
    assert picture["other"]["requests"] == 1800
    assert len(answer.content) < 400_000


@pytest.mark.parametrize("path", [LIVE, f"{LIVE}/stream"])
async def test_tenants_keys_see_nothing_of_it(desk: Desk, path: str) -> None:
    answer = await desk.ask("GET", path, key="acme-key")
    assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")


async def test_tenants_are_listed_with_caps_and_without_keys(desk: Desk, house: Busy) -> None:
    answer = await desk.ask("GET", "/admin/v1/tenants", **OPERATOR)
    first = answer.json()["data"][0]
    assert (first["name"], first["band"], first["declared_keys"]) == ("a", "standard", 1)
    assert first["models"] == {"support": "a-support", "sales": "a-sales", "plain": "base"}
    assert first["caps"]["max_concurrency"] == 2
    for tenant in house.fleet.tenants.values():
        assert not any(digest in answer.text for digest in tenant.key_hashes)


def test_tenants_show_every_cap() -> None:
    assert list(CapsAnswer.model_fields) == [field.name for field in dataclasses.fields(Caps)]


def test_history_leaves_nothing_out() -> None:
    fields = {field.name for field in dataclasses.fields(figures.History)}
    assert set(answers.HistoryAnswer.model_fields) == fields | {"tenant", "model"}


# -- the stream --------------------------------------------------------------------------------------------


@pytest.fixture
async def watched(house: Busy) -> AsyncIterator[Watched]:
    """A feed that ticks fast; at the end nobody looks on and nothing ticks."""
    management = fakes.FakeManagement()
    watched = Watched(management)
    fill(management, watched, house)
    yield watched
    await eventually(lambda: watched.feed.viewers == 0, "the viewers' end")
    await eventually(lambda: watched.feed.is_idle, "the ticks' end")


def stream(feed: LiveFeed) -> Client:
    return Client(EventStream(feed), "/", method="GET").start()


def events(client: Client) -> list[tuple[str, Any]]:
    """What came so far."""
    parts = [part.split("\n") for part in client.body.decode().split("\n\n") if part.startswith("event: ")]
    return [(name.removeprefix("event: "), orjson.loads(data[6:])) for name, data in parts]


def count(client: Client, name: str) -> int:
    return sum(1 for each, _ in events(client) if each == name)


async def test_a_viewer_gets_everything_at_once_and_then_what_changes(watched: Watched, house: Busy) -> None:
    viewer = stream(watched.feed)
    await eventually(lambda: count(viewer, "snapshot") >= 3)
    names = [name for name, _ in events(viewer)]
    assert names[:4] == ["snapshot", "history", "decisions", "snapshot"]
    assert (names.count("history"), names.count("decisions")) == (1, 1), "nothing new was decided or closed"
    assert viewer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert viewer.headers["cache-control"] == "no-store"
    assert "content-length" not in viewer.headers

    house.offer("c", "support", "new")
    watched.management.scheduled = house.dispatcher.report(KEPT)
    watched.clock.now += BUCKET_S
    await eventually(lambda: count(viewer, "decisions") == 2 and count(viewer, "history") == 2)
    (decision,) = next(data for name, data in reversed(events(viewer)) if name == "decisions")["data"]
    assert (decision["request_id"], decision["action"]) == ("new", "granted")
    viewer.leave()
    await viewer.done()


async def test_a_tick_is_computed_once_for_all_viewers_and_not_at_all_for_none(watched: Watched) -> None:
    viewers = [stream(watched.feed) for _ in range(5)]
    await eventually(lambda: all(count(viewer, "snapshot") >= 4 for viewer in viewers))
    asked = watched.management.reported
    assert asked <= 5 + 3 * max(count(viewer, "snapshot") for viewer in viewers), "first pictures, and ticks"
    for viewer in viewers:
        viewer.leave()
        await viewer.done()
    assert watched.feed.is_idle


async def test_too_many_viewers_are_told_to_come_again(watched: Watched) -> None:
    viewers = [stream(watched.feed) for _ in range(MAX_VIEWERS)]
    with pytest.raises(Unavailable) as refused:
        EventStream(watched.feed)
    assert (refused.value.code, refused.value.retry_after_s) == ("too_many_viewers", 5.0)
    for viewer in viewers:
        viewer.leave()
        await viewer.done()


async def test_the_feeds_end_ends_every_stream_cleanly_and_lets_nobody_in(watched: Watched) -> None:
    viewers = [stream(watched.feed) for _ in range(3)]
    await eventually(lambda: all(count(viewer, "snapshot") for viewer in viewers))
    watched.feed.close()
    for viewer in viewers:
        await viewer.done()
        assert viewer.body.endswith(END)
        assert viewer.ended
    with pytest.raises(Unavailable) as refused:
        watched.feed.join()
    assert refused.value.code == "shutting_down"


async def test_a_stream_ends_after_a_while_so_that_the_key_is_looked_at_again(house: Busy) -> None:
    management = fakes.FakeManagement()
    feed = Watched(management, max_watch_s=0.05).feed
    viewer = stream(feed)
    await viewer.done()
    assert viewer.body.endswith(END)
    assert feed.viewers == 0


async def test_a_viewer_that_takes_nothing_is_dropped_and_the_others_go_on() -> None:
    feed = Watched(fakes.FakeManagement(), send_timeout_s=0.05).feed
    stuck, well = stream(feed), stream(feed)
    await eventually(lambda: count(stuck, "snapshot") >= 1)
    stuck.reading.clear()
    await stuck.done()
    assert feed.viewers == 1
    seen = count(well, "snapshot")
    await eventually(lambda: count(well, "snapshot") > seen)
    well.leave()
    await well.done()
    assert feed.viewers == 0
