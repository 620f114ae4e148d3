"""The middleware before the admin API's routes: authentication, and bounds on the body.

Callers are known before a byte of a body is read. JSON is read here, bounded in size and time, since what is
behind reads without bounds; uploads pass unread, and their route bounds them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route

from fleet.document import MAX_FILE_BYTES
from routing.admin.access import IDENTITY, Authenticate
from routing.admin.uploads import is_upload, media_type
from routing.asgi import App, ClientGone, Exchange, Headers, Message, Receive, Scope, Send
from routing.catalog.declared import Identity
from routing.catalog.entries import KeyRole
from routing.errors import (
    AccountSuspended,
    Forbidden,
    InvalidKey,
    MethodNotAllowed,
    RequestError,
    UnsupportedMediaType,
)
from routing.lifecycle.changes import ACTOR

MAX_JSON_BYTES = 64 * 2**10  # the largest sensible body is a URL of 4 KiB and a few numbers
MAX_PLAN_BYTES = 4 * 2**20  # a thousand models and five hundred pools, each with its reasons
PLAN_PATHS = frozenset({"/admin/v1/plan", "/admin/v1/plan/look"})
FLEET_PATH = "/admin/v1/fleet"
FLEET_MEDIA_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "application/json"})
_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
log = logging.getLogger("tenantry.admin")


class Gate:
    """Lets admin keys in, and answers whatever goes wrong behind it."""

    def __init__(
        self,
        app: App,
        *,
        authenticate: Authenticate,
        is_suspended: Callable[[str], bool],
        read_timeout_s: float,
    ) -> None:
        self._app = app
        self._is_suspended = is_suspended
        self._authenticate = authenticate
        self._read_timeout_s = read_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, Headers.of(scope))
        path = scope["path"].removesuffix("/")
        try:
            methods = methods_of(scope["app"].routes, path)
            if methods and scope["method"] == "OPTIONS":
                raise MethodNotAllowed(*methods)  # which says them, to everybody
            identity = self._identify(exchange)
            inside = {**scope, "path": path, IDENTITY: identity}
            if methods:
                exchange.require_method(*methods)
            self._refuse_if_suspended(identity, scope["method"])
            asking = ACTOR.set(identity.shown)
            if scope["method"] == "POST" and path == FLEET_PATH:
                receive = await self._read_fleet(exchange)
            elif scope["method"] in _WITH_BODY and not is_upload(path, exchange.headers.content_type):
                receive = await self._read_json(exchange, path)
            elif scope["method"] == "HEAD":
                inside["method"], send = "GET", _head_alone(send)
            try:
                await self._app(inside, receive, send)
            finally:
                ACTOR.reset(asking)
        except RequestError as error:
            await exchange.refuse(error)
        except (ClientGone, ClientDisconnect):
            pass
        except Exception:  # its text may hold anything, so that it goes to the log alone
            log.exception("%s %s met an error", scope["method"], ascii(scope["path"]))
            with contextlib.suppress(Exception):  # the answer may have begun already
                await exchange.refuse(RequestError("The gateway met an error of its own."))

    def _identify(self, exchange: Exchange) -> Identity:
        """Return who calls. Raises `InvalidKey` or `Forbidden`."""
        key = exchange.bearer()
        identity = self._authenticate(key, exchange.scope)
        if identity is None and key is None:
            raise InvalidKey("Send an admin key as `Authorization: Bearer <key>`.")
        if identity is None:
            raise InvalidKey("The API key is not valid.")
        if identity.role is KeyRole.INFERENCE:
            raise Forbidden("This key calls models; managing adapters needs a key of role `adapters`.")
        return identity

    def _refuse_if_suspended(self, identity: Identity, method: str) -> None:
        """Raise `AccountSuspended` where a key of a suspended tenant would change something."""
        reads = method in ("GET", "HEAD")
        if not reads and identity.tenant is not None and self._is_suspended(identity.tenant):
            raise AccountSuspended

    async def _read_json(self, exchange: Exchange, path: str) -> Receive:
        """Read the body and return a `receive` that gives it once more."""
        limit_bytes = MAX_PLAN_BYTES if path in PLAN_PATHS else MAX_JSON_BYTES
        return _again(
            exchange,
            await exchange.read_json(limit_bytes=limit_bytes, timeout_s=self._read_timeout_s),
        )

    async def _read_fleet(self, exchange: Exchange) -> Receive:
        """The same for a fleet file, which is YAML or JSON and larger."""
        kind = media_type(exchange.headers.content_type)
        if kind not in FLEET_MEDIA_TYPES or exchange.headers.content_encoding not in (None, "identity"):
            raise UnsupportedMediaType("Send the fleet file as it is, with `content-type: application/yaml`.")
        return _again(
            exchange, await exchange.read_body(limit_bytes=MAX_FILE_BYTES, timeout_s=self._read_timeout_s)
        )


def _again(exchange: Exchange, body: bytes) -> Receive:
    """Return a `receive` that gives a body that was read once more."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return pending.pop() if pending else await exchange.receive()

    return receive


def methods_of(routes: Iterable[BaseRoute], path: str) -> set[str]:
    """Say which methods the routes of a path have; none: there is no such path."""
    found = (r for r in routes if isinstance(r, Route) and r.path_regex.match(path))
    return {method for route in found for method in route.methods or ()} - {"HEAD"}


def _head_alone(send: Send) -> Send:
    """Send the head of the answer to GET. A route that goes on sending finds that the client has left."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if message.get("more_body"):
            raise ConnectionResetError

    return send_head
