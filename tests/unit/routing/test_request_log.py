"""Lines of requests, written several at once."""

from __future__ import annotations

import json
import logging

import pytest

from routing.request_log import LINES, RequestLog
from tests.unit.routing.metrics.scrapes import ended


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "tenantry.request")
    return caplog


def test_lines_wait_for_the_next_flush_and_come_in_order(written: pytest.LogCaptureFixture) -> None:
    log = RequestLog(enabled=True)
    for number in range(3):
        log.note(ended(number))
    assert written.messages == []
    log.flush()
    log.flush()
    (message,) = written.messages
    assert [json.loads(line)["model"] for line in message.splitlines()] == [
        "adapter-0000",
        "adapter-0001",
        "adapter-0002",
    ]


def test_many_lines_do_not_wait(written: pytest.LogCaptureFixture) -> None:
    log = RequestLog(enabled=True)
    for _ in range(LINES + 1):
        log.note(ended())
    assert [len(message.splitlines()) for message in written.messages] == [LINES]
    log.flush()
    assert len(written.messages) == 2


def test_nothing_is_written_where_nobody_wants_it(written: pytest.LogCaptureFixture) -> None:
    log = RequestLog(enabled=False)
    log.note(ended())
    log.flush()
    assert written.messages == []
