"""How is one replica reached? Its address, its readiness, and one upstream request. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from engines import forms
from engines.health import EngineHealth, EngineState
from engines.protocol import (
    ADAPTERS_PATH,
    ENGINE_PATH,
    FORMS,
    METRICS_PATH,
    MODEL_HEADER,
    READY_PATH,
    TOKEN_HEADER,
    TRIAL_PATH,
    EngineOrder,
)
from engines.residency import DesiredAdapters, Residency, TrialReport
from fleet.types import BaseModel
from fleet.values import engine_values
from routing.replicas.http1 import Answer, Upstream, UpstreamError

CONTROL_TIMEOUT_S = 10.0
TRIAL_TIMEOUT_S = 120.0  # loading a large adapter from a cold disk, behind a full batch
PROBE_TIMEOUT_S = 2.0
MEDIA_TYPE = "application/json"
T = TypeVar("T")


class ReplicaSilent(Exception):
    """A replica gave no usable answer to a control call."""


class ReplicaDied(ReplicaSilent):
    """It broke off, or said that its engine is dead; one that is only slow has not."""


class OrderRefused(ReplicaSilent):
    """Its host will not do what it was told, and says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host listens: a Unix socket, or an HTTP origin."""

    base_url: str
    socket_path: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `unix:///path`, `file:///path` (BentoML's spelling) or `http(s)://host:port`.

        Raises `ValueError` for anything else.
        """
        with contextlib.suppress(ValueError):  # of an IPv6 address or a port that is none
            parts = urlsplit(url)
            if parts.scheme in ("unix", "file") and parts.path:
                return cls("http://engine", parts.path)
            if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
                return cls(url.rstrip("/"))
        raise ValueError(f"{url!r} is not the address of a replica; use unix:///path or http://host:port")


class ReplicaClient:
    """Speaks to one replica at one address. Create it inside a running event loop; close it when done."""

    def __init__(self, name: str, url: str, token: str, *, base_model: str | None = None) -> None:
        """`base_model` is the replica's where others share its host.

        Raises `ValueError` where the URL is not the address of a replica.
        """
        self.name = name
        self.url = url
        self._base_model = base_model
        self._users = 0  # requests and control calls that have not ended
        self._unused = asyncio.Event()
        self._unused.set()
        address = Address.parse(url)
        headers = {TOKEN_HEADER: token}
        if base_model is not None:
            headers[MODEL_HEADER] = base_model
        self._upstream = Upstream(address.base_url, address.socket_path, headers)

    @property
    def in_use(self) -> bool:
        """Whether a request or a control call has not ended; readiness and metrics do not count."""
        return self._users > 0

    async def unused(self) -> None:
        """Wait until it is not in use."""
        await self._unused.wait()

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send a request; the caller reads the answer and must `end` it. Raises `UpstreamError`."""
        self._begin_use()
        try:
            kind = forms.CONTENT_TYPE if path in FORMS else MEDIA_TYPE
            return await self._upstream.ask("POST", path, body, {**headers, "content-type": kind})
        except BaseException:
            self._end_use()
            raise

    def end(self, answer: Answer) -> None:
        """Be done with the answer to a `post`, once; where it has not ended, its connection is closed."""
        answer.close()
        self._end_use()

    async def health(self) -> EngineHealth | None:
        """Ask the replica how its engine stands; None where it gives no usable answer."""
        try:
            status, body = await self._fetch("GET", READY_PATH, b"", PROBE_TIMEOUT_S)
            state = EngineState.READY if status == 200 else EngineState.STARTING
            # An engine of an older release says no more than its status does.
            return _read({"state": state, **_object(body)}, EngineHealth.from_json)
        except (UpstreamError, TimeoutError):
            return None

    async def is_ready(self) -> bool:
        """Ask the replica whether it answers requests; every failure is a no."""
        health = await self.health()
        return health is not None and health.state is EngineState.READY

    async def residency(self) -> Residency:
        """Ask what is in the engine. Raises `ReplicaSilent`."""
        return await self._control("GET", ADAPTERS_PATH, None, CONTROL_TIMEOUT_S, Residency.from_json)

    async def desire(self, desired: DesiredAdapters) -> Residency:
        """Tell the engine everything it may serve. Raises `ReplicaSilent`."""
        told = desired.to_json()
        return await self._control("PUT", ADAPTERS_PATH, told, CONTROL_TIMEOUT_S, Residency.from_json)

    async def order(
        self,
        order: EngineOrder,
        model: BaseModel | None = None,
        *,
        instead_of: str | None = None,
        files_at: str = "",
    ) -> EngineHealth:
        """Tell its host to restart, stop or start the engine; returns at once.

        The next engine has the settings of `model`, and at a shared host its files if it names them; without
        it, the last one's. A start may name the base model that goes for it. `files_at` is the gateway's
        address, where a host gets the files that it has not. Raises `ReplicaSilent`; `OrderRefused` where
        the host may not, or cannot.
        """
        told: dict[str, Any] = {"order": order}
        if model is not None:
            told["settings"] = engine_values(model)
            comes = order in (EngineOrder.START, EngineOrder.PREPARE)
            if self._base_model is not None and comes and model.source:
                told |= {"source": model.source, "revision": model.revision, "files_at": files_at}
        if instead_of is not None:
            told["instead_of"] = instead_of
        return await self._control("POST", ENGINE_PATH, told, CONTROL_TIMEOUT_S, EngineHealth.from_json)

    async def try_adapter(self, adapter_id: str) -> TrialReport:
        """Have a desired adapter tried. Raises `ReplicaSilent`, and `ReplicaDied` where that killed it."""
        asked = {"id": adapter_id}
        return await self._control("POST", TRIAL_PATH, asked, TRIAL_TIMEOUT_S, TrialReport.from_json)

    async def _control(
        self, method: str, path: str, payload: object, timeout_s: float, read: Callable[[dict[str, Any]], T]
    ) -> T:
        """Return what `read` makes of the answer. Raises `ReplicaSilent`."""
        body = b"" if payload is None else orjson.dumps(payload)
        self._begin_use()
        try:
            return _read(_object(await self._fetch_good(method, path, body, timeout_s)), read)
        except TimeoutError as error:
            raise ReplicaSilent(f"{self.name}: {path}: no answer in {timeout_s:g} s") from error
        except UpstreamError as error:
            raise ReplicaDied(f"{self.name}: {path}: {error!r}") from error
        finally:
            self._end_use()

    async def metrics(self) -> bytes:
        """Fetch the replica's own metrics page. Raises `UpstreamError` or `TimeoutError`."""
        return await self._fetch_good("GET", METRICS_PATH, b"", PROBE_TIMEOUT_S)

    def close(self) -> None:
        """Close its connections."""
        self._upstream.close()

    async def _fetch_good(self, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        """Fetch what is no error. Raises `UpstreamError` or `TimeoutError`."""
        status, answer = await self._fetch(method, path, body, timeout_s)
        if status == 409:
            raise OrderRefused(_reason(answer))
        if status >= 400:
            raise UpstreamError(f"it answered {status}")
        return answer

    async def _fetch(self, method: str, path: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        async with asyncio.timeout(timeout_s):
            answer = await self._upstream.ask(method, path, body, {"content-type": MEDIA_TYPE})
            try:
                return answer.status, await answer.read()
            finally:
                answer.close()

    def _begin_use(self) -> None:
        self._users += 1
        self._unused.clear()

    def _end_use(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()


def _object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises `UpstreamError` for anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamError(f"its answer is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UpstreamError("its answer is no JSON object")
    return value


def _read(value: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
    """Return what `read` makes of an object. Raises `UpstreamError` where that is nothing."""
    try:
        return read(value)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise UpstreamError(f"its answer has another form: {error!r}") from error


def _reason(answer: bytes) -> str:
    """Return why a host refused. Raises `UpstreamError` where it does not say."""
    try:
        return _read(_object(answer), lambda told: str(told["error"]))
    except UpstreamError as error:
        raise UpstreamError("it refused for no reason") from error
