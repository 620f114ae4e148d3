"""One HTTP exchange over ASGI: its headers, a bounded body, an answer. Knows nothing of tenants or models."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ipaddress
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl

from routing.errors import (
    BodyTimeout,
    BodyTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    RequestError,
    UnsupportedMediaType,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

ID_DIGITS = 32
IDS_AT_ONCE = 256
MAX_PARAMETERS = 50  # of one URL; nobody needs more
CONNECTION = "tenantry.connection"  # in a scope: its `Connection`, where the server has one
GZIP = b"\x1f\x8b"
MEDIA_TYPE = "application/json"
JSON = (b"content-type", MEDIA_TYPE.encode())
# Headers that are kept as they are, by their attribute.
_TEXTS = {
    b"content-type": "content_type",
    b"content-encoding": "content_encoding",
    b"x-request-id": "request_id",
    b"accept": "accept",
}
# What a proxy adds that speaks for somebody else.
_OF_PROXIES = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})


def random_id() -> str:
    """Return an id of a request: 32 hexadecimal digits, as many as a UUID has."""
    return next(_random_ids)


class ClientGone(Exception):
    """The client left before its request was read."""


class Connection(Protocol):
    """What our own server knows of a request's connection beside ASGI; it spares a task and a timer each."""

    is_stranger: bool  # it has shown no valid key yet

    @property
    def peer(self) -> str | None:
        """IP address of the other end, as the socket has it; None: it has none."""

    def show_key(self) -> None:
        """Note that it has shown one."""

    def take_body(self) -> bytes | None:
        """Return the request's body where all of it has arrived already, else None."""

    @property
    def takes_more(self) -> bool:
        """Whether the answer has begun, and its next part need not wait for the client."""

    def send_at_once(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body, where `takes_more`."""

    def watch(self, tell: Callable[[], object]) -> None:
        """Call `tell` once the client leaves."""

    def unwatch(self, tell: Callable[[], object]) -> None:
        """Call it no more."""


@dataclass(slots=True)
class Headers:
    """The few request headers the gateway reads; all others go no further."""

    authorization: list[str] = field(default_factory=list)
    api_key: list[str] = field(default_factory=list)
    content_type: str | None = None
    content_length: int | None = None
    content_encoding: str | None = None
    request_id: str | None = None
    accept: str | None = None
    traceparent: str | None = None
    forwarded: bool = False

    @classmethod
    def of(cls, scope: Scope) -> Headers:
        """Read them from an ASGI scope."""
        headers = cls()
        for name, value in scope["headers"]:
            if name in _TEXTS:
                setattr(headers, _TEXTS[name], value.decode("latin-1"))
            elif name == b"authorization":
                headers.authorization.append(value.decode("latin-1"))
            elif name == b"x-api-key":
                headers.api_key.append(value.decode("latin-1"))
            elif name == b"content-length":
                headers.content_length = int(value) if value.isdigit() else None
            elif name == b"traceparent":
                # Two of them name no trace.
                headers.traceparent = value.decode("latin-1") if headers.traceparent is None else ""
            elif name in _OF_PROXIES:
                headers.forwarded = True
        return headers


@dataclass(slots=True)
class Exchange:
    """One HTTP request and the way to answer it."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Headers
    answer_headers: HeaderList = field(default_factory=list)  # go on every answer
    as_anthropic: bool = False  # errors have Anthropic's form, not OpenAI's
    has_begun: bool = False  # the head of the answer was sent

    @property
    def connection(self) -> Connection | None:
        """What the server knows of the connection; None where it is not ours."""
        connection: Connection | None = self.scope.get(CONNECTION)
        return connection

    @property
    def path(self) -> str:
        """Decoded path of the request."""
        return str(self.scope["path"])

    @property
    def is_local(self) -> bool:
        """Whether the peer is on this machine and not a proxy that speaks for somebody else."""
        client = self.scope.get("client")
        if client is None or self.headers.forwarded:
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a socket for both shows a peer of IPv4
        return address.is_loopback

    @property
    def seed(self) -> str:
        """What this request is told from others by: its id, or who sent it."""
        id_ = next((value for name, value in self.answer_headers if name == b"x-request-id"), None)
        return id_.decode() if id_ is not None else str(self.scope.get("client"))

    def query(self) -> list[tuple[str, str]]:
        """Return the parameters of the URL, in order. Raises `InvalidRequest` for what cannot be read."""
        try:
            text = self.scope["query_string"].decode("ascii")
            return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
        except ValueError:
            raise InvalidRequest("The parameters of the URL cannot be read.", code="invalid_value") from None

    @property
    def method(self) -> str:
        """Method of the request."""
        return str(self.scope["method"])

    def require_method(self, *methods: str) -> None:
        """Raise `MethodNotAllowed` for any other method; what can be read has a head."""
        method = self.scope["method"]
        if method not in methods and not (method == "HEAD" and "GET" in methods):
            raise MethodNotAllowed(*methods)

    def bearer(self) -> str | None:
        """Return the one bearer token of the request. Raises `InvalidRequest` where there are several."""
        if len(self.headers.authorization) > 1:
            raise InvalidRequest("Send one Authorization header, not several.", code="ambiguous_api_key")
        scheme, _, token = (self.headers.authorization or [""])[0].partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def key(self) -> str | None:
        """Return the API key, as a bearer token or in `x-api-key`.

        Raises `InvalidRequest` where there are different ones.
        """
        if not self.headers.api_key:
            return self.bearer()
        bearer, others = self.bearer(), set(self.headers.api_key) - {""}
        if len(others | ({bearer} if bearer else set())) > 1:
            raise InvalidRequest("Send one API key, not several.", code="ambiguous_api_key")
        return bearer or next(iter(others), None)

    async def read_json(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """Read the whole body, which must be JSON as it is, for all that is said of it.

        Raises `UnsupportedMediaType`, and what `read_body` does.
        """
        told, coding = self.headers.content_type, self.headers.content_encoding
        if told is not None and told != MEDIA_TYPE and told.partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise UnsupportedMediaType("The body must be sent as `content-type: application/json`.")
        if coding is not None and coding.strip().lower() != "identity":
            raise _packed("is sent with a `content-encoding`")
        body = await self.read_body(limit_bytes=limit_bytes, timeout_s=timeout_s)
        if body[:1] == b"{":  # of nearly all
            return body
        if body.startswith(GZIP):
            raise _packed("looks like gzip")
        return body.removeprefix(codecs.BOM_UTF8)

    async def read_body(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """Read the whole body.

        Raises `BodyTooLarge` as soon as it is known to be, `BodyTimeout`, or `ClientGone`.
        """
        declared_bytes = self.headers.content_length
        if declared_bytes is not None and declared_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        connection = self.connection
        body = connection.take_body() if connection is not None else None
        if body is None:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._collect_body(limit_bytes)
            except TimeoutError:
                raise BodyTimeout(f"The request body did not arrive within {timeout_s:g} s.") from None
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body

    async def body_parts(self, *, limit_bytes: int, timeout_s: float) -> AsyncIterator[bytes]:
        """Give the body as it comes. `timeout_s` bounds the wait for each part.

        Raises `BodyTooLarge` as soon as it is known to be, `BodyTimeout`, or `ClientGone`.
        """
        declared_bytes, read_bytes, more = self.headers.content_length, 0, True
        if declared_bytes is not None and declared_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        while more:
            try:
                async with asyncio.timeout(timeout_s):
                    message = await self.receive()
            except TimeoutError:
                raise BodyTimeout(f"Nothing of the request body came for {timeout_s:g} s.") from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            part, more = message.get("body", b""), message.get("more_body", False)
            read_bytes += len(part)
            if read_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            yield part

    def watch(self, tell: Callable[[], object]) -> Callable[[], object]:
        """Have `tell` called once the client leaves; returns what ends the watch."""
        connection = self.connection
        if connection is None:
            return asyncio.create_task(self._until_gone(tell)).cancel
        connection.watch(tell)
        return partial(connection.unwatch, tell)

    async def begin(self, status: int, headers: HeaderList) -> None:
        """Send status and headers."""
        headers = [*headers, *self.answer_headers]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        self.has_begun = True

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body; waits while the client takes no more."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    @property
    def takes_more(self) -> bool:
        """Whether `send_at_once` may be called: the answer has begun, and the client keeps up."""
        connection: Connection | None = self.scope.get(CONNECTION)
        return connection is not None and connection.takes_more

    def send_at_once(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body in this very step, where `takes_more`."""
        connection: Connection = self.scope[CONNECTION]
        connection.send_at_once(data, more=more)

    async def respond(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send a whole answer."""
        await self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.send_body(b"" if self.scope["method"] == "HEAD" else body, more=False)

    async def refuse(self, error: RequestError) -> None:
        """Answer with an error. A request for a route's methods (OPTIONS) gets them without a body.

        An answer that has begun is left as it is: it is cut off, which its client sees.
        """
        if self.has_begun:
            return
        headers = error.headers_for(self.seed)
        if isinstance(error, MethodNotAllowed) and self.scope["method"] == "OPTIONS":
            await self.begin(204, headers)
            await self.send_body(b"", more=False)
        else:
            await self.respond(error.status, [JSON, *headers], self.error_body(error))

    def error_body(self, error: RequestError) -> bytes:
        """Render an error in the client's form."""
        return error.anthropic_body(self.seed) if self.as_anthropic else error.body()

    async def hand_over(self, app: App) -> None:
        """Let another ASGI application answer; the headers of every answer go on its answer too."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self.answer_headers]}
            await self.send(message)

        await app(self.scope, self.receive, send)

    async def _until_gone(self, tell: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            while (await self.receive())["type"] != "http.disconnect":
                pass
        tell()

    async def _collect_body(self, limit_bytes: int) -> bytes:
        body = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
            if not message.get("more_body"):
                return bytes(body)


def _packed(how: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(f"The body {how}; this service takes JSON that is not compressed.")


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit_bytes} bytes, the most this service takes.")


def _make_random_ids() -> Iterator[str]:
    while True:  # asking the system once for many ids is five times as fast as `uuid4` for each
        digits = os.urandom(IDS_AT_ONCE * ID_DIGITS // 2).hex()
        for start in range(0, len(digits), ID_DIGITS):
            yield digits[start : start + ID_DIGITS]


_random_ids = _make_random_ids()
