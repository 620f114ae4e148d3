"""The README's first hour on a bare Debian: `make serve` answers three tenants, with what the README names.

`make test` in there is left to `make fresh`: these tests are part of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import machine

ROOT = Path(__file__).parents[2]
WITHIN_S = 2700.0

pytestmark = [
    pytest.mark.fresh,
    pytest.mark.skipif(
        "TENANTRY_FRESH" not in os.environ, reason="a quarter of an hour; TENANTRY_FRESH=1 or `make fresh`"
    ),
    pytest.mark.skipif(machine.unable() is not None, reason=machine.unable() or ""),
]


def test_make_serve_answers_on_a_machine_that_has_what_the_readme_names(
    tmp_path: Path,
) -> None:
    log = tmp_path / "fresh.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fresh", "--no-tests"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait(WITHIN_S)
        finally:
            process.send_signal(signal.SIGTERM)  # it takes what it started down with it
            process.wait()
    assert status == 0, "\n".join(log.read_text(errors="replace").splitlines()[-60:])
