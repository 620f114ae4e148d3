"""The fork server of one host: launched with the first engine that wants it, and anew where it has ended."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from adapters.base_model import CONFIG_FILE
from engines import orphans
from engines.forking import preload
from engines.forking.child import Forked, Target
from engines.forking.environ import with_room

# What an engine's core and its workers import, in vLLM 0.32. Without one of these the server is of no use.
OF_ENGINE = (
    "engines.last_words",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.model_executor.model_loader.default_loader",
    "vllm.lora.worker_manager",
    "torch._dynamo",
    "torch._inductor.config",
)
OF_CPU_ENGINE = ("vllm.v1.worker.cpu_worker", "vllm.v1.attention.backends.cpu_attn", "engines.worker.cpu")
OF_GPU_ENGINE = ("vllm.v1.worker.gpu_worker", "engines.worker")
FIRST_WORD_WITHIN_S = 30.0  # the start of a Python process on a loaded machine
READY_WITHIN_S = 180.0  # imports there
FAULTY_FOR_S = 600.0  # one that could not be used is launched again after this
_LOOK_INTERVAL_S = 0.05
log = logging.getLogger("tenantry.engine")


class NoFork(Exception):
    """No process can be forked now; says why."""


class ForkServer:
    """One server. All but `why_not` is called in the thread that starts engines (engines/builder.py)."""

    def __init__(
        self,
        host: str,
        imports: Sequence[str],
        architectures: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`host` names it; it imports these modules, and vLLM's of these models (`config.json`)."""
        self.name = f"{host} fork server"
        self._imports = list(imports)
        self._architectures = list(architectures)
        self._clock = clock
        self._folder: Path | None = None  # in which it reports; only this user can enter
        self._known: int | None = None  # the pid of the last one that was ready
        self._fault = ""
        self._faulty_until_s = 0.0

    def why_not(self) -> str:
        """Say why no engine comes from it at present; empty: it does. Never raises."""
        return self._fault if self._clock() < self._faulty_until_s else ""

    def is_running(self) -> bool:
        """Whether it has been ready, and runs. Never raises."""
        return self._known is not None and not _has_ended(self._known)

    def launch(self) -> None:
        """Have it run, and import; returns at once. Raises `NoFork`."""
        try:
            self._launch()
        except (OSError, ValueError) as error:
            raise self._gave_up(f"it cannot be started: {error}") from error

    def context(self) -> ForkServerContext:
        """Return what starts processes from it, once it is ready. Raises `NoFork`."""
        self._wait_until_ready()
        return multiprocessing.get_context("forkserver")

    def target(self, run: Target) -> Forked:
        """Return what a process of `context` is to run: `run` in the environment that is here now."""
        if self._known is None:
            raise NoFork("it has not been ready")
        return Forked(run, os.environ, self._known)

    def close(self) -> None:
        """End it, and with it all that still runs of what came from it. It can be launched again."""
        for pid in orphans.own(self.name):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # else Python takes it for running
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- its life ------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="tenantry-fork-server-"))
        said = self._report()
        if said and not _has_ended(said["pid"]):
            return
        if said:
            log.warning("%s has ended; it is started anew", self.name)
        (self._folder / "report").unlink(missing_ok=True)
        order = {
            "report": str(self._folder / "report"),
            "imports": self._imports,
            "architectures": self._architectures,
        }
        marks = orphans.mark(self.name)
        environment = {
            **marks,
            orphans.REPLICA_MARK: with_room(marks[orphans.REPLICA_MARK]),
            preload.ORDER: json.dumps(order),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        forkserver.set_forkserver_preload([preload.__name__])
        with _environment(environment):
            forkserver.ensure_running()

    def _wait_until_ready(self) -> None:
        """Wait in short steps, so that the thread can be interrupted. Raises `NoFork`."""
        began_s = self._clock()
        while "why_not" not in (said := self._report()):
            if said and _has_ended(said["pid"]):
                raise self._gave_up("it ended while it imported vLLM")
            within_s = READY_WITHIN_S if said else FIRST_WORD_WITHIN_S
            if self._clock() - began_s >= within_s:
                raise self._gave_up(f"it is not ready after {within_s:g} s")
            time.sleep(_LOOK_INTERVAL_S)
        if said["why_not"]:
            raise self._gave_up(said["why_not"])
        if said["pid"] != self._known:
            self._known = said["pid"]
            log.info("%s: ready (%.1f s), %d MiB", self.name, said["took_s"], _memory_mib(said["pid"]))

    def _gave_up(self, why: str) -> NoFork:
        """End it, and have it left alone for a while."""
        self.close()
        self._fault = f"the fork server cannot be used: {why}"
        self._faulty_until_s = self._clock() + FAULTY_FOR_S
        return NoFork(self._fault)

    def _report(self) -> dict[str, Any]:
        """Return what it has said; empty: nothing yet."""
        if self._folder is None:
            return {}
        try:
            said: dict[str, Any] = json.loads((self._folder / "report").read_text())
        except OSError:
            return {}
        return said


def architectures_of(folder: Path | None) -> list[str]:
    """Return the architectures that a model's `config.json` names; none where it cannot be read."""
    if folder is None:
        return []
    try:
        named = json.loads((folder / CONFIG_FILE).read_text())["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has ended, collected or not."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _memory_mib(pid: int) -> int:
    """The memory that a process has, in MiB; shared pages by their part. 0 where it cannot be told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) // 1024
    return 0


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have this process's children started with these variables meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
