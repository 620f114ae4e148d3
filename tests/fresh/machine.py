"""A bare Debian in a folder: made by debootstrap once, copied for each try, entered by chroot.

Everything runs in namespaces of its own (see `__main__`): however it ends, mounts and processes end with it.
What this machine was told about where packages come from (apt, pip) is told in there as well.
"""

from __future__ import annotations

import ast
import configparser
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parents[2] / ".cache" / "fresh"
ROOT = CACHE / "root"
_APT_SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_NOT_IN_THERE = frozenset({"PIP_CACHE_DIR", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"})


def unable() -> str | None:
    """Why no bare Debian can be made here; None where one can."""
    if os.geteuid() != 0:
        return "a bare Debian is made with debootstrap and entered with chroot, which only root may"
    if absent := [name for name in ("debootstrap", "unshare", "git") if shutil.which(name) is None]:
        return f"{' and '.join(absent)} not installed (Debian: apt-get install debootstrap)"
    if "debian" not in (_release().get("ID"), _release().get("ID_LIKE")):
        return "this machine is no Debian, whose release the bare one would have"
    return None


class Machine:
    """One bare Debian; `user` is who works on it."""

    def __init__(self, user: str) -> None:
        self.root = ROOT
        self.user = user
        self.home = Path("/root" if user == "root" else f"/home/{user}")
        self._env: dict[str, str] = {}

    def make(self) -> None:
        """Copy the cached Debian, which is made first if need be, and mount what a machine has."""
        base = CACHE / _release()["VERSION_CODENAME"]
        if not base.exists():
            _debootstrap(base)
        _run(["cp", "-a", base, self.root])
        for kind, place, options in (
            ("proc", "proc", ""),
            ("devpts", "dev/pts", ""),
            ("tmpfs", "dev/shm", "mode=1777"),
        ):
            (self.root / place).mkdir(exist_ok=True)
            _run(["mount", "-t", kind, *(["-o", options] if options else []), kind, self.root / place])
        self.share(Path("/sys"))
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self.root / "etc" / name)
        lines = [f"deb {uri} {release} main\n" for uri, release in _repositories()]
        (self.root / "etc/apt/sources.list").write_text("".join(lines))
        settings = _output(["apt-config", "dump"]).splitlines()
        kept = [f"{line}\n" for line in settings if line.startswith(_APT_SETTINGS)]
        (self.root / "etc/apt/apt.conf.d/01outside").write_text("".join(kept))
        self.share(CACHE / "archives", Path("/var/cache/apt/archives"), writable=True)

    def install(self, packages: Iterable[str]) -> None:
        """Install Debian packages, as root."""
        self.run(["apt-get", "-qq", "update"], as_root=True)
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        self.run(["apt-get", "-qq", "-y", "install", *packages], as_root=True, env=env)

    def settle(self) -> None:
        """Let the user in, and tell pip what it is told outside."""
        if self.user != "root":
            self.run(["useradd", "--create-home", "--shell", "/bin/bash", self.user], as_root=True)
        pip_cache = CACHE / f"pip-{self.user}"
        self.share(pip_cache, self.home / ".cache/pip", writable=True)
        self.run(["chown", "-R", f"{self.user}:", str(self.home / ".cache")], as_root=True)
        given = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self._env = {name: value for name, value in given.items() if name not in _NOT_IN_THERE}
        self._env |= {name: os.environ[name] for name in _PROXIES if name in os.environ}
        config = _pip_config()
        with (self.root / "etc/pip.conf").open("w") as file:
            config.write(file)
        told = [value for section in config.sections() for value in config[section].values()]
        for place in _places([*self._env.values(), *told]):
            self.share(place)

    def share(self, outside: Path, inside: Path | None = None, *, writable: bool = False) -> None:
        """Mount a file or folder of this machine in there, for reading."""
        place = self.root / (inside or outside).relative_to("/")
        if writable:
            outside.mkdir(parents=True, exist_ok=True)
        if outside.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        _run(["mount", "--bind", outside, place])
        if not writable:
            _run(["mount", "-o", "remount,bind,ro", place])

    def command(
        self, command: Sequence[str], *, as_root: bool = False, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """What runs a command in there: nothing of this machine's environment but pip's settings."""
        user = "root" if as_root else self.user
        home = "/root" if as_root else str(self.home)
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        told = {"HOME": home, "USER": user, "PATH": path, "LANG": "C.UTF-8", **self._env, **(env or {})}
        return [
            *("chroot", f"--userspec={user}:", str(self.root), "env", "-i"),
            *(f"{name}={value}" for name, value in told.items()),
            *command,
        ]

    def run(self, command: Sequence[str], **options: Any) -> str:
        """Run a command in there and return what it printed. Raises `RuntimeError` where it fails."""
        return _output(self.command(command, **options))

    def put(self, text: bytes, place: Path) -> None:
        """Lay a file down in there."""
        (self.root / place.relative_to("/")).write_bytes(text)

    def size(self, place: Path) -> int:
        """Bytes that a folder takes up."""
        return (
            int(
                _output(
                    [
                        "du",
                        "-sxk",
                        "--exclude=*/var/cache/apt/archives",
                        str(self.root / place.relative_to("/")),
                    ]
                ).split()[0]
            )
            * 1024
        )


def remove() -> None:
    """Remove what a try left; never from within its namespaces, where folders of ours are mounted."""
    if ROOT.exists():
        shutil.rmtree(ROOT)


def _debootstrap(base: Path) -> None:
    suite = base.name
    mirror = next(
        (uri for uri, release in _repositories() if release == suite), "http://deb.debian.org/debian"
    )
    partial = base.with_suffix(".partial")
    if partial.exists():
        shutil.rmtree(partial)
    base.parent.mkdir(parents=True, exist_ok=True)
    _output(["debootstrap", "--variant=minbase", suite, str(partial), mirror])
    partial.rename(base)


def _repositories() -> list[tuple[str, str]]:
    """Where this machine's apt gets the release from: address and part of it."""
    suite = _release()["VERSION_CODENAME"]
    told = _output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
    found = dict.fromkeys(tuple(line.split()) for line in told.splitlines())
    parts = (suite, f"{suite}-updates", f"{suite}-security")
    return [(one[0], one[1]) for one in found if len(one) == 3 and one[1] in parts and one[2] == "main"]


def _pip_config() -> configparser.RawConfigParser:
    """pip's configuration files as one; variables are passed on as such."""
    config = configparser.RawConfigParser()
    for line in _output(["python3", "-m", "pip", "config", "list"]).splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section != ":env:" and key:
            config.read_dict({section: {key: str(ast.literal_eval(value))}})
    return config


def _places(settings: Iterable[str]) -> list[Path]:
    """Files and folders of this machine that settings name."""
    found: dict[Path, None] = {}
    for word in " ".join(settings).split():
        is_index = word.startswith("file://")
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            found[path.parent if is_index else path] = None  # an index names files that lie beside it
    return list(found)


def _release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def _run(command: Sequence[str | Path]) -> None:
    _output([str(word) for word in command])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout
