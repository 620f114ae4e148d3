"""Lines of requests, written several at once."""

from __future__ import annotations

import json
import logging

import pytest

from routing.request_log import write_lines
from tests.unit.routing.metrics.scrapes import ended


def test_many_requests_make_one_message_of_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tenantry.request")
    write_lines([ended(number) for number in range(3)])
    (message,) = caplog.messages
    assert [json.loads(line)["model"] for line in message.splitlines()] == [
        "adapter-0000",
        "adapter-0001",
        "adapter-0002",
    ]
