"""What service.py declares for a pod of engines, and for a gateway, by what the environment says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet.files import write

ROOT = Path(__file__).parents[2]
FLEET: dict[str, Any] = {
    "base_models": {"small": {"source": "org/small", "max_loras": 2}},
    "tenants": {"shop": {"api_keys": [{"env": "SHOP_KEY"}], "models": {"chat": "small"}}},
    "pools": {
        "shared": {"base_models": ["small"], "replicas": 2, "devices": ["0", "1"], "tenants": ["shop"]}
    },
    "gateway": {"operator_keys": [{"env": "OPERATOR_KEY"}]},
    "state": {"database": {"env": "DATABASE_URL"}},
}
DECLARE = "import service; print([(e.name, e.value) for e in service.Gateway.envs])"


def declared(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"TENANTRY_FLEET": str(write(folder, FLEET)), "PYTHONPATH": str(ROOT), **variables}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", DECLARE],
        env={**kept, **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("own", "envs"), [("", "[('CUDA_VISIBLE_DEVICES', '1')]"), ("1", "[]")], ids=["a machine", "a pod"]
)
def test_engines_need_no_key_and_take_the_devices_that_are_theirs(
    tmp_path: Path, own: str, envs: str
) -> None:
    done = declared(tmp_path, TENANTRY_ROLE="engine", TENANTRY_REPLICA="shared-1", TENANTRY_OWN_DEVICES=own)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == envs


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "the environment variable SHOP_KEY is not set"),
        (
            {
                "SHOP_KEY": "a-key-of-the-shop",
                "OPERATOR_KEY": "a-key-of-operators",
                "DATABASE_URL": "postgresql://h/d",
            },
            "TENANTRY_ENGINE_SERVICES: this process runs in no pod",
        ),
    ],
    ids=["no key", "no pod"],
)
def test_a_gateway_that_lacks_something_ends_with_a_line_that_says_what(
    tmp_path: Path, given: dict[str, str], says: str
) -> None:
    done = declared(tmp_path, TENANTRY_ROLE="gateway", TENANTRY_ENGINE_SERVICES="shared", **given)
    assert done.returncode == 1
    assert says in done.stderr and "Traceback" not in done.stderr
