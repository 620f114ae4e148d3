"""Stand-ins for what a unit or integration test cannot have: an engine, a client, a clock."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from adapters.states import VersionState
from engines import protocol, secrets
from engines.health import EngineHealth, EngineState
from engines.new_settings import with_settings
from engines.residency import Fault, Residency, TrialReport, limits_in
from engines.words import blames_machine
from fleet.current import CurrentFleet
from fleet.types import (
    Adapter,
    Band,
    BaseModel,
    Caps,
    Fleet,
    GatewaySettings,
    Isolation,
    MetricsAccess,
    Pool,
    Strategy,
    Tenant,
    UsageSettings,
)
from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterEntry, AdapterKey, Version
from routing.catalog.sources import Folder
from routing.lifecycle import Lifecycle
from routing.usage import Ledger, UsageStore
from routing.usage.budget import Budgets
from tests.forms import read_form

SECRET = b"secret of the tests"
WAIT_S = 5.0  # every wait on a condition is bounded by this
ASKED: ContextVar[str] = ContextVar("ASKED")  # path of the request that a fake engine is answering


def key_of(tenant: str) -> str:
    """API key of a tenant of `small_fleet`."""
    return f"key-of-{tenant}"


def small_fleet(
    *,
    slots: int = 2,
    replicas: int = 1,
    max_num_seqs: int = 8,
    caps: Caps | None = None,
    settings: GatewaySettings | None = None,
) -> Fleet:
    """Two tenants on a shared pool, one alone on its own; one base model."""

    def tenant(name: str, models: dict[str, str], **changes: Any) -> Tenant:
        key_hash = hashlib.sha256(key_of(name).encode()).hexdigest()
        default = next(iter(models))
        return Tenant(name, frozenset({key_hash}), models, default, caps=caps or Caps(), **changes)

    base = BaseModel("base", "/models/base", max_loras=slots, max_num_seqs=max_num_seqs, max_cpu_loras=8)
    names = ("a-support", "a-sales", "b-support", "c-support")
    adapters = [Adapter(name, f"/adapters/{name}", "base") for name in names]
    tenants = [
        tenant("a", {"support": "a-support", "sales": "a-sales", "plain": "base"}),
        tenant("b", {"support": "b-support"}, band=Band.LOW),
        tenant("c", {"support": "c-support"}, isolation=Isolation.DEDICATED),
    ]
    return Fleet(
        base_models={"base": base},
        adapters={a.name: a for a in adapters},
        tenants={t.name: t for t in tenants},
        pools={
            "shared": Pool("shared", Strategy.MULTI_LORA, ("base",), replicas, (), ("a", "b")),
            "alone": Pool("alone", Strategy.MULTI_LORA, ("base",), 1, (), ("c",)),
        },
        gateway=settings
        or GatewaySettings(
            operator_key_hashes=frozenset({hashlib.sha256(key_of("operator").encode()).hexdigest()}),
            metrics_access=MetricsAccess.OPERATOR,
            log_requests=False,
        ),
    )


def in_folder(fleet: Fleet, folder: Path) -> Fleet:
    """A fleet whose state is in a folder."""
    return replace(fleet, state=replace(fleet.state, folder=str(folder / "state")))


def without_tenant(fleet: Fleet, name: str) -> Fleet:
    """A fleet without one of its tenants."""
    tenants = {n: tenant for n, tenant in fleet.tenants.items() if n != name}
    pools = {
        pool.name: replace(pool, tenants=tuple(t for t in pool.tenants if t != name))
        for pool in fleet.pools.values()
    }
    return replace(fleet, tenants=tenants, pools=pools)


def version_of(key: AdapterKey, number: int = 1, state: VersionState = VersionState.READY) -> Version:
    """A version whose content is like no other's."""
    digest = hashlib.sha256(f"{key}/{number}".encode()).hexdigest()
    # Told apart by what identifies it, as rows of a database are.
    row = int(digest[:8], 16)
    folder = Folder(f"/adapters/{key.name}")
    return Version(row, key, number, folder, state, digest=digest, rank=8, size_bytes=1000)


def entry_of(
    name: str, *, tenant: str | None = None, versions: Sequence[Version] | None = None, live: int | None = 1
) -> AdapterEntry:
    """An adapter of the base model `base`, with one ready version if nothing else is said."""
    key = AdapterKey(tenant, name)
    chosen = tuple(versions) if versions is not None else (version_of(key),)
    return AdapterEntry(key, "base", declared=tenant is None, live=live, versions=chosen)


def adapter_id(name: str, number: int = 1, *, tenant: str | None = None) -> str:
    """What engines call a version that `version_of` makes."""
    return version_of(AdapterKey(tenant, name), number).engine_id


class ReadyLifecycle(Lifecycle):
    """A lifecycle without disk or database: every declared adapter is ready from the start."""

    def __init__(self, fleet: CurrentFleet, directory: Directory, *others: Any, **options: Any) -> None:
        super().__init__(fleet, directory, *others, **options)
        for name in fleet.now.adapters:
            directory.put(entry_of(name))

    async def _reconcile(self) -> None:
        self._fleet.is_known = True
        self.is_reconciled = True
        self.engines.tell_all()

    def take_fleet(self, fleet: Fleet) -> None:
        """Adapters that another fleet declares are ready at once."""
        for name in fleet.adapters:
            if self._directory.adapter(AdapterKey(None, name)) is None:
                self._directory.put(entry_of(name))
        self.engines.tell_all()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()


def ledger_in(folder: Path, **options: Any) -> Ledger:
    """A ledger with a database and a journal of its own in a folder."""
    budgets = Budgets(options.pop("budgets", {}), options.pop("currency", None))
    store = UsageStore(f"sqlite:///{folder}/usage.db")
    return Ledger(store, folder / "usage", UsageSettings(), budgets, **options)


def engines_of(fleet: Fleet) -> dict[str, FakeEngine]:
    """A fake engine for every replica, with the settings of its base model."""
    engines = {}
    for name, base_model in (each for pool in fleet.pools.values() for each in pool.replica_models):
        engines[name] = FakeEngine(name)
        engines[name].declared = fleet.base_models[base_model]
    return engines


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait until the condition holds. Raises `AssertionError` after `WAIT_S`."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what} did not come true within {WAIT_S} s")
        await asyncio.sleep(0.005)


def sse(payload: object) -> bytes:
    """One server-sent event as vLLM writes it."""
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


class FakeEngine:
    """An engine as the gateway sees it: OpenAI's routes behind the token. It loads and generates nothing.

    `behave` decides what a request gets; tests replace it. Requests are kept in `seen`, those whose client
    left in `aborted`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.kv_tokens = self.max_model_len = self.chars_per_token = 0  # it does not say
        self.declared: BaseModel | None = None  # with whose settings it runs; None: it does not say
        self.next_declared: BaseModel | None = None  # those of the next start
        self.failure = ""  # why it does not start, if it does not
        self.starts = 1
        self.stopped = False
        self.cut = 0  # most requests that ran when it was ordered to end
        self.orders: list[str] = []
        self.follow: Callable[[str], Awaitable[None]] = self.obey  # what it does when it is ordered
        self.faults: dict[str, Fault] = {}
        self.deaths = 0
        self.last_death = ""
        self.machine_to_blame = False
        self.deaf = 0  # times it does not take what it is told
        self.asked = 0  # times the gateway asked what is resident
        self.desired: dict[str, Any] = {"revision": 0, "adapters": []}
        self.trial: Callable[[str], TrialReport] = lambda _: TrialReport(True, "", 1.0, 0.01)
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.running = 0
        self.aborted = 0
        self.release = asyncio.Event()  # `hold` answers wait for it
        self.behave: Callable[[dict[str, Any], Send], Awaitable[None]] = self.answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        if headers.get(protocol.TOKEN_HEADER) != secrets.internal_token(SECRET):
            return await respond(send, 401, {"error": "token"})
        if scope["path"] == protocol.READY_PATH:
            health = self.health()
            return await respond(send, 200 if health.state is EngineState.READY else 503, health.to_json())
        if scope["path"] == protocol.METRICS_PATH:
            return await respond(send, 200, {"vllm": self.name})
        body = await read_body(receive)
        if scope["path"] == protocol.ADAPTERS_PATH:
            return await self._adapters(scope["method"], body, send)
        if scope["path"] == protocol.ENGINE_PATH:
            told = json.loads(body)
            order = told["order"]
            self.orders.append(order)
            if self.declared is not None and "settings" in told:
                self.next_declared = with_settings(self.declared, told["settings"])
            before = self.health().to_json()
            self.following = asyncio.ensure_future(self.follow(order))
            return await respond(send, 200, before)
        if scope["path"] == protocol.TRIAL_PATH:
            report = self.trial(json.loads(body)["id"])
            if not self.ready:
                return await self.say_loading({}, send)
            return await respond(send, 200, report.to_json())
        asked = read_form(body, headers) if scope["path"] in protocol.FORMS else json.loads(body)
        self.seen.append(asked)
        self.headers.append(headers)
        ASKED.set(scope["path"])
        await self._run(dict(asked), receive, send)

    def health(self) -> EngineHealth:
        """What it says of itself."""
        state = EngineState.READY if self.ready else EngineState.STARTING
        state = EngineState.FAILED if self.failure else state
        machine = self.machine_to_blame
        state = EngineState.STOPPED if self.stopped else state
        words = self.last_death
        return EngineHealth(state, self.failure, self.name, self.deaths, words, machine, self.starts)

    def die(self, words: str) -> None:
        """Break down; `come_back` ends that."""
        self.ready = False
        self.deaths += 1
        self.last_death = words
        self.machine_to_blame = blames_machine(words)

    def come_back(self) -> None:
        """Start anew, and pass the self-test."""
        self.ready, self.failure = True, ""
        self.declared = self.next_declared or self.declared
        self.starts += 1

    def fail(self, words: str) -> None:
        """Start anew, and do not get through."""
        self.ready, self.failure = False, words
        self.machine_to_blame = True

    async def obey(self, order: str) -> None:
        """Do as ordered; a start takes a moment."""
        self.stopped = order == "stop"
        self.ready = False
        self.cut = max(self.cut, self.running)
        if not self.stopped:
            await asyncio.sleep(0.02)
            self.come_back()

    async def _adapters(self, method: str, body: bytes, send: Any) -> None:
        self.asked += 1
        if method == "PUT" and self.deaf:
            self.deaf -= 1
            return await respond(send, 500, {})
        if method == "PUT":
            self.desired = json.loads(body)
        await respond(send, 200, self.residency().to_json())

    def residency(self) -> Residency:
        """What it says of its adapters: all it may serve is in host memory."""
        ids = tuple(adapter["id"] for adapter in self.desired["adapters"])
        pinned = tuple(adapter["id"] for adapter in self.desired["adapters"] if adapter["pinned"])
        revision, faults = self.desired["revision"], tuple(self.faults.items())
        return Residency(
            self.name,
            self.starts,
            revision,
            host=ids,
            pinned=pinned,
            faults=faults,
            kv_tokens=self.kv_tokens,
            max_model_len=self.max_model_len,
            chars_per_token=self.chars_per_token,
            **({} if self.declared is None else limits_in(self.declared)),
        )

    async def _run(self, body: dict[str, Any], receive: Any, send: Any) -> None:
        self.running += 1
        work = asyncio.ensure_future(self.behave(body, send))
        gone = asyncio.ensure_future(self._disconnect(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.aborted += 1
            else:
                work.result()
        finally:
            self.running -= 1
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    @staticmethod
    async def _disconnect(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    # -- behaviours ----------------------------------------------------------------------------------------

    async def answer(self, body: dict[str, Any], send: Send) -> None:
        """Say which adapter or base model answered: at once, or in three events and a usage event."""
        name = body["model"].partition("@")[0]
        if not body.get("stream"):
            await respond(send, 200, completion(body["model"], f"I am {name}"))
            return
        await begin_stream(send)
        for event in stream_events(body["model"], ["I ", "am ", name], running=counts(body)):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def hold(self, body: dict[str, Any], send: Send) -> None:
        """Answer only once `release` is set."""
        await self.release.wait()
        await self.answer(body, send)

    async def hold_mid_stream(self, body: dict[str, Any], send: Send) -> None:
        """Send one event, then nothing until `release` is set, then the rest."""
        events = stream_events(body["model"], ["I ", "am ", body["model"]], running=counts(body))
        await begin_stream(send)
        await send({"type": "http.response.body", "body": b"".join(events[:2]), "more_body": True})
        await self.release.wait()
        await send({"type": "http.response.body", "body": b"".join(events[2:])})

    async def die_mid_stream(self, body: dict[str, Any], send: Send) -> None:
        """Send one event, then end the stream without its closing event."""
        await begin_stream(send)
        first = stream_events(body["model"], ["I "])[0]
        await send({"type": "http.response.body", "body": first, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def report_death_mid_stream(self, body: dict[str, Any], send: Send) -> None:
        """End the stream as vLLM does when its core dies: an error event, then the closing event."""
        await begin_stream(send)
        first = stream_events(body["model"], ["I "])[0]
        error = sse({"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError"}})
        await send({"type": "http.response.body", "body": first + error + b"data: [DONE]\n\n"})

    async def flood(self, body: dict[str, Any], send: Send) -> None:
        """Stream without end, as fast as the gateway takes it."""
        await begin_stream(send)
        event = sse(chunk(body["model"], {"content": "x" * 1000}))
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.sleep(0)

    async def say_loading(self, body: dict[str, Any], send: Send) -> None:
        """Refuse as an engine does that is not running."""
        await respond(send, 503, {"error": "loading"}, {protocol.FAULT_HEADER: protocol.FAULT_ENGINE})

    async def die_of_it(self, body: dict[str, Any], send: Send) -> None:
        """Answer as an engine does that has died with the request in it."""
        error = {"error": {"message": "EngineCore encountered an issue"}}
        await respond(send, 500, error, {protocol.FAULT_HEADER: protocol.FAULT_DEATH})

    async def refuse_adapter(self, body: dict[str, Any], send: Send) -> None:
        """Refuse as an engine does that cannot load the adapter."""
        await respond(send, 503, {"error": "/secret/path"}, {protocol.FAULT_HEADER: protocol.FAULT_ADAPTER})

    async def refuse_request(self, body: dict[str, Any], send: Send) -> None:
        """Refuse as vLLM does what it finds wrong."""
        message = f"max_tokens is too large for {body['model']}"
        error = {"message": message, "type": "BadRequestError", "param": "max_tokens", "code": 400}
        await respond(send, 400, {"error": error})

    async def break_down(self, body: dict[str, Any], send: Send) -> None:
        """Fail on this request alone."""
        await respond(send, 500, {"error": {"message": "Traceback: /secret/path"}})


Send = Callable[[dict[str, Any]], Awaitable[None]]


async def read_body(receive: Any) -> bytes:
    """Read the whole body of a request."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def respond(send: Send, status: int, payload: object, headers: dict[str, str] | None = None) -> None:
    """Answer with JSON, compact as vLLM's."""
    body = json.dumps(payload, separators=(",", ":")).encode()
    all_headers = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    encoded = [(k.encode(), v.encode()) for k, v in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def begin_stream(send: Send) -> None:
    """Start an event stream."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"server", b"inner")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def completion(model: str, text: str) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "x", "object": "chat.completion", "model": model, "choices": choices, "usage": usage}


def chunk(model: str, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    """One chunk of a streamed chat completion."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "x", "object": "chat.completion.chunk", "model": model, "choices": choices}


def counts(body: dict[str, Any]) -> bool:
    """Whether every event of a stream is to say what was used so far."""
    return bool((body.get("stream_options") or {}).get("continuous_usage_stats"))


def usage_of(completion_tokens: int) -> dict[str, Any]:
    """A usage object as vLLM writes it."""
    used = {"prompt_tokens": 7, "total_tokens": 7 + completion_tokens}
    return {**used, "completion_tokens": completion_tokens, "completion_tokens_details": None}


def stream_events(model: str, pieces: list[str], *, running: bool = False) -> list[bytes]:
    """A whole stream: the role, the pieces, the end, the usage, the closing event.

    With `running`, each of them says what was used so far.
    """

    def event(delta: dict[str, str], used: int, finish: str | None = None) -> bytes:
        return sse({**chunk(model, delta, finish), **({"usage": usage_of(used)} if running else {})})

    return [
        event({"role": "assistant", "content": ""}, 0),
        *(event({"content": piece}, number) for number, piece in enumerate(pieces, start=1)),
        event({}, len(pieces), "stop"),
        sse({**chunk(model, {}), "choices": [], "usage": usage_of(len(pieces))}),
        b"data: [DONE]\n\n",
    ]


@contextlib.asynccontextmanager
async def serving(app: Any, socket_path: Path) -> AsyncIterator[str]:
    """Serve an ASGI application on a Unix socket; gives its URL. Leaving it cuts every connection."""
    config = uvicorn.Config(app, uds=str(socket_path), log_config=None, lifespan="off", access_log=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()  # `serve` would take the test's signal handlers, and poll
    try:
        yield f"unix://{socket_path}"
    finally:  # uvicorn's own shutdown would take a nap
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await eventually(lambda: not server.server_state.connections, "the end of all connections")


class Client:
    """One HTTP request to an ASGI application, with its connection in the test's hand."""

    def __init__(
        self,
        app: Any,
        path: str,
        *,
        method: str = "POST",
        body: bytes = b"",
        headers: list[tuple[str, str]] | None = None,
        peer: str = "10.0.0.9",
    ) -> None:
        self._app = app
        path, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers or []],
            "client": (peer, 50000),
        }
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.reading = asyncio.Event()  # while clear, the client takes nothing
        self.reading.set()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.sends = 0
        self._task: asyncio.Task[None] | None = None

    def incomplete(self, body: bytes) -> Client:
        """Send only a part of the body; the rest comes by `complete`, or never."""
        self._incoming.get_nowait()
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": True})
        return self

    def complete(self, body: bytes) -> None:
        """Send the rest of the body."""
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def __call__(self) -> Client:
        """Send the request and take the whole answer."""
        self.start()
        await self.done()
        return self

    def start(self) -> Client:
        """Send the request, take the answer as it comes."""
        self._task = asyncio.ensure_future(self._app(self._scope, self._receive, self._send))
        return self

    async def done(self) -> Client:
        """Wait for the application to return."""
        if self._task is None:
            raise RuntimeError("start it first")
        async with asyncio.timeout(WAIT_S):
            await self._task
        return self

    def leave(self) -> None:
        """Close the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the answer."""
        error: dict[str, Any] = self.json()["error"]
        return error

    async def _receive(self) -> dict[str, Any]:
        return await self._incoming.get()

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        self.sends += 1
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in message["headers"]}
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body")
