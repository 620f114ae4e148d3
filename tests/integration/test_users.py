"""Users of one tenant, as its requests name them: one cannot starve another. The engines are fake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.types import GatewaySettings
from tests.fakes import eventually, small_fleet
from tests.integration.conftest import Bench, bench_of

SECRET_NAME = "eve@example.com"
CONTENT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/embeddings": {"input": "x"},
}


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
async def test_a_users_one_request_comes_before_the_rest_of_anothers_many(tmp_path: Path, field: str) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        many = [bench.chat(model="support", **{field: "batch"}).start() for _ in range(30)]
        await eventually(lambda: sum(bench.gateway.dispatcher.queued().values()) == 29)
        one = bench.chat(model="support", **{field: "person"}).start()
        await eventually(lambda: sum(bench.gateway.dispatcher.queued().values()) == 30)
        engine.release.set()
        for client in (one, *many):
            assert (await client.done()).status == 200
        assert [body[field] for body in engine.seen].index("person") <= 2
        assert bench.at_rest


@pytest.mark.parametrize("path", CONTENT)
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        "",
        "\x00\r\n",
        "../../etc/passwd",
        "{tenant}",
        "u" * 100_000,
        [],
        ["u"],
        {},
        {"a": {}},
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_whatever_the_user_is_the_request_is_answered_or_refused_by_name(
    bench: Bench, path: str, value: Any
) -> None:
    for field in ("user", "safety_identifier"):
        client = await bench.post(path, {"model": "support", **CONTENT[path], field: value})()
        assert client.status in (200, 400)
        if client.status == 400:
            assert orjson.loads(client.body)["error"]["param"] == field
            assert not isinstance(value, str)
    assert bench.at_rest


async def test_a_users_name_is_in_no_log_line_and_in_no_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with bench_of(small_fleet(settings=GatewaySettings(log_requests=True)), tmp_path) as bench:
        assert (await bench.chat(model="support", user=SECRET_NAME)()).status == 200
        assert bench.logged(caplog) and SECRET_NAME not in caplog.text
        assert SECRET_NAME not in bench.gateway.metrics.page().decode()
        assert SECRET_NAME not in repr(bench.gateway.dispatcher.report())
