"""An operator at a terminal: `tenantry` against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.e2e.serving import ROOT


@dataclass
class Operator:
    """`tenantry` against the service."""

    url: str
    key: str = "operator-demo-key"

    def run(self, *arguments: str, check: bool = True) -> Any:
        """Run a command with --json; returns what it printed. Raises `AssertionError` where it failed."""
        env = {**os.environ, "TENANTRY_URL": self.url, "TENANTRY_ADMIN_KEY": self.key}
        command = [sys.executable, "-m", "tenantry", *arguments, "--json"]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def resident(self) -> set[str]:
        """Ids of every adapter that any engine has, by the engines' own word."""
        ids: set[str] = set()
        for replica in self.run("replicas"):
            for where in ("in_slots", "in_host", "draining"):
                ids.update(replica[where])
        return ids
