"""A real Prometheus on the files as compose.yaml puts them together, beside a gateway that is none."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.compose.prometheus import FOLDER, GATEWAY
from tests.unit.deploy.test_compose import SERVICES, inside

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus (Debian) is not installed"
)
KEY = "the-operators-key"
(SECRET,) = SERVICES["prometheus"]["secrets"]


class Gateway(BaseHTTPRequestHandler):
    """Metrics for whoever has the key."""

    def do_GET(self) -> None:
        known = self.headers["authorization"] == f"Bearer {KEY}"
        name = self.path.strip("/").replace("/", "_").replace("-", "_")
        body = f"page_{name} 1\n".encode() if known else b""
        self.send_response(200 if known else 401)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    """Address of the gateway."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def laid_out(tmp_path: Path, gateway: str) -> Path:
    """The folder that the container has at /etc/prometheus, with other addresses and a faster pace."""
    for name in ("rules/recording.yml", "rules/alerts.yml"):
        (tmp_path / "rules").mkdir(exist_ok=True)
        shutil.copy(inside("prometheus", f"/etc/prometheus/{name}"), tmp_path / name)
    key = tmp_path / "key"
    key.write_text(KEY)
    text = (FOLDER / "prometheus.yml").read_text()
    for old, new in ((GATEWAY, gateway), (SECRET["target"], str(key)), ("15s", "1s")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "prometheus.yml").write_text(text)
    return tmp_path


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_promtool_takes_it_whole(laid_out: Path) -> None:
    checked = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=laid_out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_reads_every_page_with_the_key_and_loads_every_rule(laid_out: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    ours = {"--config.file": "prometheus.yml", "--storage.tsdb.path": "data"}
    flags = [part for part in SERVICES["prometheus"]["command"] if part.partition("=")[0] not in ours]
    flags += [f"{name}={value}" for name, value in ours.items()]
    with (laid_out / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *flags, f"--web.listen-address={address}"], cwd=laid_out, stdout=log, stderr=log
        )
    api = f"http://{address}/api/v1"

    def ups() -> dict[str, str]:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{api}/targets").raise_for_status()  # it is a 503 while it starts
            targets = answer.json()["data"]["activeTargets"]
            return {target["scrapeUrl"].rpartition(":")[2][5:]: target["health"] for target in targets}
        return {}

    try:
        pages = ("/metrics", "/metrics/shared-0", "/metrics/umbrella-0")
        until(lambda: ups() == dict.fromkeys(pages, "up"), "all targets up")
        groups = httpx.get(f"{api}/rules").json()["data"]["groups"]
        kinds = {rule["type"] for group in groups for rule in group["rules"]}
        assert kinds == {"recording", "alerting"}
        found = httpx.get(f"{api}/query", params={"query": "page_metrics_shared_0"}).json()["data"]["result"]
        assert [series["metric"]["replica"] for series in found] == ["shared-0"]
    finally:
        process.terminate()
        process.wait(20)
