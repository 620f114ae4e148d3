"""Where does an operator's browser get the console? The built page, from memory, under exact paths.

`make console` builds `static/` from the sources in `console/`. It is read once, when the gateway starts; no
path that a client sends is ever opened. The page itself holds nothing of the fleet: whatever it shows it asks
of `/admin/v1`, with the key that the operator gives it.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from routing.asgi import Exchange, HeaderList
from routing.errors import MethodNotAllowed, RouteNotFound

CONSOLE_PATH = "/console"
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COMMON: HeaderList = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"vary", b"accept-encoding"),
]
# Names hold a hash of what is in the file; the page, whose name stays, is asked for again each time.
_FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
_ANEW = (b"cache-control", b"no-cache")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, ready to be sent."""

    headers: HeaderList
    body: bytes
    packed: bytes  # with gzip

    @classmethod
    def of(cls, name: str, body: bytes) -> Self:
        """Prepare a file. Raises `KeyError` for a kind of file that no page is made of."""
        kind = TYPES[Path(name).suffix]
        caching = _ANEW if name == "index.html" else _FOREVER
        return cls([(b"content-type", kind), caching, *_COMMON], body, gzip.compress(body, mtime=0))


class Site:
    """The console's files by path."""

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        self._assets = assets

    @classmethod
    def load(cls, folder: Path = STATIC) -> Self:
        """Read the built page. Raises `OSError` where there is none."""
        files = {f.name: Asset.of(f.name, f.read_bytes()) for f in folder.iterdir() if f.suffix in TYPES}
        if "index.html" not in files:
            raise FileNotFoundError(f"{folder} holds no built console; `make console` builds it")
        page = files.pop("index.html")
        paths = {f"{CONSOLE_PATH}/{name}": asset for name, asset in files.items()}
        return cls(paths | {CONSOLE_PATH: page, f"{CONSOLE_PATH}/": page})

    async def respond(self, exchange: Exchange) -> None:
        """Send a file. Raises `RouteNotFound`, and `MethodNotAllowed` for anything but reading."""
        asset = self._assets.get(exchange.path)
        if asset is None:
            raise RouteNotFound("There is no such route.")
        method = exchange.scope["method"]
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Only GET is allowed here.")
        headers, body = list(asset.headers), asset.body
        if _takes_gzip(exchange):
            headers.append((b"content-encoding", b"gzip"))
            body = asset.packed
        headers.append((b"content-length", b"%d" % len(body)))
        await exchange.begin(200, headers)
        await exchange.send_body(b"" if method == "HEAD" else body, more=False)


def _takes_gzip(exchange: Exchange) -> bool:
    """Whether the client says that it can unpack gzip; RFC 9110, section 12.5.3."""
    given = b",".join(value for name, value in exchange.scope["headers"] if name == b"accept-encoding")
    for part in given.decode("latin-1").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
