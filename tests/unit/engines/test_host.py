"""What does an engine's process answer to the gateway? Without vLLM: its parts are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from adapters.errors import AdapterError
from engines import engine_process, orphans, protocol
from engines import host as host_module
from engines.health import EngineState
from engines.host import EngineHost
from engines.loader import EngineDied
from engines.residency import DesiredAdapters, EngineAdapter, FaultKind, TrialReport
from engines.selftest import SelfTestFailed
from engines.standing import FAILURES_BEFORE_DEAD, Standing
from fleet.types import BaseModel

TOKEN = "token of the tests"
CHAT = "/v1/chat/completions"
WANTED = {"revision": 7, "adapters": [{"id": "a", "folder": "/store/a", "pinned": False}]}


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
def host() -> EngineHost:
    model = BaseModel("base", "/models/base", max_loras=2, max_cpu_loras=4)
    return EngineHost("shared-0", model, token=TOKEN, shutdown_grace_s=1.0)


@pytest.fixture
def running(host: EngineHost) -> SimpleNamespace:
    """The same host as if its engine ran."""
    parts = SimpleNamespace(
        host=host,
        engine=SimpleNamespace(errored=False),
        app=FakeApp(),
        loader=FakeLoader(),
        trials=FakeTrials(),
    )
    vars(host).update(_engine=parts.engine, _app=parts.app, _loader=parts.loader, _trials=parts.trials)
    return parts


@pytest.fixture
async def client(host: EngineHost) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(host)
    headers = {protocol.TOKEN_HEADER: TOKEN}
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", headers=headers) as client:
        yield client


async def chat(client: httpx.AsyncClient, adapter: str | None = None) -> httpx.Response:
    return await client.post(CHAT, headers={protocol.ADAPTER_HEADER: adapter} if adapter else {})


async def test_nothing_is_answered_without_the_token(client: httpx.AsyncClient) -> None:
    client.headers[protocol.TOKEN_HEADER] = "wrong"
    for path in (CHAT, protocol.ADAPTERS_PATH, protocol.TRIAL_PATH, protocol.READY_PATH, "/sleep"):
        assert (await client.get(path)).status_code == 401


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
        json.dumps({"revision": 1, "adapters": [{"id": 5, "folder": "/a", "pinned": False}]}).encode(),
        json.dumps({"revision": 1, "adapters": [{"id": "a", "folder": "a", "pinned": False}]}).encode(),
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
    client: httpx.AsyncClient, running: SimpleNamespace, error: Exception, draining: bool, fault: str
) -> None:
    await client.put(protocol.ADAPTERS_PATH, json=WANTED)
    running.loader.error, running.host._draining = error, draining
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


def test_an_engine_that_never_starts_is_not_alive_for_ever(host: EngineHost) -> None:
    assert host.is_alive()
    for _ in range(FAILURES_BEFORE_DEAD):
        host._standing.did_not_start("it broke")
    assert not host.is_alive()


class Starts:
    """Stands for the loading of engines: each start fails with an error, or gives an engine."""

    def __init__(self, host: EngineHost, *outcomes: Any) -> None:
        self.host = host
        self.outcomes = list(outcomes)

    async def __call__(self, stack: Any) -> None:
        self.host._last_words.listen()
        outcome = self.outcomes.pop(0) if self.outcomes else SimpleNamespace(errored=False)
        if isinstance(outcome, Exception):
            raise outcome
        self.host._engine = outcome


async def states_of(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch, *outcomes: Any
) -> list[tuple[str, str]]:
    """Run starts of these outcomes until an engine stays up; gives each state with its reason."""
    monkeypatch.setattr(Standing, "delay_s", 0.0)
    monkeypatch.setattr(host_module, "WATCH_INTERVAL_S", 0.0)
    monkeypatch.setattr(host, "_load", Starts(host, *outcomes))
    seen: list[tuple[str, str]] = []
    supervisor = asyncio.create_task(host._supervise())
    while not seen or seen[-1][0] != EngineState.READY:
        health = host.health()
        if not seen or seen[-1] != (health.state, health.reason):
            seen.append((health.state, health.reason))
        await asyncio.sleep(0)
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)
    return seen


async def test_an_engine_that_fails_is_started_until_one_passes_and_says_why_meanwhile(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = SelfTestFailed("self-test, log-probabilities: InvalidCxxCompiler: none")
    seen = await states_of(host, monkeypatch, failed, ValueError("no such flag"))
    states = [state for state, _ in seen]
    assert states == [EngineState.STARTING, EngineState.FAILED, EngineState.FAILED, EngineState.READY]
    assert [reason for _, reason in seen[1:3]] == [str(failed), "ValueError: no such flag"]


async def test_adapters_are_blamed_for_a_death_only_where_the_engine_comes_back(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host._reconciler.desire(DesiredAdapters(1, (EngineAdapter("a", "/store/a", False),)))
    host._blame("a", FaultKind.CRASH, "the engine died")
    await states_of(host, monkeypatch, SimpleNamespace(errored=False))
    assert dict(host._reconciler.residency().faults)["a"].kind is FaultKind.CRASH
    await states_of(host, monkeypatch, RuntimeError("it does not come back"))
    assert not host._reconciler.residency().faults


async def test_no_adapter_is_blamed_for_the_machines_words(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host._reconciler.desire(DesiredAdapters(1, (EngineAdapter("a", "/store/a", False),)))
    monkeypatch.setattr(host._last_words, "read", lambda _within_s: "OSError: No space left on device")
    host._blame("a", FaultKind.CRASH, "the engine died")
    assert not host._reconciler.residency().faults
    monkeypatch.setattr(host._last_words, "read", lambda _within_s: "KeyError: 5")
    host._blame("a", FaultKind.CRASH, "the engine died")
    assert dict(host._reconciler.residency().faults)["a"].reason == "the engine died: KeyError: 5"


@pytest.mark.parametrize(("tokenizer", "longest"), [(SimpleNamespace(max_chars_per_token=16), 16), (None, 0)])
async def test_an_engine_says_what_one_request_may_have(
    running: SimpleNamespace, client: httpx.AsyncClient, tokenizer: Any, longest: int
) -> None:
    engine = SimpleNamespace(
        tokenizer=tokenizer,
        model_config=SimpleNamespace(max_model_len=2048),
        vllm_config=SimpleNamespace(cache_config=SimpleNamespace(kv_cache_size_tokens=None)),
    )
    running.host._limits = host_module._limits_of(engine)
    told = (await client.get(protocol.ADAPTERS_PATH)).json()
    assert (told["max_model_len"], told["chars_per_token"], told["kv_tokens"]) == (2048, longest, 0)


# -- ending ------------------------------------------------------------------------------------------------


@pytest.fixture
def loading(host: EngineHost, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same host while its engine is being built, which ends only by force."""
    state = SimpleNamespace(
        host=host, begun=threading.Event(), given_up=threading.Event(), fails=threading.Event()
    )

    def build(argv: list[str]) -> Any:
        state.begun.set()
        try:
            while not state.fails.wait(0.01):
                pass
        finally:
            state.given_up.set()
        raise RuntimeError("the engine's processes are gone")

    monkeypatch.setattr(host_module, "_build_engine", build)
    monkeypatch.setattr(engine_process, "become_main_of_children", lambda: None)
    monkeypatch.setattr(host, "_environment", {})
    for name in orphans.mark("shared-0"):
        monkeypatch.setenv(name, "")
    return state


@pytest.fixture
def handlers_as_before() -> Iterator[None]:
    """A host takes the process's signals; here they end nothing and go back to who had them."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    level = logging.getLogger("vllm").level
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    logging.getLogger("vllm").setLevel(level)
    logging.getLogger("vllm.v1.engine.async_llm").disabled = False


@pytest.mark.usefixtures("handlers_as_before")
async def test_a_host_that_loads_ends_at_once(
    loading: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    loading.host.start()
    await asyncio.to_thread(loading.begun.wait)
    await asyncio.wait_for(loading.host.stop(), timeout=5)
    assert loading.given_up.is_set()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("handlers_as_before")
async def test_an_engine_that_ends_on_the_same_signal_did_not_fail(
    loading: SimpleNamespace, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    loading.host.start()
    await asyncio.to_thread(loading.begun.wait)
    signal.raise_signal(number)
    loading.fails.set()
    await asyncio.wait_for(loading.host._supervisor, timeout=5)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not logging.getLogger("vllm.v1.engine.core_client").isEnabledFor(logging.ERROR)
    await loading.host.stop()


@pytest.mark.usefixtures("handlers_as_before")
async def test_a_load_that_takes_long_says_so(
    loading: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.engine")
    monkeypatch.setattr(host_module, "PROGRESS_INTERVAL_S", 0)
    loading.host.start()
    await asyncio.to_thread(loading.begun.wait)
    await loading.host.stop()
    assert caplog.messages[:2] == ["shared-0: loading base", "shared-0: still loading (0 s)"]


@pytest.mark.parametrize(
    ("was_ready", "calls"), [(True, ["drain 30", "kill"]), (False, ["kill", "drain 0", "kill"])]
)
def test_an_engine_that_serves_is_drained_and_one_that_never_did_is_not(
    host: EngineHost, was_ready: bool, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    engine = SimpleNamespace(
        shutdown=lambda timeout: made.append(f"drain {timeout}"),
        vllm_config=SimpleNamespace(shutdown_timeout=30),
    )
    monkeypatch.setattr(orphans, "end_own", lambda: made.append("kill"))
    vars(host).update(_was_ready=was_ready)
    host._end(engine)
    assert made == calls
