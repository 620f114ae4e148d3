"""The command as a whole: its commands, its groups, and that shells can complete it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tenantry import __version__

ROOT = Path(__file__).parents[3]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command as a process, from the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "tenantry", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_groups_the_commands() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    order = ["A fleet file ─", "who-shares ", "A running gateway ─", "replicas  ", "Reference ─", "schema "]
    places = [done.stdout.index(word) for word in order]
    assert places == sorted(places)
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"tenantry {__version__}\n")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert declared["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fleet.release.VERSION"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize("lock", ["cpu.lock", "gpu.lock"])
def test_what_the_command_needs_is_locked_as_well(lock: str) -> None:
    held = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert needed
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(held[requirement.name]), requirement


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_completes(shell: str) -> None:
    done = run(env={"_TENANTRY_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0, done.stderr
    assert "_TENANTRY_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("env", "found"),
    [
        (
            {"_TENANTRY_COMPLETE": "complete_bash", "COMP_WORDS": "tenantry who", "COMP_CWORD": "1"},
            "who-shares",
        ),
        (
            {"_TENANTRY_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "tenantry adapters pro"},
            "promote",
        ),
        (
            {
                "_TENANTRY_COMPLETE": "complete_fish",
                "_TYPER_COMPLETE_ARGS": "tenantry dra",
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            },
            "drain",
        ),
    ],
    ids=["bash", "zsh", "fish"],
)
def test_a_shell_completes_what_was_begun(env: dict[str, str], found: str) -> None:
    done = run(env=env)
    assert done.returncode == 0, done.stderr
    assert found in done.stdout
    assert "metrics" not in done.stdout


def test_a_light_installation_has_all_that_every_command_imports() -> None:
    """What serving needs besides is imported where it is used."""
    beside = "sqlalchemy", "sortedcontainers", "httptools", "limits", "uvloop", "vllm", "torch", "bentoml"
    program = f"import sys, tenantry.app; print([name for name in {beside} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_plan_says_what_a_light_installation_lacks(tmp_path: Path) -> None:
    (tmp_path / "sortedcontainers.py").write_text("raise ImportError(name='sortedcontainers')")
    done = run("plan", "--machines", "l4", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "sortedcontainers is missing here. Plan in a checkout." in " ".join(done.stderr.split())
