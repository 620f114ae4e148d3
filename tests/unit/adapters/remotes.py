"""Local servers and a follower, for everything that fetches adapters."""

from __future__ import annotations

import io
import re
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from adapters.layout import SERVED_FILES, WEIGHTS_FILE
from adapters.sources import FetchSettings, fetch
from tests.unit.fleet.files import adapter_folder, safetensors

MAX_BYTES = 2**26


@dataclass
class Reply:
    """What a server answers to one request; `cut` ends the connection after that many bytes."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    with_length: bool = True


@dataclass(frozen=True)
class Request:
    path: str  # with its query
    headers: dict[str, str]  # names in lower case

    @property
    def start(self) -> int:
        """First byte asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return int(match[1]) if match else 0


@dataclass
class Server:
    """An HTTP server whose answers a test decides."""

    url: str
    answer: Callable[[Request], Reply]
    requests: list[Request] = field(default_factory=list)


@contextmanager
def http_server(answer: Callable[[Request], Reply]) -> Iterator[Server]:
    """Serve on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        """One request per connection, so that no thread outlives the server."""

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            self.rfile.read(length)
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()})
            server.requests.append(request)
            reply = server.answer(request)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.with_length and "content-length" not in {name.lower() for name in reply.headers}:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.cut])

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = False
    server = Server(f"http://127.0.0.1:{httpd.server_port}", answer)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def ranged(content: bytes, request: Request, headers: dict[str, str] | None = None) -> Reply:
    """Answer as a server that knows ranges and `If-Range`."""
    headers = dict(headers or {})
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if wanted is None or request.headers.get("if-range", headers.get("ETag")) != headers.get("ETag"):
        return Reply(content, headers=headers)
    start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
    if start >= len(content):
        return Reply(status=416, headers=headers)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Reply(content[start : end + 1], 206, headers)


def unused_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@dataclass
class Follower:
    """Follows a fetch, and may stop it after some bytes."""

    stop_after: int | None = None
    seen: list[tuple[int, int | None]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def progress(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))

    def should_stop(self) -> bool:
        return self.stop_after is not None and bool(self.seen) and self.seen[-1][0] >= self.stop_after

    def fetch(
        self,
        source: str,
        into: Path,
        *,
        max_bytes: int = MAX_BYTES,
        sha256: str | None = None,
        settings: FetchSettings | None = None,
    ) -> None:
        """Fetch with this follower, without ever sleeping."""
        fetch(
            source,
            into,
            max_bytes=max_bytes,
            sha256=sha256,
            progress=self.progress,
            should_stop=self.should_stop,
            settings=settings or FetchSettings(wait=self.waits.append),
        )


def served(folder: Path, **config: Any) -> dict[str, bytes]:
    """The two files of a valid adapter, whose weights take 400 KiB."""
    made = adapter_folder(folder, rank=64, **config)
    tensors = {"model.q_proj.lora_A.weight": [64, 800], "model.q_proj.lora_B.weight": [800, 64]}
    (made / WEIGHTS_FILE).write_bytes(safetensors(tensors))
    return {name: (made / name).read_bytes() for name in SERVED_FILES}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """Pack files into a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class _FullDisk(type(Path())):  # type: ignore[misc]
    """A path that cannot be written to for want of room."""

    def open(self, *_: Any, **__: Any) -> Any:
        return open("/dev/full", "wb", buffering=0)


def full_disk(into: Path, name: str) -> Path:
    """Stand in for `part_of` where the disk is full."""
    return _FullDisk(into / f".{name}.part")
