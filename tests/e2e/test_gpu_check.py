"""What `make gpu-check` does, on CPUs and short: the engine must take its orders as a gateway gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.serving import ONE_THREAD, ROOT

pytestmark = pytest.mark.engine


def test_turns_and_adapters_are_measured_and_nothing_is_wrong(tmp_path: Path) -> None:
    report = tmp_path / "switches.json"
    asked = ["--cpu", "--part", "turns", "--turns", "3", "--json"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.switches", *asked, str(report)],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        check=True,
        timeout=600,
    )
    said = json.loads(report.read_text())
    assert (said["turns"], said["wrong_answers"], said["failed_checks"]) == (3, 0, 0)
    assert sum(said["ways_of_turns"].values()) == 3
    assert len(said["slots"]) == 2, "adapters of a model that is awake"
