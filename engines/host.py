"""Answers the gateway in an engine's process: vLLM's OpenAI app, and calls about adapters.

Nothing is answered without the token, and the adapter of a request is loaded before vLLM gets the request.
This process knows neither tenants nor the order of requests.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from adapters.errors import AdapterError
from engines import protocol, speech
from engines.handler import Receive, Scope, Send, answer_with
from engines.health import EngineHealth, EngineState
from engines.loader import EngineDied, reason_of
from engines.new_settings import with_settings, with_weights
from engines.places import Places, Refused
from engines.residency import (
    ENGINE_DIED,
    DesiredAdapters,
    EngineAdapter,
    FaultKind,
    FilesAway,
    Residency,
    TrialReport,
)
from engines.supervisor import Supervisor
from engines.trial import BaseModelFailed
from fleet.types import BaseModel

_DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_DESIRED_BYTES = 8 * 2**20  # some 40 000 adapters
_COMING = (protocol.EngineOrder.START, protocol.EngineOrder.PREPARE)  # say where a model's files are
log = logging.getLogger("tenantry.engine")


class _BadRequest(Exception):
    """A call of the gateway that is malformed or refused; carries the status of its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineHost:
    """The engine of this process as an ASGI application."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        token: str,
        places: Places | None = None,
        took: Callable[[BaseModel], None] = lambda model: None,
        leave: Callable[[], None] | None = None,
    ) -> None:
        """`places` say which of several base models of this process are awake; None: this is its only one.

        `took` is told with what its next engine is made; `leave` begins to forget the model.
        """
        self._own = supervisor.model  # as this host's fleet file has it
        self._took = took
        self._leave = leave
        self._supervisor = supervisor
        self._places = places
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        if not may_call(headers, self._token):
            await answer(send, 401, {"error": "this is an engine; call the gateway"})
        elif path == protocol.READY_PATH:
            health = self._health()
            status = 200 if health.state is EngineState.READY else 503
            await answer(send, status, health.to_json())
        elif path == protocol.METRICS_PATH:
            await answer_metrics(send, self._supervisor.metrics.page())
        elif path in protocol.CONTROL_PATHS:
            await self._control(scope, receive, send)
        elif path in protocol.ENGINE_ROUTES:
            adapter = headers.get(protocol.ADAPTER_HEADER.encode())
            await self._run(scope, receive, send, None if adapter is None else adapter.decode("latin-1"))
        else:
            await answer(send, 404, {"error": "no such route"})

    async def start(self) -> None:
        """Begin to load the engine; it is the only one of this process. Call it in the main thread."""
        self._supervisor.start()

    async def stop(self) -> None:
        """End the engine and leave no process behind."""
        await self._supervisor.stop()

    def is_ready(self) -> bool:
        """Whether the engine answers requests. Never raises."""
        return self._supervisor.is_ready()

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense. Never raises."""
        return self._supervisor.is_alive()

    async def _run(self, scope: Scope, receive: Receive, send: Send, adapter_id: str | None) -> None:
        """Load the adapter, then let vLLM answer. The answer says whether the engine is at fault."""
        running = self._supervisor.running
        if running is None or running.engine.errored or running.in_flight.is_closed:
            await _answer_fault(send, protocol.FAULT_ENGINE, "the engine is not running")
            return
        send = _marking_deaths(send, running.engine)
        if scope["path"] in protocol.FORMS:
            send = speech.telling_usage(scope, send)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(running.in_flight)
            if adapter_id is None:
                await answer_with(running.app, scope, receive, send)
                return
            try:
                await stack.enter_async_context(self._lease(adapter_id))
            except (EngineDied, FilesAway) as error:
                await _answer_fault(send, protocol.FAULT_ENGINE, str(error))
                return
            except AdapterError as error:
                # A draining engine takes no adapter, so the adapter is not at fault.
                fault = protocol.FAULT_ENGINE if self._supervisor.draining else protocol.FAULT_ADAPTER
                await _answer_fault(send, fault, str(error))
                return
            await answer_with(running.app, scope, receive, send)

    def _lease(self, adapter_id: str) -> contextlib.AbstractAsyncContextManager[Any]:
        """Keep an adapter in a slot. Raises `EngineDied` if this worker does not know the adapter."""
        adapter = self._supervisor.reconciler.desired(adapter_id)
        if adapter is None:  # a worker that has just started; other replicas may know the adapter
            raise EngineDied("this engine has not been told of that adapter")
        running = self._supervisor.running
        if running is None or running.loader is None:
            raise EngineDied("this engine does not run, or has no slots for adapters")
        return running.loader.lease(adapter)

    # -- control -------------------------------------------------------------------------------------------

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the gateway's calls about adapters and the engine."""
        call = scope["method"], scope["path"]
        try:
            if call == ("GET", protocol.ADAPTERS_PATH):
                await answer(send, 200, self._residency().to_json())
            elif call == ("PUT", protocol.ADAPTERS_PATH):
                desired = _parse_desired(await _read_json(receive))
                if self._supervisor.files is not None:
                    self._supervisor.files.at(desired.files_at, (scope.get("client") or (None,))[0])
                self._supervisor.reconciler.desire(desired)
                await answer(send, 200, self._residency().to_json())
            elif call == ("POST", protocol.TRIAL_PATH):
                body = await _read_json(receive)
                report = await self._try(str(body.get("id")))
                await answer(send, 200, report.to_json())
            elif call == ("POST", protocol.ENGINE_PATH):
                body = await _read_json(receive)
                model = self._meant(body, (scope.get("client") or (None,))[0])
                if body.get("order") == protocol.EngineOrder.PREPARE:
                    self._supervisor.model = model  # what is read ahead is that one's
                self._follow(body, model)
                self._supervisor.model = model  # the next engine is made after this
                self._took(model)
                await answer(send, 200, self._health().to_json())
            else:
                await answer(send, 405, {"error": "not a method of this route"})
        except _BadRequest as error:
            await answer(send, error.status, {"error": str(error)})
        except (EngineDied, BaseModelFailed, FilesAway) as error:
            await _answer_fault(send, protocol.FAULT_ENGINE, str(error))

    def _meant(self, told: dict[str, Any], peer: str | None) -> BaseModel:
        """Read with what the next engine is to be started, as `peer` says. Raises `_BadRequest`."""
        model, comes = self._supervisor.model, told.get("order") in _COMING
        if self._places is not None and comes:
            source, revision = self._own.source, self._own.revision
            if told.get("source") is not None:
                source, revision = told["source"], told.get("revision")
            model = _elsewhere(model, source, revision) if source else model
            if self._places.files is not None:
                self._places.files.at(str(told.get("files_at", "")), peer)
                model = self._places.files.located(model)
        return _parse_settings(told, model)

    def _health(self) -> EngineHealth:
        if self._places is None:
            return self._supervisor.health()
        return self._places.health(self._supervisor.model.name)

    def _follow(self, told: dict[str, Any], model: BaseModel) -> None:
        """Do as the gateway tells the engine. Raises `_BadRequest`."""
        order, instead_of = _parse_order(told)
        if order is protocol.EngineOrder.LEAVE:
            if self._leave is None:
                raise _BadRequest(400, "this host has one base model, which it does not forget")
            self._leave()
            return
        if order is not protocol.EngineOrder.STOP and not model.source:
            raise _BadRequest(409, f"this host was not told where the files of {model.name} are")
        if self._places is None:
            if instead_of is not None:
                raise _BadRequest(400, "this host has one base model, which goes for no other")
            self._supervisor.follow(order)
            return
        try:
            self._places.follow(self._supervisor.model.name, order, instead_of)
        except LookupError as error:
            raise _BadRequest(400, "instead_of names no base model of this host") from error
        except Refused as error:
            raise _BadRequest(409, str(error)) from error

    def _residency(self) -> Residency:
        return replace(self._supervisor.reconciler.residency(), **self._supervisor.limits)

    async def _try(self, adapter_id: str) -> TrialReport:
        """Run an adapter's trial. Raises `EngineDied`, perhaps of the adapter, and `BaseModelFailed`."""
        try:
            async with self._lease(adapter_id) as request:
                return await self._run_trial(request)
        except AdapterError as error:
            return TrialReport(False, str(error), 0.0, 0.0)

    async def _run_trial(self, request: Any) -> TrialReport:
        name = request.lora_name
        running = self._supervisor.running
        if running is None or running.trials is None or running.loader is None or running.in_flight.is_closed:
            raise EngineDied("the engine is not running")
        load_s = running.loader.load_s.get(name, 0.0)
        try:
            with running.in_flight:
                return await running.trials.run(request, load_s)
        except EngineDied:
            self._supervisor.blame(name, FaultKind.CRASH, f"{ENGINE_DIED} tried this adapter")
            raise
        except BaseModelFailed as error:
            log.error("%s: %s", self._supervisor.replica, error)
            raise
        except Exception as error:
            log.exception("the trial of adapter %s failed", name)
            return TrialReport(False, f"vLLM failed on it: {reason_of(error)}", 0.0, load_s)


def _marking_deaths(send: Send, engine: Any) -> Send:
    """Mark the server errors of an engine that has died, so that the gateway may ask another replica."""

    async def send_marked(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 500 and engine.errored:
            fault = (protocol.FAULT_HEADER.encode(), protocol.FAULT_DEATH.encode())
            message["headers"] = [*message.get("headers", []), fault]
        await send(message)

    return send_marked


async def _read_json(receive: Receive) -> dict[str, Any]:
    """Read a bounded JSON object. Raises `_BadRequest`."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_DESIRED_BYTES:
            raise _BadRequest(413, f"more than {MAX_DESIRED_BYTES} bytes")
        if not message.get("more_body"):
            break
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _BadRequest(400, "not a JSON object")
    return value


def _parse_order(value: dict[str, Any]) -> tuple[protocol.EngineOrder, str | None]:
    """Read what the engine is to do, and which model goes for it. Raises `_BadRequest`."""
    try:
        order, instead_of = protocol.EngineOrder(value["order"]), value.get("instead_of")
    except (KeyError, TypeError, ValueError) as error:
        raise _BadRequest(400, "not an order: restart, stop, prepare or start") from error
    if instead_of is not None and (
        order is not protocol.EngineOrder.START or not isinstance(instead_of, str)
    ):
        raise _BadRequest(400, "instead_of goes with start, and is the name of a base model")
    return order, instead_of


def _elsewhere(model: BaseModel, source: object, revision: object) -> BaseModel:
    """Return the model with its files there. Raises `_BadRequest`."""
    try:
        return with_weights(model, source, revision)
    except ValueError as error:
        raise _BadRequest(400, str(error)) from None


def _parse_settings(value: dict[str, Any], model: BaseModel) -> BaseModel:
    """Read what the next engine is to be started with, without a word as before. Raises `_BadRequest`."""
    if value.get("settings") is None:
        return model
    try:
        return with_settings(model, value["settings"])
    except ValueError as error:
        raise _BadRequest(400, f"settings: {error}") from None


def _parse_desired(value: dict[str, Any]) -> DesiredAdapters:
    """Read the desired set. Raises `_BadRequest` for one that no gateway of ours sends."""
    try:
        desired = DesiredAdapters.from_json(value)
        usable = all(_is_usable(adapter) for adapter in desired.adapters)
    except (KeyError, TypeError, ValueError) as error:
        raise _BadRequest(400, "not a desired set: revision, adapters of id, digest, pinned, size") from error
    if not usable or len({adapter.id for adapter in desired.adapters}) < len(desired.adapters):
        raise _BadRequest(400, "an adapter is named twice, has no name, or no digest")
    return desired


def _is_usable(adapter: EngineAdapter) -> bool:
    named = isinstance(adapter.id, str) and bool(adapter.id)
    return named and isinstance(adapter.digest, str) and _DIGEST.fullmatch(adapter.digest) is not None


def may_call(headers: Mapping[bytes, bytes], token: str) -> bool:
    """Whether a request shows the token."""
    return hmac.compare_digest(headers.get(protocol.TOKEN_HEADER.encode(), b""), token.encode())


async def answer(send: Send, status: int, payload: object, *headers: tuple[bytes, bytes]) -> None:
    """Answer with JSON."""
    body = json.dumps(payload).encode()
    await _send_whole(send, status, [(b"content-type", b"application/json"), *headers], body)


async def _answer_fault(send: Send, fault: str, message: str) -> None:
    await answer(send, 503, {"error": message}, (protocol.FAULT_HEADER.encode(), fault.encode()))


async def answer_metrics(send: Send, page: bytes) -> None:
    """Answer with a page of metrics."""
    await _send_whole(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], page)


async def _send_whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
