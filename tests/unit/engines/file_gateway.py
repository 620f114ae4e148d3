"""A gateway that gives versions' files to engines on other machines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from adapters.kind import Kind
from adapters.store import VersionStore
from engines.protocol import TOKEN_HEADER

TOKEN = "the token"


@dataclass
class Gateway:
    """Gives the files of some versions; notes who asked for what."""

    store: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    cut: tuple[str, int] | None = None  # a file, and the bytes of it after which the connection ends
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get(TOKEN_HEADER) != TOKEN:
            return web.Response(status=404)
        digest, name = request.match_info["digest"], request.match_info.get("name", "")
        self.asked.append(f"{name} {request.headers.get('range', '')}".strip())
        if self.answer is not None:
            return await self.answer(request)
        folder = VersionStore(self.store).folder_of(digest)
        if not name and folder.exists():
            return web.json_response({path.name: path.stat().st_size for path in folder.iterdir()})
        if not (folder / name).is_file():
            return web.Response(status=404)
        begin = int(request.headers.get("range", "bytes=0-")[6:-1])
        data = (folder / name).read_bytes()
        if begin >= len(data):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if begin else 200)
        response.content_length = len(data) - begin
        await response.prepare(request)
        end = self.cut[1] if self.cut is not None and name == self.cut[0] else len(data)
        await response.write(data[begin:end])
        if end < len(data):
            assert request.transport is not None
            request.transport.abort()
        return response

    def has(self, source: Path, kind: Kind) -> Path:
        """Put a folder into its store; return where it lies there."""
        folder = VersionStore(self.store).folder_of(kind.inspect(source).digest)
        served = kind.files_in(source)
        for path in source.iterdir():
            if path.name not in served:
                path.unlink()
        folder.parent.mkdir(parents=True, exist_ok=True)
        source.rename(folder)
        return folder


@contextlib.asynccontextmanager
async def serving(store: Path, files_path: str) -> AsyncIterator[Gateway]:
    made = Gateway(store)
    app = web.Application()
    app.router.add_get(f"{files_path}{{digest}}/{{name}}", made.serve)
    app.router.add_get(f"{files_path}{{digest}}", made.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()
