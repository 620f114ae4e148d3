"""Starts the real thing: `bentoml serve` with real vLLM, as an operator does, and takes it down again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from engines.orphans import REPLICA_MARK
from tests.e2e.networks import Network
from tests.processes import left_of

ROOT = Path(__file__).parents[2]
DEMO = ROOT / ".cache" / "demo"
READY_WITHIN_S = 300.0  # a loaded machine of two cores; about 40 s on a quiet one
STOP_WITHIN_S = 90.0
FORK_SERVER = "multiprocessing.forkserver"
# For several engines on few cores: their threads spin while they wait for each other, which starves the rest.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# The demo fleet's engines are said to run where nobody listens: the gateway starts in seconds, without them.
NOWHERE = {"TENANTRY_ENGINE_URLS": "shared-0=http://127.0.0.1:9 umbrella-0=http://127.0.0.1:9"}


def answers() -> dict[str, dict[str, str]]:
    """What every demo model answers, by model and question."""
    recorded: dict[str, dict[str, str]] = json.loads((DEMO / "answers.json").read_text())["answers"]
    return recorded


def key_of(tenant: str) -> str:
    """API key of a demo tenant."""
    return f"{tenant}-demo-key"


def wait_until(condition: Callable[[], Any], what: str, *, within_s: float) -> None:
    """Poll until the condition holds. Raises `AssertionError`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.2)


@dataclass
class Service:
    """A running `bentoml serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    clients: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def client(self, tenant: str, **options: Any) -> openai.OpenAI:
        """The official client with a tenant's key; closed when the service ends."""
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key_of(tenant), timeout=120, **options)
        return self.clients.enter_context(client)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """A GET of the gateway; of metrics as the operator."""
        if path.startswith("/metrics"):
            options.setdefault("headers", {"authorization": f"Bearer {key_of('operator')}"})
        return httpx.get(self.url + path, timeout=10, **options)

    def is_alive(self) -> bool:
        """Whether the gateway says it is."""
        return self._says_yes("/livez")

    def is_ready(self) -> bool:
        """Whether the gateway says it is."""
        return self._says_yes("/readyz")

    def _says_yes(self, path: str) -> bool:
        assert self.process.poll() is None, f"the service ended early:\n{self.tail()}"
        try:
            return self.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def processes(self) -> list[psutil.Process]:
        """The service and everything it started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def engine_cores(self) -> list[psutil.Process]:
        """vLLM's engine processes."""
        return [
            process for process in self.processes() if "EngineCore" in _title(process) or _is_forked(process)
        ]

    def engine_core(self, replica: str) -> psutil.Process | None:
        """vLLM's engine process of one replica; None while it has none."""
        for process in self.engine_cores():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(REPLICA_MARK, "").startswith(f"{replica}@"):
                    return process
        return None

    def worker(self, name: str) -> psutil.Process | None:
        """BentoML's worker process of a replica, or of `gateway`; None while it has none."""
        ours = (process for process in self.processes() if f"--service-name {name} " in _title(process))
        return next(ours, None)

    def give_cores(self, replicas: Sequence[str]) -> None:
        """Keep each replica that runs on a core of its own, as it would have a GPU; they share too few cores.

        vLLM's processes spin while they wait for each other; two engines on two cores starve one another for
        seconds. A process started later is where its parent is, a new worker is not.
        """
        cores = sorted(os.sched_getaffinity(0))
        for number, replica in enumerate(replicas):
            worker = self.worker(replica)
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                for process in (worker, *worker.children(recursive=True)) if worker is not None else ():
                    for thread in process.threads():
                        os.sched_setaffinity(thread.id, {cores[number % len(cores)]})

    def records(self) -> list[dict[str, Any]]:
        """The gateway's request log so far, one record for each request."""
        marker, read = '{"request_id":', json.JSONDecoder().raw_decode
        lines = self.log.read_text(errors="replace").splitlines()
        # Other processes write to the same file, and progress bars end in no line break.
        return [read(line, line.index(marker))[0] for line in lines if marker in line]

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the gateway's series of that name with those labels."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total

    def at_rest(self) -> bool:
        """Whether nothing is in the gateway or on a replica."""
        names = ("tenantry_in_flight", "tenantry_queue_depth", "tenantry_replica_in_flight")
        return not any(self.metric(name) for name in (*names, "tenantry_replica_leased_slots"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it as an orchestrator does; returns its exit status. Nothing it started may be left."""
        family = self.processes() if self.process.poll() is None else []
        self.process.send_signal(number)
        status = self.process.wait(STOP_WITHIN_S)
        left = left_of(family, within_s=10)
        assert not left, f"left behind: {left}"
        return status

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _is_forked(process: psutil.Process) -> bool:
    """Whether it is a core that was forked: it has the title of the fork server, as its own workers have."""
    try:
        above = process.parents()[:2]
    except psutil.Error:
        return False
    titles = [FORK_SERVER in _title(one) for one in (process, *above)]
    return titles == [True, True, False]


def _title(process: psutil.Process) -> str:
    """How a process calls itself; nothing for one that has just ended."""
    try:
        return " ".join(process.cmdline() or [process.name()])
    except psutil.Error:
        return ""


@contextlib.contextmanager
def serving(
    what: str,
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    host: str | None = "127.0.0.1",
    inside: Network | None = None,
    ready: bool = True,
) -> Iterator[Service]:
    """Run `bentoml serve WHAT` on a free port until the block ends; `host` None: where it listens itself.

    With a network it runs inside of that one.
    """
    address = "127.0.0.1" if inside is None else inside.there
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: Sequence[str] = (
        *(() if inside is None else inside.inside),
        *(sys.executable, "-m", "bentoml", "serve", what, "--port", str(port)),
        *(("--host", host) if host is not None else ()),
        *arguments,
    )
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT if what.startswith("service:") else folder,
            env={**os.environ, "TENANTRY_STATE": str(folder / "state"), **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service(process, f"http://{address}:{port}", log)
    try:
        if ready:
            wait_until(service.is_ready, f"readiness of {what}", within_s=READY_WITHIN_S)
        yield service
    finally:
        service.clients.close()
        if process.poll() is None:
            family = service.processes()
            process.terminate()
            for survivor in left_of(family, within_s=STOP_WITHIN_S):
                with contextlib.suppress(psutil.NoSuchProcess):
                    survivor.kill()
            process.wait(10)
