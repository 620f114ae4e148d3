"""Gives engines on other machines versions' files, by digest. Without the token there is no such route."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
from typing import BinaryIO

import orjson

from adapters.errors import AdapterError
from adapters.store import VersionStore
from engines.protocol import TOKEN_HEADER
from routing.asgi import Exchange
from routing.errors import RouteNotFound

CHUNK_BYTES = 2**20
_RANGE = re.compile(rb"bytes=(\d{1,15})-")


class VersionFiles:
    """Answers what is below `FILES_PATH` of the protocol, or `MODEL_FILES_PATH`."""

    def __init__(self, store: VersionStore, token: str) -> None:
        """`token` is what the gateway shows its engines, and they show it."""
        self._store = store
        self._token = token.encode()

    async def answer(self, exchange: Exchange, rest: str) -> None:
        """Send a file of a version, from a place in it where the engine has its beginning; or name them.

        `rest` is what follows the path. Raises `RouteNotFound` for whatever is not there, and whoever has not
        the token.
        """
        headers = dict(exchange.scope["headers"])
        digest, _, name = rest.partition("/")
        if not hmac.compare_digest(headers.get(TOKEN_HEADER.encode(), b""), self._token):
            raise RouteNotFound("There is no such route.")
        if exchange.connection is not None:
            exchange.connection.show_key()
        exchange.require_method("GET")
        try:
            sizes = await asyncio.to_thread(self._store.sizes, digest)
            if not name:
                await exchange.respond(200, [(b"content-type", b"application/json")], orjson.dumps(sizes))
                return
            if name not in sizes:
                raise RouteNotFound("There is no such route.")
            file = await asyncio.to_thread((self._store.folder_of(digest) / name).open, "rb")
        except (AdapterError, OSError):  # it is not there, or has just been deleted
            raise RouteNotFound("There is no such route.") from None
        with file:
            begun = _RANGE.fullmatch(headers.get(b"range", b""))
            await _send(exchange, file, int(begun[1]) if begun else 0)


async def _send(exchange: Exchange, file: BinaryIO, begin: int) -> None:
    size = await asyncio.to_thread(file.seek, 0, os.SEEK_END)
    if begin >= size:
        return await exchange.respond(416, [], b"")
    await asyncio.to_thread(file.seek, begin)
    left = size - begin
    kind = (b"content-type", b"application/octet-stream")
    await exchange.begin(206 if begin else 200, [kind, (b"content-length", b"%d" % left)])
    while left:
        data = await asyncio.to_thread(file.read, min(left, CHUNK_BYTES))
        left -= len(data)
        await exchange.send_body(data, more=left > 0)
