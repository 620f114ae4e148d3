"""What does vLLM itself fetch, with the flags and the environment that its engines get? Without an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.vllm_args import NO_HOST, engine_environment
from fleet.content import Media
from fleet.types import BaseModel

pytestmark = pytest.mark.engine

SCRIPT = r"""
import http.server, json, sys, threading
from vllm.multimodal.media import MediaConnector
from vllm.multimodal.media.image import ImageMediaIO

asked = []

class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        large = self.path == "/large"
        self.send_response(200 if large else 302)
        self.send_header("location", f"http://localhost:{server.server_port}/secret")
        self.send_header("content-length", str(3 * 2**20) if large else "0")
        self.end_headers()
        self.wfile.write(b"x" * (3 * 2**20 if large else 0))

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
told = {}
for hosts, path in json.loads(sys.argv[1]):
    url = path if "://" in path else f"http://127.0.0.1:{server.server_port}{path}"
    try:
        MediaConnector(allowed_media_domains=hosts).load_from_url(url, ImageMediaIO(), fetch_timeout=2)
        told[path] = "read"
    except Exception as error:
        told[path] = repr(error)
print(json.dumps({"told": told, "asked": asked}))
"""


def test_no_redirect_is_followed_no_host_but_the_listed_is_asked_and_nothing_larger_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("secret")
    cases = [
        ([NO_HOST], "/not-listed"),
        (["127.0.0.1"], "/redirect"),
        (["127.0.0.1"], "/large"),
        (["127.0.0.1"], f"file://{tmp_path}/secret"),
    ]
    model = BaseModel("m", "/models/m", media=Media(max_mib=2))
    environment = (
        os.environ | engine_environment([model], on_cpu=True) | {"VLLM_MEDIA_FETCH_MAX_RETRIES": "1"}
    )
    command = [sys.executable, "-c", SCRIPT, json.dumps(cases)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert set(found["asked"]) == {"/redirect", "/large"}, "nobody is asked but the listed host"
    assert "read" not in found["told"].values()
    assert "allowed domains" in found["told"]["/not-listed"]
    assert "exceed" in found["told"]["/large"]
