"""What does it mean for a request, and for others, how a replica failed before it answered?"""

from __future__ import annotations

from typing import Any

import pytest

from engines import protocol
from engines.protocol import Kind
from routing.flights.attempt import Attempt, Question, ReplicaBroken
from routing.openai.bodies import parse
from routing.replicas.http1 import Unreachable, UpstreamError
from tests.unit.routing.requests import target


class Failing:
    """A replica that fails in that way: before it answers, or with that fault and status."""

    def __init__(
        self, error: Exception | None = None, *, fault: str | None = None, status: int = 200
    ) -> None:
        self.error, self.fault, self.status = error, fault, status

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """Fail."""
        if self.error is not None:
            raise self.error
        return self

    async def read(self) -> bytes:
        """Give the body of an answer that is an error."""
        return b"{}"

    @property
    def headers(self) -> dict[str, str]:
        """Return what says who is at fault."""
        return {} if self.fault is None else {protocol.FAULT_HEADER: self.fault}

    def end(self, response: object) -> None:
        """Be done."""


@pytest.mark.parametrize(
    ("replica", "down", "begun", "crashed"),
    [
        (Failing(Unreachable("refused")), True, False, False),
        (Failing(fault=protocol.FAULT_ENGINE, status=503), True, False, False),
        (Failing(fault=protocol.FAULT_DEATH, status=500), True, True, False),
        (Failing(UpstreamError("it ended")), False, True, True),
        (Failing(TimeoutError()), False, True, False),
        (Failing(status=500), False, True, True),
    ],
    ids=[
        "it takes no connection",
        "its engine does not run",
        "its engine died with the request in it",
        "it broke off",
        "it was left",
        "it failed on the request",
    ],
)
async def test_how_a_replica_failed_says_whether_it_is_down_and_whether_the_request_may_be_why(
    replica: Any, down: bool, begun: bool, crashed: bool
) -> None:
    call = parse(Kind.COMPLETION, b'{"prompt": "one"}')
    attempt = Attempt(Question(call, target(), b"{}", 1), replica)
    with pytest.raises(ReplicaBroken) as broken:
        await attempt.open()
    assert (broken.value.is_down, broken.value.begun, broken.value.crashed) == (down, begun, crashed)
