"""A process with several models: which one is meant, and when is it alive and ready? Without vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from engines import orphans, protocol
from engines import shared_host as shared_host_module
from engines.builder import Shared, builder_thread
from engines.built import Running
from engines.host import EngineHost
from engines.restarts import FAILURES_BEFORE_DEAD
from engines.shared_host import Growth, SharedHost
from engines.supervisor import Supervisor
from engines.switching.live import Model
from engines.switching.turns import Turns
from fleet.types import BaseModel
from tests.unit.engines.test_places import FakeMemory, House

TOKEN = "token of the tests"
MODELS = ("even", "odd")


class App:
    """vLLM's application of one model: says which it is."""

    def __init__(self, model: str) -> None:
        self.model = model

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.model.encode()})


class OneHost:
    """A host whose engines start at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, grows: bool = False) -> None:
        thread = builder_thread()

        def make(name: str) -> Supervisor:
            model = BaseModel(name, "")
            made = Supervisor(f"mesh-0.{name}", model, shutdown_grace_s=1.0, shared=Shared(thread, []))
            monkeypatch.setattr(made, "_load", self.loading(name))
            return made

        self.supervisors = {
            name: Supervisor(
                f"mesh-0.{name}",
                BaseModel(name, f"/models/{name}", max_loras=2),
                shutdown_grace_s=1.0,
                shared=Shared(thread, []),
            )
            for name in MODELS
        }
        memory = FakeMemory(2**30, dict.fromkeys(MODELS, 0))
        memory.house = House()
        self.app = SharedHost(
            self.supervisors,
            thread=thread,
            awake=1,
            memory=memory,
            token=TOKEN,
            turns=Turns({}),
            forks=SimpleNamespace(close=lambda: self.closed.append("fork server")),  # type: ignore[arg-type]
        )
        if grows:
            self.app.growth = Growth(make, lambda model: Model(model.name, None, ()))
        self.closed: list[str] = []
        self.drained: list[Any] = []
        monkeypatch.setattr(shared_host_module, "drain_on_signals", self.drained.extend)
        for name, supervisor in self.supervisors.items():
            monkeypatch.setattr(supervisor, "_load", self.loading(name))

    @staticmethod
    def loading(name: str) -> Any:
        async def load(_: Any) -> Running:
            return Running(SimpleNamespace(errored=False), App(name))

        return load


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OneHost]:
    host = OneHost(monkeypatch)
    await host.app.start()
    yield host
    await host.app.stop()


@pytest.fixture
async def client(host: OneHost) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(host.app)
    headers = {protocol.TOKEN_HEADER: TOKEN}
    async with httpx.AsyncClient(transport=transport, base_url="http://host", headers=headers) as client:
        yield client


def of(model: str) -> dict[str, str]:
    return {protocol.MODEL_HEADER: model}


async def start(client: httpx.AsyncClient, model: str, **options: Any) -> httpx.Response:
    """Order one to start; wait until it is ready, if it comes."""
    answer = await client.post(protocol.ENGINE_PATH, headers=of(model), json={"order": "start", **options})
    if answer.status_code == 200:
        async with asyncio.timeout(5):
            while (await client.get(protocol.READY_PATH, headers=of(model))).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    return answer


async def test_each_call_goes_to_the_model_that_it_names(client: httpx.AsyncClient) -> None:
    assert (await start(client, "odd")).json()["state"] == "starting"
    answers = {model: await client.post(protocol.Kind.CHAT, headers=of(model)) for model in MODELS}
    assert (answers["odd"].status_code, answers["odd"].text) == (200, "odd")
    assert answers["even"].status_code == 503
    assert answers["even"].headers[protocol.FAULT_HEADER] == protocol.FAULT_ENGINE


@pytest.mark.parametrize("headers", [{}, of(""), of("third"), of("even, odd"), of("EVEN")])
async def test_a_call_that_names_none_of_them_is_answered_with_their_names(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for path in (protocol.READY_PATH, protocol.METRICS_PATH, protocol.ENGINE_PATH, protocol.Kind.CHAT):
        answer = await client.post(path, headers=headers)
        assert answer.status_code == 404
        assert answer.json() == {"error": "x-tenantry-model names none of even, odd"}


@pytest.mark.parametrize("headers", [{}, of("third"), of("odd")])
async def test_nothing_is_answered_without_the_token(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.get(protocol.READY_PATH, headers=headers | {protocol.TOKEN_HEADER: "wrong"})
    assert answer.status_code == 401 and "even" not in answer.text


async def test_an_order_that_may_not_be_followed_is_refused_with_the_reason(
    client: httpx.AsyncClient,
) -> None:
    await start(client, "odd")
    refused = await start(client, "even")
    assert refused.status_code == 409
    assert refused.json()["error"].startswith("odd is awake, and 1 may be")
    assert (await start(client, "even", instead_of="odd")).status_code == 200
    assert (await client.post(protocol.Kind.CHAT, headers=of("even"))).text == "even"


@pytest.mark.parametrize(
    "body",
    [
        {"order": "start", "instead_of": "nobody"},
        {"order": "start", "instead_of": 7},
        {"order": "start", "instead_of": ["odd"]},
        {"order": "stop", "instead_of": "odd"},
        {"order": "restart", "instead_of": "odd"},
        {"instead_of": "odd"},
    ],
)
async def test_what_is_no_order_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post(protocol.ENGINE_PATH, headers=of("even"), json=body)).status_code == 400


async def test_where_there_is_one_model_none_goes_for_it() -> None:
    supervisor = Supervisor("shared-0", BaseModel("base", "/models/base"), shutdown_grace_s=1.0)
    transport = httpx.ASGITransport(EngineHost(supervisor, token=TOKEN))
    headers = {protocol.TOKEN_HEADER: TOKEN}
    async with httpx.AsyncClient(transport=transport, base_url="http://host", headers=headers) as client:
        body = {"order": "start", "instead_of": "odd"}
        answer = await client.post(protocol.ENGINE_PATH, json=body)
        assert answer.status_code == 400 and "has one base model" in answer.json()["error"]
        assert (await client.get(protocol.READY_PATH)).json()["place"] is None


async def test_health_tells_what_a_model_has_of_its_host(client: httpx.AsyncClient) -> None:
    await start(client, "odd")
    told = (await client.get(protocol.READY_PATH, headers=of("odd"))).json()
    assert told["ready"] and told["place"]["awake"] == 1 and told["place"]["way"] == "cold"
    told = (await client.get(protocol.READY_PATH, headers=of("even"))).json()
    assert told["state"] == "stopped" and told["place"]["way"] == "" and told["place"]["took_s"] == {}


async def test_adapters_and_metrics_are_each_models_own(client: httpx.AsyncClient) -> None:
    wanted = {"revision": 7, "adapters": [{"id": "a", "digest": "a" * 64, "pinned": False, "size_bytes": 1}]}
    await client.put(protocol.ADAPTERS_PATH, headers=of("odd"), json=wanted)
    revisions = [
        (await client.get(protocol.ADAPTERS_PATH, headers=of(model))).json()["revision"] for model in MODELS
    ]
    assert revisions == [0, 7]
    page = (await client.get(protocol.METRICS_PATH, headers=of("odd"))).text
    assert page.count("# TYPE tenantry_adapters_resident") == 1 and "python_info" not in page


async def test_it_takes_orders_once_it_has_started_and_is_alive_while_any_model_may_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = OneHost(monkeypatch)
    assert (host.app.is_ready(), host.app.is_alive()) == (False, True)
    await host.app.start()
    assert host.app.is_ready() and host.drained == list(host.supervisors.values())
    for _ in range(FAILURES_BEFORE_DEAD):
        host.supervisors["even"]._restarts.did_not_start("it broke")
    assert host.app.is_alive(), "the other one may come"
    for _ in range(FAILURES_BEFORE_DEAD):
        host.supervisors["odd"]._restarts.did_not_start("it broke")
    assert not host.app.is_alive()
    host.supervisors["odd"].draining = True
    assert not host.app.is_ready()
    await host.app.stop()


async def test_what_a_killed_host_left_of_any_model_is_ended_at_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    monkeypatch.setattr(orphans, "reap", lambda *names, **of: asked.append((names, of)))
    host = OneHost(monkeypatch)
    await host.app.start()
    assert asked == [(("mesh-0.even", "mesh-0.odd"), {"host": "mesh-0"})]
    await host.app.stop()


async def test_all_of_it_ends_while_one_comes(host: OneHost, client: httpx.AsyncClient) -> None:
    await start(client, "odd")
    host.app.places.follow("even", protocol.EngineOrder.START, "odd")
    await host.app.stop()
    assert not host.app.places._switches
    assert all(one._task is not None and one._task.done() for one in host.supervisors.values())


async def test_the_fork_server_ends_with_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host = OneHost(monkeypatch)
    await host.app.start()
    assert host.closed == []
    await host.app.stop()
    assert host.closed == ["fork server"]


# -- models that come and go -------------------------------------------------------------------------------


@pytest.fixture
async def growing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[OneHost, httpx.AsyncClient]]:
    host = OneHost(monkeypatch, grows=True)
    await host.app.start()
    transport = httpx.ASGITransport(host.app)
    headers = {protocol.TOKEN_HEADER: TOKEN}
    async with httpx.AsyncClient(transport=transport, base_url="http://host", headers=headers) as client:
        yield host, client
    await host.app.stop()


async def test_a_model_that_was_never_heard_of_is_on_disk_and_comes_once_it_is_told_where_its_files_are(
    growing: tuple[OneHost, httpx.AsyncClient],
) -> None:
    host, client = growing
    asleep = await client.get(protocol.READY_PATH, headers=of("third"))
    assert (asleep.status_code, asleep.json()["state"]) == (503, "stopped")
    assert (await client.get(protocol.METRICS_PATH, headers=of("third"))).content == b""
    assert "third" not in host.supervisors, "a question alone makes nothing"
    blind = await client.post(protocol.ENGINE_PATH, headers=of("third"), json={"order": "start"})
    assert blind.status_code == 409 and "where the files of third are" in blind.json()["error"]
    assert (await start(client, "third", source="/store/third")).status_code == 200
    assert (await client.post(protocol.Kind.CHAT, headers=of("third"))).text == "third"
    told = (await client.get(protocol.READY_PATH, headers=of("third"))).json()
    assert told["place"]["source"] == "/store/third"
    assert host.supervisors["third"].replica == "mesh-0.third"


async def test_a_model_that_leaves_is_forgotten_once_its_engine_has_ended(
    growing: tuple[OneHost, httpx.AsyncClient],
) -> None:
    host, client = growing
    await start(client, "third", source="/store/third")
    gone = host.supervisors["third"]
    await client.post(protocol.ENGINE_PATH, headers=of("third"), json={"order": "leave"})
    async with asyncio.timeout(5):
        while "third" in host.supervisors:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert gone.draining and not gone.is_awake
    assert (await start(client, "third", source="/store/again")).status_code == 200, "the name is free again"
    assert host.supervisors["third"] is not gone


async def test_one_that_is_told_to_start_again_while_it_leaves_stays(
    growing: tuple[OneHost, httpx.AsyncClient],
) -> None:
    host, client = growing
    await start(client, "even")
    for order in ("leave", "start"):
        await client.post(protocol.ENGINE_PATH, headers=of("even"), json={"order": order})
    assert (await start(client, "even")).status_code == 200
    assert "even" in host.supervisors


@pytest.mark.parametrize("source", ["", 7, "hf://org/name", "a\nb", None])
async def test_a_source_that_no_engine_can_read_is_refused(
    growing: tuple[OneHost, httpx.AsyncClient], source: object
) -> None:
    _, client = growing
    body = {"order": "start", "source": source}
    answer = await client.post(protocol.ENGINE_PATH, headers=of("third"), json=body)
    assert answer.status_code in (400, 409)


@pytest.mark.parametrize("name", ["", "..", "A", "a/b", "x" * 64])
async def test_no_model_has_a_name_that_could_be_a_path(
    growing: tuple[OneHost, httpx.AsyncClient], name: str
) -> None:
    host, client = growing
    body = {"order": "start", "source": "/store/x"}
    assert (await client.post(protocol.ENGINE_PATH, headers=of(name), json=body)).status_code == 404
    assert set(host.supervisors) == set(MODELS)


async def test_a_model_of_its_own_fleet_file_stays_known_and_goes_back_to_its_own_files(
    growing: tuple[OneHost, httpx.AsyncClient],
) -> None:
    host, client = growing
    places = []
    for options in ({}, {"source": "/store/even"}, {}):
        await start(client, "even", **options)
        told = (await client.get(protocol.READY_PATH, headers=of("even"))).json()
        places.append((told["place"]["source"], host.supervisors["even"].model.source))
        await client.post(protocol.ENGINE_PATH, headers=of("even"), json={"order": "leave"})
        async with asyncio.timeout(5):
            while host.supervisors["even"].is_awake:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    assert places == [("", "/models/even"), ("/store/even", "/store/even"), ("", "/models/even")]
