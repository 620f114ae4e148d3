"""A client's trace header is read with suspicion."""

from __future__ import annotations

import pytest

from routing.observing.tracing.context import TraceContext, read, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_valid_header_names_its_trace_and_span() -> None:
    context = read(GOOD)
    assert context == TraceContext(TRACE, SPAN, sampled=True)
    assert context is not None and context.header == GOOD
    assert trace_id_of(GOOD) == TRACE


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_only_the_lowest_flag_means_sampled(flags: str, sampled: bool) -> None:
    context = read(f"00-{TRACE}-{SPAN}-{flags}")
    assert context is not None and context.sampled is sampled


def test_a_later_version_may_say_more() -> None:
    assert trace_id_of(f"01-{TRACE}-{SPAN}-01-and-more") == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"{GOOD}-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f" {GOOD}",
        f"{GOOD}\n",
        f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_anything_else_is_no_trace(header: str | None) -> None:
    assert read(header) is None
    assert trace_id_of(header) is None
