"""Files and batches, as OpenAI's client uses them, in front of fake engines."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError

from routing.batches.values import ENDED
from tests.fakes import Client, eventually, key_of
from tests.integration.conftest import Bench
from tests.integration.mesh import MODELS, mesh_fleet, mesh_of


def request(custom_id: str, model: str = "support", **body: Any) -> dict[str, Any]:
    """A line's request: a chat."""
    chat = {"model": model, "messages": [{"role": "user", "content": custom_id}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": chat}


def jsonl(*requests: dict[str, Any]) -> bytes:
    """The file of some requests."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in requests)


@asynccontextmanager
async def openai(bench: Bench, tenant: str = "a") -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client with the tenant's key."""
    transport = httpx2.ASGITransport(bench.gateway.app)
    async with AsyncOpenAI(
        api_key=key_of(tenant),
        base_url="http://gateway/v1",
        http_client=httpx2.AsyncClient(transport=transport, timeout=20),
        max_retries=0,
    ) as client:
        yield client


async def opened(bench: Bench) -> None:
    """Wait until the gateway has its folder."""
    await eventually(lambda: bool(bench.gateway.batching.runner.home), "the folder of batches")


async def ended(client: AsyncOpenAI, batch_id: str) -> Any:
    """Wait until a batch has ended."""
    async with asyncio.timeout(20):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if batch.status in ENDED:
                return batch
            await asyncio.sleep(0.01)


async def run(client: AsyncOpenAI, content: bytes, endpoint: Any = "/v1/chat/completions") -> Any:
    """Have a file's requests answered; returns the batch."""
    file = await client.files.create(file=("requests.jsonl", io.BytesIO(content)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"project": "night"}
    )
    return await ended(client, batch.id)


async def lines_of(client: AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a file, by their custom ids, each of which is there once."""
    assert file_id is not None
    lines = [json.loads(line) for line in (await client.files.content(file_id)).text.splitlines()]
    told = {line["custom_id"]: line for line in lines}
    assert len(told) == len(lines)
    return told


async def test_the_official_clients_example_works_as_it_stands(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        content = jsonl(*(request(f"r-{n}", ["support", "sales", "plain"][n % 3]) for n in range(30)))
        batch = await run(client, content)
        assert batch.status == "completed" and batch.error_file_id is None and batch.errors is None
        assert (batch.request_counts.total, batch.request_counts.completed) == (30, 30)
        assert batch.metadata == {"project": "night"} and batch.completed_at >= batch.created_at
        answers = await lines_of(client, batch.output_file_id)
        assert set(answers) == {f"r-{n}" for n in range(30)}
        for n in range(30):
            response = answers[f"r-{n}"]["response"]
            assert response["status_code"] == 200 and answers[f"r-{n}"]["error"] is None
            body = response["body"]
            assert body["model"] == ["support", "sales", "plain"][n % 3], "as the tenant calls it"
        listed = await client.files.list(purpose="batch_output")
        assert [file.id for file in listed.data] == [batch.output_file_id]


async def test_a_line_comes_with_all_that_a_request_comes_with(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        await run(client, jsonl(request("one", cache_salt="mine", priority=-5)))
    (seen,) = bench.engines["shared-0"].seen
    assert seen["cache_salt"] != "mine" and seen["priority"] == 3, "below every band"
    assert seen["model"].startswith("a-support"), "as engines call it"


async def test_what_a_line_used_is_in_the_ledger_once_under_its_key(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        batch = await run(client, jsonl(*(request(f"r-{n}") for n in range(20))))
    answer = (await bench.get("/v1/usage?group_by=model,key", key=key_of("a"))()).json()
    (line,) = answer["data"]
    assert line["requests"] == 20 and line["key"]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (140, 60), "as the engine counted"
    assert batch.request_counts.completed == 20


async def test_lines_that_are_refused_are_among_the_errors_and_the_others_are_answered(bench: Bench) -> None:
    await opened(bench)
    wrong = [request("unknown", "nothing"), request("other's", "b-support"), request("wrong", messages="x")]
    async with openai(bench) as client:
        batch = await run(client, jsonl(request("right"), *wrong))
        assert batch.status == "completed"
        assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 3)
        assert set(await lines_of(client, batch.output_file_id)) == {"right"}
        errors = await lines_of(client, batch.error_file_id)
        told = {
            name: (line["response"]["status_code"], line["response"]["body"]["error"]["code"])
            for name, line in errors.items()
        }
        assert told == {
            "unknown": (404, "model_not_found"),
            "other's": (404, "model_not_found"),
            "wrong": (400, "invalid_type"),
        }


ROUTES = [
    *(("GET", "/v1/files/{}"), ("GET", "/v1/files/{}/content"), ("DELETE", "/v1/files/{}")),
    *(("GET", "/v1/batches/{}"), ("POST", "/v1/batches/{}/cancel")),
]


async def test_nobody_sees_or_uses_what_another_tenant_has(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client, openai(bench, "b") as other:
        batch = await run(client, jsonl(request("mine")))
        for file_id in (batch.input_file_id, batch.output_file_id):
            for call in (other.files.retrieve, other.files.content, other.files.delete):
                with pytest.raises(NotFoundError):
                    await call(file_id)
        with pytest.raises(NotFoundError):
            await other.batches.retrieve(batch.id)
        with pytest.raises(NotFoundError):
            await other.batches.cancel(batch.id)
        with pytest.raises(NotFoundError):
            await other.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        assert not (await other.files.list()).data and not (await other.batches.list()).data
        assert not (await other.batches.list(after=batch.id)).data
        ids = (
            batch.input_file_id,
            batch.output_file_id,
            batch.id,
            "nothing",
            "file-\0",
            "'",
            "ü",
            "x" * 9999,
        )
        for method, path in ROUTES:
            answers = [
                await Client(
                    bench.gateway.app,
                    path.format(id_),
                    method=method,
                    headers=[("authorization", f"Bearer {key_of('b')}")],
                )()
                for id_ in ids
            ]
            told = {(answer.status, answer.body) for answer in answers}
            assert len(told) == 1 and answers[0].status == 404, "as of one that nobody has"
        assert (await client.files.content(batch.input_file_id)).text == jsonl(request("mine")).decode()


async def test_files_and_batches_are_listed_in_pages(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        batches = [await run(client, jsonl(request(f"r-{n}"))) for n in range(3)]
        seen = [batch.id async for batch in await client.batches.list(limit=2)]
        assert seen == [batch.id for batch in reversed(batches)], "the newest first"
        files = [file.id async for file in await client.files.list(purpose="batch", limit=1, order="asc")]
        assert files == [batch.input_file_id for batch in batches]


async def test_a_cancelled_batch_keeps_what_was_answered(bench: Bench) -> None:
    await opened(bench)
    engine = bench.engines["shared-0"]
    async with openai(bench) as client:
        engine.behave = engine.hold
        content = jsonl(*(request(f"r-{n}") for n in range(50)))
        file = await client.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        began = 2
        await eventually(lambda: engine.running == began, "a quarter of the engine's eight")
        with pytest.raises(ConflictError):
            await client.files.delete(file.id)
        batch = await client.batches.cancel(batch.id)
        assert batch.status == "cancelling"
        engine.release.set()
        batch = await ended(client, batch.id)
        assert batch.status == "cancelled" and batch.cancelled_at >= batch.cancelling_at
        assert batch.request_counts.completed == began == len(await lines_of(client, batch.output_file_id))
        with pytest.raises(ConflictError):
            await client.batches.cancel(batch.id)
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(NotFoundError):
            await client.files.content(file.id)


async def test_lines_take_a_part_of_what_others_leave_and_nothing_while_others_wait(bench: Bench) -> None:
    await opened(bench)
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    async with openai(bench) as client:
        file = await client.files.create(
            file=("requests.jsonl", jsonl(*(request(f"r-{n}") for n in range(20)))), purpose="batch"
        )
        waiting = [bench.chat("a", model="support").start() for _ in range(9)]
        await eventually(lambda: engine.running == 8, "a full engine")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        await eventually(lambda: bench.gateway.batching.runner.unfinished()["in_progress"] == 1)
        await asyncio.sleep(0.2)
        spare = bench.gateway.dispatcher.replicas["shared-0"].engine
        assert spare.spare == 0 and spare.sequences == 8
        engine.release.set()
        for client_ in waiting:
            await client_.done()
        engine.release.clear()
        await eventually(lambda: spare.spare > 0, "lines, once nobody waits")
        await asyncio.sleep(0.2)
        assert spare.spare == 2, "a quarter of eight"
        engine.release.set()
        assert (await ended(client, batch.id)).request_counts.completed == 20


async def test_a_line_that_an_engine_cannot_answer_is_asked_again_and_then_an_error(bench: Bench) -> None:
    await opened(bench)
    engine = bench.engines["shared-0"]
    engine.behave = engine.break_down
    async with openai(bench) as client:
        batch = await run(client, jsonl(request("breaks")))
        assert (batch.status, batch.request_counts.failed) == ("completed", 1)
        (line,) = (await lines_of(client, batch.error_file_id)).values()
        assert line["response"]["status_code"] in (400, 502)
    usage = (await bench.get("/v1/usage", key=key_of("a"))()).json()
    assert usage["total"]["requests"] == 1, "one line, one row"


async def test_bounds_on_files_and_batches_are_kept(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        with pytest.raises(BadRequestError, match="purpose"):
            await client.files.create(file=("x", b"{}"), purpose="fine-tune")
        with pytest.raises(BadRequestError, match="expires_after"):
            await client.files.create(
                file=("x", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 5}
            )
        file = await client.files.create(
            file=("x", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert file.expires_at == pytest.approx(file.created_at + 3600, abs=2)
        wrongs: list[dict[str, Any]] = [
            *({"endpoint": "/admin"}, {"completion_window": "1h"}, {"metadata": {"a": "x" * 513}}),
            *(
                {"output_expires_after": {"anchor": "created_at", "seconds": s}}
                for s in (5, 1e4, True, "7200")
            ),
            *({"output_expires_after": told} for told in (7200, {}, {"seconds": 7200})),
        ]
        for wrong in wrongs:
            told: Any = {
                "input_file_id": file.id,
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                **wrong,
            }
            with pytest.raises(BadRequestError):
                await client.batches.create(**told)


async def test_what_comes_out_of_a_batch_is_kept_as_long_as_its_client_says(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        file = await client.files.create(file=("x", jsonl(request("x"))), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            output_expires_after={"anchor": "created_at", "seconds": 7200},
        )
        output = await client.files.retrieve((await ended(client, batch.id)).output_file_id)
        assert output.expires_at == pytest.approx(output.created_at + 7200, abs=2)


async def test_a_stored_response_is_not_found_as_openai_says_it(bench: Bench) -> None:
    async with openai(bench) as client:
        for call in (client.responses.retrieve("resp_1"), client.responses.cancel("resp_1")):
            with pytest.raises(NotFoundError, match="stores no responses"):
                await call
        with pytest.raises(NotFoundError):
            await client.responses.input_items.list("resp_1")
    for path in ("/v1/responses/resp_1", "/v1/files", "/v1/batches"):
        assert (await bench.get(path)()).status == 401
        assert (await bench.get(path, key=key_of("operator"))()).status == 401, "operators have none"


async def test_the_metrics_say_how_many_batches_and_lines_there_are(bench: Bench) -> None:
    await opened(bench)
    async with openai(bench) as client:
        await run(client, jsonl(request("right"), request("wrong", "nothing")))
    page = (await bench.get("/metrics", key=key_of("operator"))()).body.decode()
    assert 'tenantry_batch_lines_total{outcome="completed"} 1.0' in page
    assert 'tenantry_batch_lines_total{outcome="failed"} 1.0' in page


async def test_a_suspended_tenants_batch_stops_and_says_why(bench: Bench) -> None:
    await opened(bench)
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    content = jsonl(*(request(f"r-{n}") for n in range(20)))
    fleet = bench.gateway.fleet.now
    async with openai(bench) as client:
        file = await client.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        await eventually(lambda: engine.running > 0, "a line that runs")
        tenants = {**fleet.tenants, "a": replace(fleet.tenants["a"], suspended=True)}
        bench.gateway.fleet.replace(replace(fleet, tenants=tenants))
        engine.release.set()
        await eventually(lambda: not bench.gateway.batching.runner.unfinished(), "the end of the batch")
        bench.gateway.fleet.replace(fleet)
        batch = await ended(client, batch.id)
    assert batch.status == "failed" and batch.errors.data[0].code == "account_suspended"
    assert 0 < batch.request_counts.completed < 20


async def test_whole_models_are_woken_for_a_batch_where_nothing_else_runs(tmp_path: Path) -> None:
    async with mesh_of(mesh_fleet(), tmp_path) as mesh:
        await opened(mesh)
        async with openai(mesh) as client:
            batch = await run(client, jsonl(*(request(f"r-{n}", MODELS[n % 3]) for n in range(30))))
            answers = await lines_of(client, batch.output_file_id)
        assert batch.request_counts.completed == 30
        for n in range(30):
            (choice,) = answers[f"r-{n}"]["response"]["body"]["choices"]
            assert choice["message"]["content"] == f"I am {MODELS[n % 3]}"
        starts = [order for order in mesh.hosts["mesh-0"].orders if order[0] == "start"]
        assert 3 <= len(starts) <= 6, "the lines of one model come together"
        assert max(engine.cut for engine in mesh.hosts["mesh-0"].engines.values()) == 0
