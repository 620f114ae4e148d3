"""What does an engine's process answer to the gateway? Without vLLM: its parts are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from adapters.errors import AdapterError
from engines import host as host_module
from engines import protocol, vllm_engine
from engines.built import Running
from engines.host import EngineHost
from engines.loader import EngineDied
from engines.residency import EngineAdapter, FaultKind, TrialReport
from engines.supervisor import Supervisor
from fleet.types import BaseModel
from fleet.values import engine_values

TOKEN = "token of the tests"
CHAT = "/v1/chat/completions"
WANTED = {"revision": 7, "adapters": [{"id": "a", "digest": "a" * 64, "pinned": False, "size_bytes": 1}]}


class FakeLoader:
    """Gives every lease, or fails as told; counts those held."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.most = 0
        self.error: Exception | None = None
        self.load_s = {"a": 0.5}

    @contextlib.asynccontextmanager
    async def lease(self, adapter: EngineAdapter) -> AsyncIterator[Any]:
        if self.error is not None:
            raise self.error
        self.held.append(adapter.id)
        self.most = max(self.most, len(self.held))
        try:
            yield SimpleNamespace(lora_name=adapter.id)
        finally:
            self.held.remove(adapter.id)


class FakeApp:
    """vLLM's application: answers with `status`, or never."""

    def __init__(self) -> None:
        self.status = 200
        self.hangs = False
        self.meanwhile: Callable[[], None] = lambda: None  # what happens before it answers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.meanwhile()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})


class FakeTrials:
    """Passes, or fails as told."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def run(self, request: Any, load_s: float) -> TrialReport:
        if self.error is not None:
            raise self.error
        return TrialReport(True, "", 1.0, load_s)


@pytest.fixture
def supervisor() -> Supervisor:
    model = BaseModel("base", "/models/base", max_loras=2, max_cpu_loras=4)
    return Supervisor("shared-0", model, shutdown_grace_s=1.0)


@pytest.fixture
def running(supervisor: Supervisor) -> SimpleNamespace:
    """What the host works with, as if its engine ran."""
    parts = SimpleNamespace(
        engine=SimpleNamespace(errored=False),
        app=FakeApp(),
        loader=FakeLoader(),
        trials=FakeTrials(),
    )
    fakes: Any = parts
    supervisor.running = Running(fakes.engine, fakes.app, fakes.loader, fakes.trials)
    return parts


@pytest.fixture
async def client(supervisor: Supervisor) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(EngineHost(supervisor, token=TOKEN))
    headers = {protocol.TOKEN_HEADER: TOKEN}
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", headers=headers) as client:
        yield client


async def chat(client: httpx.AsyncClient, adapter: str | None = None) -> httpx.Response:
    return await client.post(CHAT, headers={protocol.ADAPTER_HEADER: adapter} if adapter else {})


async def test_nothing_is_answered_without_the_token(client: httpx.AsyncClient) -> None:
    client.headers[protocol.TOKEN_HEADER] = "wrong"
    for path in (CHAT, *sorted(protocol.CONTROL_PATHS), protocol.READY_PATH, "/sleep"):
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("order", ["restart", "stop", "start"])
async def test_orders_reach_the_supervisor(
    client: httpx.AsyncClient, supervisor: Supervisor, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[str] = []
    before = supervisor.model
    monkeypatch.setattr(supervisor, "follow", followed.append)
    answer = await client.post(protocol.ENGINE_PATH, json={"order": order})
    assert (answer.status_code, answer.json()["state"], followed) == (200, "starting", [order])
    assert supervisor.model == before
    wanted = replace(before, max_loras=7, max_cpu_loras=9)
    await client.post(protocol.ENGINE_PATH, json={"order": order, "settings": engine_values(wanted)})
    assert (followed, supervisor.model) == ([order, order], wanted)


@pytest.mark.parametrize(
    ("settings", "words"),
    [([], "not a mapping"), ({"source": "/x"}, "source"), ({"vllm_args": ["--api-key", "y"]}, "vllm_args")],
)
async def test_wrong_settings_are_refused_by_name_and_the_engine_is_left_alone(
    client: httpx.AsyncClient, supervisor: Supervisor, settings: Any, words: str
) -> None:
    before = supervisor.model
    order = {"order": "restart", "settings": settings}
    answer = await client.post(protocol.ENGINE_PATH, json=order)
    assert answer.status_code == 400 and words in answer.json()["error"]
    stranger = await client.post(
        protocol.ENGINE_PATH, json={"order": "restart"}, headers={protocol.TOKEN_HEADER: "x"}
    )
    assert stranger.status_code == 401
    assert supervisor.model == before and not supervisor._start_asked


@pytest.mark.parametrize("body", [b"", b"{}", b'{"order": "explode"}', b'{"order": ["stop"]}'])
async def test_what_is_no_order_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post(protocol.ENGINE_PATH, content=body)).status_code == 400
    assert (await client.get(protocol.ENGINE_PATH)).status_code == 405


async def test_an_engine_that_does_not_run_takes_what_it_is_told_and_says_it_holds_nothing(
    client: httpx.AsyncClient,
) -> None:
    told = (await client.put(protocol.ADAPTERS_PATH, json=WANTED)).json()
    asked = (await client.get(protocol.ADAPTERS_PATH)).json()
    assert told == asked
    assert (asked["revision"], asked["engine_starts"], asked["slots"], asked["host"]) == (7, 0, [], [])
    assert (await client.get(protocol.READY_PATH)).status_code == 503
    for answer in (await chat(client, "a"), await client.post(protocol.TRIAL_PATH, json={"id": "a"})):
        assert answer.status_code == 503
        assert answer.headers[protocol.FAULT_HEADER] == protocol.FAULT_ENGINE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"revision": 1}',
        json.dumps(
            {"revision": 1, "adapters": [{"id": 5, "digest": "a" * 64, "pinned": False, "size_bytes": 1}]}
        ).encode(),
        *(
            json.dumps({"revision": 1, "adapters": [WANTED["adapters"][0] | {"digest": digest}]}).encode()  # type: ignore[index]
            for digest in ("", "a" * 63, "A" * 64, "../" + "a" * 61, "/store/a", 5, None)
        ),
        json.dumps({"revision": 1, "adapters": WANTED["adapters"] * 2}).encode(),  # type: ignore[operator]
    ],
)
async def test_what_is_no_desired_set_changes_nothing(client: httpx.AsyncClient, body: bytes) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    assert (await client.put(protocol.ADAPTERS_PATH, content=body)).status_code == 400
    assert (await client.get(protocol.ADAPTERS_PATH)).json()["revision"] == 7


async def test_a_desired_set_without_end_is_refused_before_it_fills_memory(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "MAX_DESIRED_BYTES", 10)
    assert (await client.put(protocol.ADAPTERS_PATH, json=WANTED)).status_code == 413


async def test_a_control_route_has_its_own_methods(client: httpx.AsyncClient) -> None:
    assert (await client.delete(protocol.ADAPTERS_PATH)).status_code == 405
    assert (await client.get(protocol.TRIAL_PATH)).status_code == 405
    assert (await client.get("/v1/load_lora_adapter")).status_code == 404


async def test_only_what_was_told_is_served_and_its_slot_is_kept_for_the_time_of_the_request(
    client: httpx.AsyncClient, running: SimpleNamespace
) -> None:
    unknown = await chat(client, "a")
    assert (unknown.status_code, unknown.headers[protocol.FAULT_HEADER]) == (503, protocol.FAULT_ENGINE)
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    assert (await chat(client, "a")).text == "answer"
    assert (running.loader.most, running.loader.held) == (1, [])
    assert (await chat(client)).text == "answer"
    assert running.loader.most == 1, "the base model needs none"


async def test_a_request_that_is_cancelled_gives_its_slot_back(
    client: httpx.AsyncClient, running: SimpleNamespace
) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    running.app.hangs = True
    task = asyncio.create_task(chat(client, "a"))
    while not running.loader.held:  # noqa: ASYNC110 - the fake signals nothing
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert running.loader.held == []


@pytest.mark.parametrize(
    ("error", "draining", "fault"),
    [
        (AdapterError("broken"), False, protocol.FAULT_ADAPTER),
        (AdapterError("shutting down"), True, protocol.FAULT_ENGINE),
        (EngineDied("dead"), False, protocol.FAULT_ENGINE),
    ],
)
async def test_who_is_at_fault_is_said(
    client: httpx.AsyncClient,
    supervisor: Supervisor,
    running: SimpleNamespace,
    error: Exception,
    draining: bool,
    fault: str,
) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    running.loader.error, supervisor.draining = error, draining
    answer = await chat(client, "a")
    assert (answer.status_code, answer.headers[protocol.FAULT_HEADER]) == (503, fault)


async def test_a_server_error_is_the_engines_fault_only_where_the_engine_died(
    client: httpx.AsyncClient, running: SimpleNamespace
) -> None:
    running.app.status = 500
    assert protocol.FAULT_HEADER not in (await chat(client)).headers
    running.app.meanwhile = lambda: setattr(running.engine, "errored", True)
    assert (await chat(client)).headers[protocol.FAULT_HEADER] == protocol.FAULT_DEATH
    assert (await chat(client)).headers[protocol.FAULT_HEADER] == protocol.FAULT_ENGINE, "it was dead before"


async def test_a_trial_reports_with_the_time_its_load_took(
    client: httpx.AsyncClient, running: SimpleNamespace
) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    answer = await client.post(protocol.TRIAL_PATH, json={"id": "a"})
    assert TrialReport.from_json(answer.json()) == TrialReport(True, "", 1.0, 0.5)
    assert running.loader.held == []


async def test_what_vllm_says_of_an_adapter_is_a_failed_report_without_paths(
    client: httpx.AsyncClient, running: SimpleNamespace
) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    running.trials.error = ValueError("no such file: /store/a/adapter_model.safetensors")
    report = (await client.post(protocol.TRIAL_PATH, json={"id": "a"})).json()
    assert report["passed"] is False and "/store" not in report["reason"] and report["reason"]
    running.loader.error = AdapterError("adapter 'a' is empty")
    report = (await client.post(protocol.TRIAL_PATH, json={"id": "a"})).json()
    assert (report["passed"], report["reason"]) == (False, "adapter 'a' is empty")


async def test_an_engine_that_dies_of_a_trial_holds_it_against_the_adapter(
    client: httpx.AsyncClient, running: SimpleNamespace
) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    running.trials.error = EngineDied("the engine died")
    for count in (1, 2):
        answer = await client.post(protocol.TRIAL_PATH, json={"id": "a"})
        assert (answer.status_code, answer.headers[protocol.FAULT_HEADER]) == (503, protocol.FAULT_ENGINE)
        fault = (await client.get(protocol.ADAPTERS_PATH)).json()["faults"]["a"]
        assert (fault["kind"], fault["count"]) == (FaultKind.CRASH, count)
    await client.put(protocol.ADAPTERS_PATH, json={"revision": 8, "adapters": []})
    assert (await client.get(protocol.ADAPTERS_PATH)).json()["faults"] == {}


@pytest.mark.parametrize(("tokenizer", "longest"), [(SimpleNamespace(max_chars_per_token=16), 16), (None, 0)])
async def test_an_engine_says_what_one_request_may_have(
    supervisor: Supervisor, client: httpx.AsyncClient, tokenizer: Any, longest: int
) -> None:
    engine = SimpleNamespace(
        tokenizer=tokenizer,
        model_config=SimpleNamespace(max_model_len=2048),
        vllm_config=SimpleNamespace(cache_config=SimpleNamespace(kv_cache_size_tokens=None)),
    )
    supervisor.limits = vllm_engine.limits_of(engine)
    told = (await client.get(protocol.ADAPTERS_PATH)).json()
    assert (told["max_model_len"], told["chars_per_token"], told["kv_tokens"]) == (2048, longest, 0)
