"""What does the service say to BentoML's settings? In a process of its own, since it reads them at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TAKEN = [
    "",
    "services.gateway.traffic.timeout=30",
    "services.gateway.backlog=128",
    "services.logging.access.enabled=true",
    'services.gateway.http.cors.enabled=true services.gateway.http.cors.access_control_allow_origins="*"',
    "services.gateway.ssl.enabled=true services.gateway.ssl.certfile=x",
]
REFUSED = {
    "services.gateway.traffic.max_concurrency=5": "service gateway: traffic.max_concurrency is not taken",
    "services.gateway.traffic.timeout=600": "service gateway: traffic.timeout is not taken here",
    "services.gateway.workers=2": "service gateway: workers is not taken here",
    "services.traffic.max_concurrency=1": ": traffic.max_concurrency is not taken here",
    "services.gateway.http.response.trace_id=true": "http.response.trace_id is not taken here",
    "services.tracing.exporter_type=otlp": "tracing.exporter_type is not taken here",
    "services.gateway.http.cors.enabled=true": "http.cors.enabled needs",
}
SCRIPT = """
import json, os, sys
sys.argv = ["test"]
import service
said = {}
for options in json.loads(os.environ["CASES"]):
    os.environ["BENTOML_CONFIG_OPTIONS"] = options
    try:
        service.Gateway.inject_config()
        said[options] = None
    except Exception as error:
        said[options] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    cases = json.dumps([*TAKEN, *REFUSED])
    environment = {**os.environ, "CASES": cases, "BENTOML_HOME": str(tmp_path_factory.mktemp("bentoml"))}
    environment.pop("BENTOML_CONFIG", None)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    answer: dict[str, str | None] = json.loads(run.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("options", TAKEN)
def test_what_works_is_taken(said: dict[str, str | None], options: str) -> None:
    assert said[options] is None


@pytest.mark.parametrize("options", REFUSED)
def test_what_would_do_nothing_is_refused_in_a_sentence(said: dict[str, str | None], options: str) -> None:
    text = said[options]
    assert text is not None and text.startswith("BentoMLConfigException: ") and "\n" not in text
    assert REFUSED[options] in text


SERVED = ("routing.assembly", "sqlalchemy", "fastapi", "engines.assembly", "aiohttp", "numpy")


def test_a_process_that_serves_nothing_has_neither_gateway_nor_engine_in_memory(tmp_path: Path) -> None:
    """BentoML's parent process and each engine import the service too."""
    script = f"import sys, service; print([name for name in {SERVED} if name in sys.modules])"
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == "[]"
