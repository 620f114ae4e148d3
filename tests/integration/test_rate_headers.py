"""What is left of a tenant's rates, and how long it took: on every answer of a model, refusals too."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.types import Caps
from tests.fakes import Client, small_fleet
from tests.integration.conftest import Bench, bench_of

WHAT = ("limit", "remaining", "reset")
NAMES = {f"x-ratelimit-{what}-{of}" for what in WHAT for of in ("requests", "tokens")}


def rates(client: Client) -> dict[str, str]:
    return {name: value for name, value in client.headers.items() if name in NAMES}


async def test_each_answer_says_what_is_left_and_a_429_too(tmp_path: Path) -> None:
    fleet = small_fleet(caps=Caps(requests_per_minute=3, tokens_per_minute=1000))
    async with bench_of(fleet, tmp_path) as bench:
        answers = [await bench.chat("a", stream=stream)() for stream in (False, True, False, False)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert all(rates(answer).keys() == NAMES for answer in answers)
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == [
            "2",
            "1",
            "0",
            "0",
        ]
        tokens = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
        assert tokens == sorted(tokens, reverse=True) and tokens[0] > tokens[2] > 900
        other = await bench.chat("b")()
        assert other.headers["x-ratelimit-remaining-requests"] == "2", "another tenant's are its own"


async def test_a_tenant_without_rates_is_told_of_none(bench: Bench) -> None:
    assert rates(await bench.chat()()) == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_and_failures_say_how_long_they_took(bench: Bench, stream: bool) -> None:
    assert int((await bench.chat("a", stream=stream)()).headers["openai-processing-ms"]) >= 0
    bench.engines["shared-0"].behave = bench.engines["shared-0"].break_down
    failed = await bench.chat("a", stream=stream)()
    assert failed.status == 502 and int(failed.headers["openai-processing-ms"]) >= 0
