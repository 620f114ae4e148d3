"""Which failures are tried again, for how long, and which end in quarantine?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from adapters.errors import AdapterError, SourceUnavailable, StoreFull
from routing.lifecycle import attempts
from routing.lifecycle.attempts import make_ready


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    paused: list[float] = []
    real = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        paused.append(delay_s)
        await real(0)

    monkeypatch.setattr("routing.lifecycle.attempts.asyncio.sleep", sleep)
    return paused


async def outcome(failures: Iterator[Exception | None]) -> tuple[list[str], list[str]]:
    """Run one version's attempts; returns what was told before new attempts, and why there were no more."""
    again: list[str] = []
    refused: list[str] = []

    async def attempt() -> None:
        failure = next(failures)
        if failure is not None:
            raise failure

    async def tell(reason: str) -> None:
        again.append(reason)

    async def quarantine(error: AdapterError) -> None:
        refused.append(str(error))

    await make_ready("version 1 of a/billing", attempt, tell, quarantine)
    return again, refused


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceUnavailable("it does not answer"), "it does not answer"),
        (StoreFull("the disk is full"), "the disk is full"),
        (KeyError("size"), "it failed with KeyError; the gateway's log says where"),
        (RuntimeError("a loop"), "it failed with RuntimeError; the gateway's log says where"),
    ],
)
async def test_what_may_do_better_later_is_tried_again_and_then_given_up_with_the_reason(
    error: Exception, reason: str, pauses: list[float]
) -> None:
    again, refused = await outcome(iter([error] * 6))
    assert again == [reason] * 5 and refused == [reason]
    assert pauses == [*attempts.RETRY_DELAYS_S]


async def test_a_machine_that_fails_is_asked_for_ever(pauses: list[float]) -> None:
    again, refused = await outcome(iter([OSError(30, "Read-only file system")] * 9 + [None]))
    assert again == ["the store cannot be written: Read-only file system"] * 9
    assert refused == []
    assert pauses == [*attempts.RETRY_DELAYS_S, *[attempts.RETRY_DELAYS_S[-1]] * 4]


async def test_a_fault_of_the_adapter_is_final(pauses: list[float]) -> None:
    again, refused = await outcome(iter([AdapterError("it has no weights")]))
    assert (again, refused, pauses) == ([], ["it has no weights"], [])
