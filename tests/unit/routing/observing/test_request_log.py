"""Lines of requests, written several at once."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from engines import logs
from routing.observing.request_log import line_of, write_lines
from tests.unit.routing.observing.metrics.scrapes import ended


def test_many_requests_make_one_message_of_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tenantry.request")
    write_lines([ended(number) for number in range(3)])
    (message,) = caplog.messages
    assert [json.loads(line)["model"] for line in message.splitlines()] == [
        "adapter-0000",
        "adapter-0001",
        "adapter-0002",
    ]


@pytest.fixture
def written() -> Iterator[Callable[[bool], io.StringIO]]:
    """Write the log to memory, in JSON or not; afterwards it goes where it went."""
    root = logging.getLogger()
    names = ("tenantry", "vllm", "bentoml")
    before = root.handlers, root.level, [logging.getLogger(name).level for name in names]

    def configure(as_json: bool) -> io.StringIO:
        stream = CountedWrites()
        logs.configure(logs.LogSettings(as_json=as_json), stream, None)
        return stream

    yield configure
    logging.captureWarnings(False)
    root.handlers, level, levels = before
    root.setLevel(level)
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


class CountedWrites(io.StringIO):
    """Counts what would be system calls."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_many_requests_are_one_write(written: Callable[[bool], CountedWrites], as_json: bool) -> None:
    stream = written(as_json)
    write_lines([ended(number) for number in range(64)])
    assert stream.flushes == 1
    assert len(stream.getvalue().splitlines()) == 64


def test_json_lines_are_the_records_and_nothing_around_them(
    written: Callable[[bool], io.StringIO],
) -> None:
    stream, records = written(True), [ended(number) for number in range(2)]
    write_lines(records)
    assert stream.getvalue() == "".join(f"{line_of(record)}\n" for record in records)


def test_lines_for_people_begin_with_the_time_and_cannot_be_forged(
    written: Callable[[bool], io.StringIO],
) -> None:
    stream, forged = written(False), ended(1)
    forged.target = replace(forged.target, model="x\n12:00:00 shop support 200")
    write_lines([ended(0), forged])
    first, second = stream.getvalue().splitlines()
    assert first[8:] == " tenant-00 adapter-0000 200 2.30s 100+41 tok shared-0"
    assert "x\\n12:00:00 shop support 200 200 2.30s" in second
