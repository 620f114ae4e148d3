"""Bentos of the whole fleet, as `bentoml build` makes it, and of one dedicated pool: served and asked."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from demo.answers import QUESTIONS
from tests.e2e.serving import ROOT, Service, answers, key_of, serving

pytestmark = pytest.mark.engine

OTHERS = ("acme", "globex", "initech")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bento store of its own."""
    return tmp_path_factory.mktemp("bentoml")


def run(store: Path, *command: str) -> str:
    """Run a command of the environment in the repository; its output."""
    done = subprocess.run(
        (sys.executable, "-m", *command),
        cwd=ROOT,
        env={**os.environ, "BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(service: Service, tenant: str) -> str:
    """Ask the tenant's support model the first question, greedily."""
    messages: Any = [{"role": "user", "content": QUESTIONS[0]}]
    answer = service.client(tenant).chat.completions.create(
        model="support", messages=messages, temperature=0, max_tokens=64
    )
    return str(answer.choices[0].message.content)


def assert_console(service: Service) -> None:
    """The console is served, with everything it links."""
    page = service.get("/console")
    assert page.status_code == 200
    linked = re.findall(r'(?:src|href)="(/console/[^"]+)"', page.text)
    assert len(linked) == 3
    assert [service.get(path).status_code for path in linked] == [200] * 3


def test_the_whole_fleet_is_built_and_served(store: Path, tmp_path: Path) -> None:
    run(store, "bentoml", "build", "--version", "whole")
    with serving("tenantry:whole", tmp_path, env={"BENTOML_HOME": str(store)}) as service:
        for tenant in (*OTHERS, "umbrella"):
            assert ask(service, tenant) == answers()[f"{tenant}-support"][QUESTIONS[0]]
        assert_console(service)
        assert service.get("/", follow_redirects=True).url.path == "/docs"
        # It declares GPUs, and BentoML hands out none: engines see what they saw without the declaration.
        assert "resources" in (store / "bentos" / "tenantry" / "whole" / "bento.yaml").read_text()
        for replica in ("shared-0", "umbrella-0"):
            worker = service.worker(replica)
            assert worker is not None
            assert worker.environ().get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")
        assert service.stop() == 0


def test_a_dedicated_pool_is_built_and_served_and_knows_nobody_else(store: Path, tmp_path: Path) -> None:
    run(store, "tenantry", "build", "--pool", "umbrella", "--version", "alone", "--platform", "cpu")
    bento = store / "bentos" / "tenantry-umbrella" / "alone"
    assert bento.is_dir()
    foreign = [word.encode() for word in OTHERS]
    foreign += [hashlib.sha256(key_of(tenant).encode()).hexdigest().encode() for tenant in OTHERS]
    # The program is the same in every Bento; it knows the demo's keys by their hashes, to refuse them.
    files = [path for path in bento.rglob("*") if path.is_file() and path.name != "demo_keys.py"]
    assert any(path.name == "adapter_model.safetensors" for path in files), "its own adapter is in it"
    for path in files:
        assert not any(name in str(path.relative_to(bento)) for name in OTHERS), path
        content = path.read_bytes().lower()
        assert not [word for word in foreign if word in content], path

    words = {
        "TENANTRY_REPLICA": "the fleet has no replica 'acme-0'; it has umbrella-0",
        "TENANTRY_POOL": "no pool is called `acme-0`; known: umbrella",
    }
    for variable, told in words.items():
        ended = subprocess.run(
            (sys.executable, "-m", "bentoml", "serve", "tenantry-umbrella:alone"),
            env={**os.environ, "BENTOML_HOME": str(store), variable: "acme-0"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode != 0 and told in ended.stderr and "Traceback" not in ended.stderr

    with serving("tenantry-umbrella:alone", tmp_path, env={"BENTOML_HOME": str(store)}) as service:
        assert ask(service, "umbrella") == answers()["umbrella-support"][QUESTIONS[0]]
        with pytest.raises(openai.AuthenticationError):
            ask(service, "acme")
        assert service.metric("tenantry_replica_ready") == 1
        assert_console(service)
        assert service.stop() == 0
