"""A driver of our own in place of NVIDIA's: built from C, loaded by nvidia-ml-py as the real one is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
SOURCE = Path(__file__).with_name("fake_nvml.c")


def built(folder: Path) -> Path:
    """Build the driver; returns the folder to be searched for it."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE], check=True
    )
    return folder


def answer_of(module: str, *arguments: str, driver: Path, machine: str = "") -> Any:
    """Run a module of the tests in a process with the driver, on a machine; returns the JSON it prints."""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver),
        "FAKE_NVML": machine,
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def slices(*given: tuple[str, int, int], of: str, begin: int = 1) -> str:
    """Describe slices: profile, compute slices, MiB of each; called MIG-<of>1 and so on."""
    return ",".join(
        f"{profile}:MIG-{of}{number}:{number}:{compute}:{mib}"
        for number, (profile, compute, mib) in enumerate(given, begin)
    )
