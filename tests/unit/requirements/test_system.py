"""requirements/system.sh: what a machine lacks is named, all at once, by the names that Debian has for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh.readme import README, promise

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "requirements"
BASE = sys._base_executable  # type: ignore[attr-defined]
TOOLS = (
    "bash",
    "awk",
    "cut",
    "dirname",
    "grep",
    "id",
    "ldconfig",
    "paste",
    "sha256sum",
    "make",
    "gcc",
    "g++",
    "apt-get",
)
# What a part of the check asks Python; the package that is missing where it says no.
ASKED = {"ensurepip": "python3-venv", "Python.h": "python3-dev", "libnuma": "libnuma1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with all the programs of a machine that lacks nothing; the PATH of what runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
        if found or name == "apt-get":  # it is looked for, never run
            (folder / name).symlink_to(found or "/bin/true")
    fake(folder / "ldconfig", "exit 1")
    python(folder / "python3")
    return folder


def fake(file: Path, script: str) -> None:
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/bash\n{script}\n")
    file.chmod(0o755)


def python(file: Path, *, lacks: str = "nothing", version: str = "3.11") -> None:
    """An interpreter that lacks something, or is of another version."""
    other = "" if version == "3.11" else f'[ "$1" != -V ] || echo "Python {version}.0"; [ "$1" = -V ]; exit\n'
    fake(file, f'{other}[[ "$*" != *{lacks}* ]] && exec {BASE} "$@"')


def missing(path: Path, platform: str = "cpu") -> list[str]:
    """Packages that are missing on a machine with this PATH."""
    script = f'. "{REQUIREMENTS}/system.sh"; missing_packages {platform} "$(find_python python3 python3.11)"'
    told = subprocess.run(
        [path / "bash", "-c", script], env={"PATH": str(path)}, capture_output=True, text=True, check=True
    )
    return [line.split("\t")[0] for line in told.stdout.splitlines()]


def install(path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What install.sh says on a machine that must not get as far as making an environment."""
    command = [str(path / "bash"), str(REQUIREMENTS / "install.sh"), str(path / "none"), "serve", "cpu"]
    done = subprocess.run(
        command, env={"PATH": str(path), **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert not (path / "none").exists()
    assert done.stdout == ""
    return done


def test_a_machine_with_everything_lacks_nothing(path: Path) -> None:
    assert missing(path) == []


@pytest.mark.parametrize(
    ("program", "package"), [("make", "make"), ("gcc", "g++"), ("g++", "g++"), ("python3", "python3")]
)
def test_a_missing_program_is_named(path: Path, program: str, package: str) -> None:
    (path / program).unlink()
    assert package in missing(path)


@pytest.mark.parametrize("asked", ASKED)
def test_a_missing_part_of_python_or_of_the_system_is_named(path: Path, asked: str) -> None:
    python(path / "python3", lacks=asked)
    assert missing(path) == [ASKED[asked]]


def test_a_gpu_machine_needs_no_libnuma(path: Path) -> None:
    python(path / "python3", lacks="libnuma")
    assert missing(path, "gpu") == []


def test_a_python_found_by_its_version_has_packages_of_that_name(path: Path) -> None:
    python(path / "python3", version="3.13")
    python(path / "python3.11", lacks="ensurepip")
    assert missing(path) == ["python3.11-venv"]


def test_the_readme_names_what_an_empty_machine_lacks_and_nothing_else(path: Path) -> None:
    for program in ("make", "gcc", "g++", "python3"):
        (path / program).unlink()
    lacking = set(missing(path)) - {"python3"}  # comes with the others
    assert {*promise(README.read_text()).packages} == lacking | {"git"}


def test_all_that_is_missing_comes_as_one_line_to_paste(path: Path) -> None:
    (path / "g++").unlink()
    python(path / "python3", lacks="Python.h")
    told = install(path).stderr.splitlines()
    sudo = "" if os.geteuid() == 0 else "sudo "
    assert told[-1].strip() == f"{sudo}apt-get install g++ python3-dev"
    assert [line.split()[0] for line in told[1:3]] == ["g++", "python3-dev"]


def test_where_there_is_no_apt_the_names_come_in_words(path: Path) -> None:
    (path / "apt-get").unlink()
    (path / "g++").unlink()
    assert "your distribution" in install(path).stderr.splitlines()[-1]


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_another_python_is_refused_with_how_to_name_the_right_one(
    path: Path, version: str, by_variable: bool
) -> None:
    python(path / "python3", version=version)
    python(path / "other", version=version)
    (path / "g++").unlink()
    told = install(path, **({"PYTHON": "other"} if by_variable else {})).stderr
    assert f"runs on Python 3.11 only; {'other' if by_variable else 'python3'} is Python {version}" in told
    assert "PYTHON=/path/to/python3.11 make setup" in told
    assert "apt-get install g++" in told, "what else is missing is said with it"
    assert "python3-dev" not in told


def test_a_named_python_that_is_none_is_said_to_be_none(path: Path) -> None:
    assert "only; /nowhere/python is no Python." in install(path, PYTHON="/nowhere/python").stderr


def test_the_readme_says_which_python() -> None:
    assert "Python 3.11" in README.read_text()
