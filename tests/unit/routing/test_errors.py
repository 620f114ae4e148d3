"""What a client is told about trying again, and what the `openai` package makes of it."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import openai
import pytest

from routing.errors import (
    CapReached,
    EngineFailed,
    EngineTimeout,
    InvalidKey,
    InvalidRequest,
    Quarantined,
    RequestError,
    Unavailable,
)

Send = Callable[[RequestError], int]


@pytest.mark.parametrize(
    ("case", "error", "headers"),
    [
        ("no advice", CapReached("No."), {}),
        (
            "seconds are rounded up, milliseconds are exact",
            CapReached("No.", retry_after_s=1.2345),
            {"retry-after": "2", "retry-after-ms": "1235", "x-should-retry": "true"},
        ),
        (
            "never at once",
            Unavailable("No.", retry_after_s=0.0),
            {"retry-after": "1", "retry-after-ms": "1", "x-should-retry": "true"},
        ),
        (
            "the longest wait that clients keep to",
            CapReached("No.", retry_after_s=60.0),
            {"retry-after": "40", "retry-after-ms": "40000", "x-should-retry": "true"},
        ),
        (
            "a longer one",
            CapReached("No.", retry_after_s=60.1),
            {"retry-after": "61", "retry-after-ms": "60100", "x-should-retry": "false"},
        ),
        ("a request that took too long", EngineTimeout("Too long."), {"x-should-retry": "false"}),
        (
            "the same with a wait, for whoever else reads it",
            EngineTimeout("Too long.", retry_after_s=1.0),
            {"retry-after": "1", "retry-after-ms": "1000", "x-should-retry": "false"},
        ),
        ("a model that was refused", Quarantined("No."), {"x-should-retry": "false"}),
        ("a wrong request", InvalidRequest("No."), {}),
        ("no key", InvalidKey("No."), {"www-authenticate": "Bearer"}),
    ],
)
def test_the_headers_say_when_to_try_again_and_whether(
    case: str, error: RequestError, headers: dict[str, str]
) -> None:
    assert {name.decode(): value.decode() for name, value in error.headers_for("")} == headers, case


@pytest.mark.parametrize(
    ("advice_s", "first_s", "last_s"),
    [
        (0.0, 0, 1),
        (0.5, 0.5, 1.5),
        (5.0, 5, 7.5),
        (30.0, 30, 45),
        (50.0, 40, 60),
        (60.0, 40, 60),
        (90.0, 90, 135),
        (86_000.0, 86_000, 86_060),
    ],
)
def test_those_who_are_told_the_same_do_not_come_back_in_the_same_instant(
    advice_s: float, first_s: float, last_s: float
) -> None:
    error = CapReached("No.", retry_after_s=advice_s)
    told = [{k.decode(): int(v) for k, v in error.headers_for(f"{n:032x}")[:2]} for n in range(1000)]
    exact = sorted(headers["retry-after-ms"] / 1000 for headers in told)
    assert first_s <= exact[0] and exact[-1] <= last_s + 0.001
    assert exact[-1] - exact[0] > 0.9 * (last_s - first_s), "over all of that time"
    fullest = max(sum(start <= x < start + (last_s - first_s) / 10 for x in exact) for start in exact)
    assert fullest < 200, "a tenth of the time gets about a tenth of them"
    whole = {headers["retry-after"] for headers in told}
    assert len(whole) > 1 or last_s < 2
    assert min(whole) >= max(1, int(first_s))
    again = [dict(error.headers_for(f"{n:032x}")) for n in range(3)]
    assert [int(headers[b"retry-after-ms"]) for headers in again] == [h["retry-after-ms"] for h in told[:3]]


@pytest.fixture
def send() -> Send:
    """Answer every request of an `openai` client that may try three times, and count them."""

    def count(error: RequestError) -> int:
        seen: list[httpx2.Request] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(error.status, headers=error.headers_for(""), content=error.body())

        http = openai.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
        with (
            openai.OpenAI(
                api_key="k", base_url="http://gateway/v1", max_retries=2, http_client=http
            ) as client,
            pytest.raises(openai.APIStatusError) as caught,
        ):
            client.models.list()
        assert caught.value.status_code == error.status
        return len(seen)

    return count


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (CapReached("Wait.", retry_after_s=0.001), 3),
        (EngineFailed("Broken.", retry_after_s=0.001), 3),
        (CapReached("Wait long.", retry_after_s=90.0), 1),
        (EngineTimeout("Too long."), 1),
        (InvalidRequest("Wrong."), 1),
    ],
)
def test_the_openai_client_does_as_it_is_told(send: Send, error: RequestError, requests: int) -> None:
    assert send(error) == requests
