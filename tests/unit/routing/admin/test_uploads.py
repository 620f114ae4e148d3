"""Uploads: streamed, bounded, and nothing left behind however they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from adapters.states import VersionState
from routing.admin.adapters import MAX_WAITING_UPLOADS
from routing.admin.uploads import MAX_RUNNING, MEDIA_TYPES
from routing.catalog.entries import AdapterKey, RolloutPlan, Version
from routing.catalog.sources import Upload
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk, error_of
from tests.unit.routing.admin.test_gate import raw

VERSIONS = "/admin/v1/adapters/support/versions"


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_an_archive_arrives_whole(desk: Desk, media_type: str) -> None:
    answer = await desk.upload(b"x" * 1000, headers={"content-type": f"{media_type}; q=1"})
    assert answer.status_code == 202
    assert answer.json()["source"] == "upload"
    assert desk.management.uploads == [b"x" * 1000]
    assert desk.left_over == []


async def test_an_archive_in_many_parts_arrives_whole_and_in_order(tmp_path: Path) -> None:
    parts = [bytes([number]) * 300_000 for number in range(8)]

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    desk = fakes.desk(tmp_path, max_upload_bytes=3_000_000)
    assert (await desk.upload(body())).status_code == 202
    assert desk.management.uploads == [b"".join(parts)]


async def test_what_goes_with_an_upload_stands_in_the_query(desk: Desk) -> None:
    query = f"?base_model=base&sha256={'AB' * 32}&weight=0.2&promote_after=100"
    assert (await desk.upload(b"x", VERSIONS + query)).status_code == 202
    _, key, base_model, new = desk.management.calls[0]
    assert (key, base_model, new.sha256) == (("acme", "support"), "base", "ab" * 32)
    assert new.rollout == RolloutPlan(weight=0.2, promote_after=100)
    assert new.source is None


async def test_without_a_plan_there_is_no_rollout(desk: Desk) -> None:
    await desk.upload(b"x")
    assert desk.management.calls[0][3].rollout is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("weight=0", "weight"),
        ("weight=nan", "weight"),
        ("weight=2", "weight"),
        ("promote_after=0", "promote_after"),
        ("sha256=xyz", "sha256"),
        ("base_model=../..", "base_model"),
        ("source=/etc/passwd", "source"),
    ],
)
async def test_a_bad_query_is_refused_before_the_body_is_read(desk: Desk, query: str, param: str) -> None:
    answer = await desk.upload(unread(), f"{VERSIONS}?{query}")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


@pytest.mark.parametrize(("key", "tenant"), [("globex-key", "acme"), ("operator-key", "nobody")])
async def test_an_upload_for_a_tenant_that_is_not_there_is_not_read(
    desk: Desk, key: str, tenant: str
) -> None:
    answer = await desk.upload(unread(), f"{VERSIONS}?tenant={tenant}", key=key)
    assert answer.status_code == 404


async def test_an_upload_that_says_it_is_too_large_is_not_read(desk: Desk) -> None:
    answer = await desk.upload(unread(), headers={"content-length": "1001"})
    assert answer.status_code == 413
    assert desk.left_over == []


async def test_an_upload_that_turns_out_too_large_is_cut_off(desk: Desk) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    answer = await desk.upload(body())
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "body_too_large"
    assert sent <= 1200
    assert desk.left_over == []
    assert desk.management.calls == []


async def test_an_empty_upload_is_refused(desk: Desk) -> None:
    answer = await desk.upload(b"")
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "empty_upload"
    assert desk.left_over == []


async def test_an_upload_that_stalls_is_a_408(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    desk = fakes.desk(tmp_path, read_timeout_s=0.02)
    answer = await desk.upload(body())
    assert answer.status_code == 408
    assert desk.left_over == []
    assert desk.management.calls == []


async def test_a_client_that_leaves_leaves_nothing_behind(desk: Desk) -> None:
    headers = [("authorization", "Bearer acme-key"), ("content-type", "application/zip")]
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    assert await raw(desk, "POST", VERSIONS, headers=headers, messages=messages) == []
    assert desk.left_over == []
    assert desk.management.calls == []
    assert (await desk.upload(b"x")).status_code == 202


async def test_a_refused_registration_removes_the_upload(desk: Desk) -> None:
    desk.management.gone = True
    assert (await desk.upload(b"x")).status_code == 503
    assert desk.left_over == []


async def test_a_disk_that_takes_nothing_is_a_503_without_its_name(desk: Desk) -> None:
    desk.folder.write_bytes(b"a file where the folder belongs")
    answer = await desk.upload(b"x")
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "storage_unavailable"
    assert str(desk.folder) not in answer.text


async def test_a_tenant_has_few_uploads_at_once_and_others_are_not_held_up(desk: Desk) -> None:
    go = asyncio.Event()
    begun = [asyncio.Event() for _ in range(MAX_RUNNING)]

    async def body(begun: asyncio.Event) -> AsyncIterator[bytes]:
        begun.set()
        yield b"x"
        await go.wait()

    running = [asyncio.create_task(desk.upload(body(event))) for event in begun]
    for event in begun:
        await event.wait()
    refused = await desk.upload(b"x")
    assert refused.status_code == 429
    assert error_of(refused)["code"] == "max_uploads"
    assert int(refused.headers["retry-after"]) > 0
    assert (await desk.upload(b"x", key="globex-key")).status_code == 202
    go.set()
    assert [(await answer).status_code for answer in running] == [202] * MAX_RUNNING
    assert (await desk.upload(b"x")).status_code == 202


async def test_archives_that_wait_to_be_checked_are_bounded(desk: Desk) -> None:
    key = AdapterKey("acme", "support")
    waiting = VersionState.REGISTERED
    versions = (Version(n, key, n, Upload("1"), waiting) for n in range(1, MAX_WAITING_UPLOADS + 1))
    desk.management.put("support", versions=tuple(versions), live=None)
    answer = await desk.upload(unread())
    assert answer.status_code == 429
    assert error_of(answer)["code"] == "max_waiting_uploads"
    assert (await desk.upload(b"x", key="globex-key")).status_code == 202


async def test_archives_that_come_at_once_are_bounded_together(desk: Desk) -> None:
    key, go, begun = AdapterKey("acme", "support"), asyncio.Event(), asyncio.Event()
    waiting = VersionState.REGISTERED
    versions = (Version(n, key, n, Upload("1"), waiting) for n in range(1, MAX_WAITING_UPLOADS))
    desk.management.put("support", versions=tuple(versions), live=None)

    async def body() -> AsyncIterator[bytes]:
        begun.set()
        yield b"x"
        await go.wait()

    running = asyncio.create_task(desk.upload(body()))
    await begun.wait()
    answer = await desk.upload(unread())
    assert (answer.status_code, error_of(answer)["code"]) == (429, "max_waiting_uploads")
    go.set()
    assert (await running).status_code == 202


async def test_a_file_stays_open_while_a_slow_disk_still_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload is broken off in the middle of a write: nobody else may get that file's descriptor."""
    begun, go, closed = asyncio.Event(), threading.Event(), list[bool]()
    loop = asyncio.get_running_loop()

    def write(file: BinaryIO, data: bytes) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(10)
        closed.append(file.closed)

    monkeypatch.setattr("routing.admin.uploads._write_all", write)
    uploading = asyncio.create_task(fakes.desk(tmp_path).upload(b"x" * 100))
    await begun.wait()
    uploading.cancel()
    loop.call_later(0.02, go.set)
    await asyncio.gather(uploading, return_exceptions=True)
    assert closed == [False]


async def unread() -> AsyncIterator[bytes]:
    """A body that nobody may read."""
    raise AssertionError("the body was read")
    yield b""
