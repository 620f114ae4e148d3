"""How do pages reach a browser? From memory, under exact paths; no path of a client is ever opened."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from routing.asgi import Exchange, HeaderList
from routing.errors import RouteNotFound

TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".svg": b"image/svg+xml",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COMMON: HeaderList = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"vary", b"accept-encoding"),
]
_FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
_ANEW = (b"cache-control", b"no-cache")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of a page, ready to be sent."""

    headers: HeaderList
    body: bytes
    packed: bytes  # with gzip
    status: int = 200

    @classmethod
    def of(cls, name: str, body: bytes, *, kept: bool, policy: bytes = POLICY) -> Self:
        """Prepare a file; one whose name holds a hash of its content may be `kept` for ever.

        Raises `KeyError` for a kind of file that no page is made of.
        """
        kind = TYPES[Path(name).suffix]
        caching = _FOREVER if kept else _ANEW
        headers = [(b"content-type", kind), caching, (b"content-security-policy", policy), *_COMMON]
        return cls(headers, body, gzip.compress(body, mtime=0))

    @classmethod
    def redirect(cls, where: str) -> Self:
        """Prepare an answer that sends the browser elsewhere."""
        headers = [(b"location", where.encode()), _ANEW, *_COMMON, (b"vary", b"accept")]
        return cls(headers, b"", b"", status=307)


class Site:
    """Pages and what they load, by path."""

    def __init__(self, assets: Mapping[str, Asset], for_browsers: Mapping[str, Asset] | None = None) -> None:
        """`for_browsers` are what clients get that ask for HTML, where there is such a path."""
        self._assets = assets
        self._for_browsers = for_browsers or {}

    async def respond(self, exchange: Exchange) -> None:
        """Send a file. Raises `RouteNotFound`, and `MethodNotAllowed` for anything but reading."""
        asset = self._assets.get(exchange.path) or self._assets.get(exchange.path.removesuffix("/"))
        if "text/html" in (exchange.headers.accept or ""):
            asset = self._for_browsers.get(exchange.path) or asset
        if asset is None:
            raise RouteNotFound("There is no such route.")
        exchange.require_method("GET")
        headers, body = list(asset.headers), asset.body
        if body and _takes_gzip(exchange):
            headers.append((b"content-encoding", b"gzip"))
            body = asset.packed
        await exchange.respond(asset.status, headers, body)


def _takes_gzip(exchange: Exchange) -> bool:
    """Whether the client says that it can unpack gzip; RFC 9110, section 12.5.3."""
    given = b",".join(value for name, value in exchange.scope["headers"] if name == b"accept-encoding")
    for part in given.decode("latin-1").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
