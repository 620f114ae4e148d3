"""A client of the gateway's admin API, and its errors. Speaks JSON; prints nothing.

GatewayError
|-- WrongUse               no request was sent: no key, no such URL
|-- GatewayRefused         the gateway refused the request
`-- GatewayUnreachable     nothing answered, or no gateway
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

DEFAULT_URL = "http://localhost:3000"
URL_VARIABLE = "TENANTRY_URL"
KEY_VARIABLE = "TENANTRY_ADMIN_KEY"  # never an argument: those can be read in the list of processes

_PREFIX = "/admin/v1"
_PAGE = 1000
_CHUNK_BYTES = 2**18
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_MAX_SHOWN_CHARS = 2000  # of a refusal
_MAX_URL_CHARS = 200
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")  # the gateway is stricter, and explains

Answer = dict[str, Any]
Params = dict[str, Any]


class GatewayError(Exception):
    """The gateway did not do the request."""

    exit_code = 1
    code = "error"


class WrongUse(GatewayError):
    """No request was sent, since something is missing."""

    exit_code = 2
    code = "wrong_use"


class GatewayRefused(GatewayError):
    """The gateway refused the request."""

    def __init__(self, message: str, *, status: int, code: str, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.answer = answer or {}  # all that it said


class GatewayUnreachable(GatewayError):
    """Nothing answered, or no gateway."""

    exit_code = 3
    code = "unreachable"


class Gateway:
    """The admin API of one gateway. Use it with `async with`."""

    def __init__(self, url: str, key: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Raise `WrongUse` for an invalid URL, or a key that no header could carry."""
        if not _is_gateway_url(url):
            raise WrongUse(
                f"{url[:_MAX_URL_CHARS]!r} is not the URL of a gateway; write it like {DEFAULT_URL}"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise WrongUse(f"{KEY_VARIABLE} holds white space or characters that no key has; set it again")
        self.url = url.rstrip("/")[:_MAX_URL_CHARS]  # for messages
        # Redirects are not followed: the key would go to their targets.
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def call(
        self, method: str, path: str, *, params: Params | None = None, body: Answer | None = None
    ) -> Answer:
        """Send one request. `path` is below `/admin/v1`. Raises `GatewayRefused` or `GatewayUnreachable`."""
        return await self._send(method, path, params, json=body)

    async def text(self, path: str, params: Params) -> str:
        """Request an answer that is not JSON. Raises `GatewayRefused` or `GatewayUnreachable`."""
        answer = await self._request("GET", path, params)
        if not answer.is_success:
            self._read(answer)
        return answer.text

    async def pages(self, path: str, params: Params) -> list[Answer]:
        """Return a whole paginated list."""
        found: list[Answer] = []
        after: str | None = None
        while True:
            page = await self.call("GET", path, params={**params, "limit": _PAGE, "after": after})
            found += page["data"]
            after = page.get("next")
            if after is None:
                return found

    async def put_document(self, path: str, document: bytes, params: Params) -> Answer:
        """Send YAML as the body."""
        headers = {"content-type": "application/yaml"}
        return await self._send("POST", path, params, content=document, headers=headers)

    async def put(self, path: str, body: Answer) -> None:
        """Send JSON to a route that answers nothing. Raises `GatewayRefused` or `GatewayUnreachable`."""
        answer = await self._request("PUT", path, None, json=body)
        if answer.status_code != httpx.codes.NO_CONTENT:
            self._read(answer)

    async def upload(
        self,
        path: str,
        archive: Path,
        media_type: str,
        *,
        size_bytes: int,
        params: Params,
        sent: Callable[[int], None],
    ) -> Answer:
        """Send a file as the body; `sent` gets the bytes of each part."""

        async def parts() -> AsyncIterator[bytes]:
            with archive.open("rb") as file:
                while part := file.read(_CHUNK_BYTES):
                    yield part
                    sent(len(part))

        headers = {"content-type": media_type, "content-length": str(size_bytes)}
        return await self._send("POST", path, params, content=parts(), headers=headers)

    async def _send(self, method: str, path: str, params: Params | None, **content: Any) -> Answer:
        return self._read(await self._request(method, path, params, **content))

    async def _request(self, method: str, path: str, params: Params | None, **content: Any) -> httpx.Response:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            return await self._client.request(method, _PREFIX + path, params=given, **content)
        except (httpx.ConnectError, UnicodeError):  # the latter for an impossible host name
            raise GatewayUnreachable(
                f"Nothing answers at {self.url}. Is the gateway running? Name another one with --url or "
                f"{URL_VARIABLE}."
            ) from None
        except httpx.RequestError as error:
            raise GatewayUnreachable(
                f"The connection to {self.url} broke ({type(error).__name__}); check its effect before "
                "you repeat the request."
            ) from None

    def _read(self, answer: httpx.Response) -> Answer:
        """Return the answer's JSON object. Raises `GatewayRefused` or `GatewayUnreachable`."""
        try:
            value = answer.json()
        except (ValueError, RecursionError):
            value = None
        if answer.is_success and isinstance(value, dict):
            return value
        error = value.get("error") if isinstance(value, dict) else None
        if not isinstance(error, dict) or answer.is_redirect:
            raise GatewayUnreachable(
                f"The server at {self.url} (status {answer.status_code}) has no admin API of a gateway; "
                f"name the gateway with --url or {URL_VARIABLE}."
            )
        message = str(error.get("message"))[:_MAX_SHOWN_CHARS]
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            message = (
                f"The gateway at {self.url} does not take the key in {KEY_VARIABLE}: it is mistyped, "
                "expired, revoked, or another gateway's."
            )
        code = str(error.get("code") or "error")
        raise GatewayRefused(message, status=answer.status_code, code=code, answer=value)


def _is_gateway_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        httpx.URL(url)
        whole = bool(parts.hostname) and parts.port != 0  # raises for an invalid port
        return parts.scheme in ("http", "https") and whole and parts.username is None
    except (ValueError, httpx.InvalidURL):
        return False


def key_from_environment() -> str:
    """Return the admin key. Raises `WrongUse`."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise WrongUse(
            f"Set {KEY_VARIABLE} to an admin key: an operator's (gateway.operator_keys in fleet.yaml), or "
            "one that `tenantry keys create` made."
        )
    return key


@contextmanager
def understood(url: str) -> Iterator[None]:
    """Report an answer that lacks expected fields. Raises `GatewayUnreachable`."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise GatewayUnreachable(
            f"The server at {url[:_MAX_URL_CHARS]} is no gateway that this command understands "
            f"({type(error).__name__}: {str(error)[:100]}); is it of another version, or no gateway at all?"
        ) from error


def in_path(name: str) -> str:
    """Return a name as a part of a path. Raises `WrongUse` if it is not a name."""
    if not _NAME.fullmatch(name):
        raise WrongUse(f"{name[:100]!r} is not a name; names are of a-z, 0-9, `.`, `_` and `-`")
    return quote(name, safe="")


def alias_in_path(alias: str) -> str:
    """Return a tenant's name for a model as a part of a path. Raises `WrongUse` if it cannot be one."""
    if not alias.isprintable() or not {"", ".", ".."}.isdisjoint(alias.split("/")):
        raise WrongUse(f"{alias[:100]!r} is not an alias; aliases are of printable characters")
    return quote(alias, safe="")
