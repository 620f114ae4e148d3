"""The command `python3 -m tests.fresh`, which `make fresh` runs: the README's commands on a bare Debian.

Needs root and debootstrap; what it makes is kept in .cache/fresh, so the next time is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from requirements.install import SIZES
from tests.fresh import machine
from tests.fresh.readme import README, Promise, promise

ROOT = Path(__file__).parents[2]
INSIDE = "TENANTRY_FRESH_INSIDE"
READY_WITHIN_S = 2400.0  # all packages fetched and unpacked, the demo trained, the engines loaded
ANSWER_WITHIN_S = 180.0
STOP_WITHIN_S = 90.0
GONE_WITHIN_S = 10.0  # engines' own helpers end when they find their parents gone
TESTS_WITHIN_S = 5400.0


def main() -> int:
    """Try it, say what took how long, and return 0 where all went as the README says."""
    parser = argparse.ArgumentParser(prog="make fresh ARGS=...", description="The README on a bare Debian.")
    parser.add_argument("--root", action="store_true", help="work as root, not as a user of no privilege")
    parser.add_argument("--folder", default="a path/tenantry", help="where to clone to, in the home folder")
    parser.add_argument("--no-tests", action="store_true", help="leave `make test` out")
    parser.add_argument("--keep", action="store_true", help="leave the machine in .cache/fresh/root")
    options = parser.parse_args()
    if (why := machine.unable()) is not None:
        print(f"fresh: {why}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if INSIDE not in os.environ:
        return _in_namespaces(keep=options.keep)
    bare = machine.Machine("root" if options.root else "visitor")
    try:
        _try(bare, bare.home / options.folder, tests=not options.no_tests)
    except (AssertionError, RuntimeError) as error:
        say(f"FAILED: {error}")
        return 1
    return 0


def _in_namespaces(*, keep: bool) -> int:
    """Run this program again where its mounts and processes end with it, and tidy up where there are none."""
    machine.remove()
    spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    init = ["bash", "-c", '"$@" & wait $!', "init"]  # collects orphans, as a machine's init does
    command = [*spaces, *init, sys.executable, "-m", "tests.fresh", *sys.argv[1:]]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, INSIDE: "1"}) as process:
        try:
            return process.wait()
        finally:
            process.kill()  # and with it, everything in there
            process.wait()
            if not keep:
                machine.remove()


def _try(bare: machine.Machine, folder: Path, *, tests: bool) -> None:
    promised = promise(README.read_text())
    with timed("a bare Debian"):
        bare.make()
    empty = bare.size(Path("/"))
    with timed(f"apt-get install {' '.join(promised.packages)}"):
        bare.install(promised.packages)
    say(f"the machine has {_mb(empty)}, with those packages {_mb(bare.size(Path('/')))}")
    bare.settle()
    _clone(bare, folder)
    with timed("make serve, from nothing to the last answer"):
        _serve(bare, folder, promised)
    venv = bare.run(["readlink", "-f", f"{folder}/.venv"]).strip()
    size, told = bare.size(Path(venv)), SIZES["cpu"][1] * 1e9
    say(f".venv has {_mb(size)}, .cache {_mb(bare.size(folder / '.cache'))}")
    assert abs(size / told - 1) < 0.2, f"set-up says that .venv will have {_mb(told)}"
    if tests:
        with timed("make test"):
            follow = _start(bare, folder, "make test", "test.log")
            follow.wait(TESTS_WITHIN_S, lambda: follow.ended is not None)
            assert follow.ended == 0, f"`make test` ended with {follow.ended}; see {follow.log}"


def _clone(bare: machine.Machine, folder: Path) -> None:
    bundle = machine.CACHE / "head.bundle"
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "bundle", "create", "-q", str(bundle), "HEAD"], check=True)
    if subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True).stdout:
        say("what is not committed is not tried")
    bare.put(bundle.read_bytes(), Path("/tmp/head.bundle"))
    bare.run(["git", "clone", "--quiet", "/tmp/head.bundle", str(folder)])


def _serve(bare: machine.Machine, folder: Path, promised: Promise) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = _start(bare, folder, f"make serve PORT={port}", "serve.log")
    with timed("make serve, until ready"):
        service.wait(READY_WITHIN_S, lambda: _get(f"{url}/readyz") == 200)
    for key, wanted in promised.answers.items():
        said = _ask(url, key, promised)
        assert said == wanted, f"{key} is answered {said!r}, where README.md says {wanted!r}"
        say(f"{key}: {said}")
    with timed("SIGTERM"):
        service.process.terminate()
        service.wait(STOP_WITHIN_S, lambda: service.ended is not None)
    deadline = time.monotonic() + GONE_WITHIN_S
    while left := [line for line in _processes() if "defunct" not in line]:
        assert time.monotonic() < deadline, f"still there after SIGTERM: {left}"
        time.sleep(0.2)


def _ask(url: str, key: str, promised: Promise) -> str:
    """Ask as a client does: what is not ready yet is asked again."""
    body = {"model": promised.model, "messages": [{"role": "user", "content": promised.question}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
                return str(json.load(answer)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            assert error.code == 503 and time.monotonic() < deadline, f"{key}: {error.code} {said}"
            time.sleep(1)


def _get(url: str) -> int | None:
    """The status of a page; None where nobody answers."""
    with contextlib.suppress(OSError):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
    return None


class Following:
    """A command in there, whose lines appear here."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self._read = 0

    @property
    def ended(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.process.poll()

    def wait(self, seconds: float, done: Callable[[], bool]) -> None:
        """Show what it says until `done()` holds. Raises `AssertionError` where that takes too long."""
        deadline = time.monotonic() + seconds
        while not done():
            self.show()
            assert self.ended is None, f"it ended with {self.ended}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s"
            time.sleep(0.5)
        self.show()

    def show(self) -> None:
        """Print its lines since the last time."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            read = log.read()
        whole = read[: read.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            print(f"  | {line}", flush=True)


def _start(bare: machine.Machine, folder: Path, command: str, log: str) -> Following:
    path = machine.CACHE / log
    shell = ["sh", "-c", f'cd "$1" && exec {command}', "sh", str(folder)]
    with path.open("wb") as output:
        process = subprocess.Popen(
            bare.command(shell), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    return Following(process, path)


def _processes() -> list[str]:
    """Everything that runs here besides this program and its init; /proc is our own."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            pid = int(status.parent.name)
            if pid not in (1, os.getpid()):
                state = "defunct" if "\nState:\tZ" in status.read_text() else "runs"
                title = (status.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{pid} {state} {title[:100]}")
    return found


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long something took."""
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    """One line of ours."""
    print(f"fresh: {text}", flush=True)


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
