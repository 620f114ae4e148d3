"""What does plain vLLM answer to wrong requests? As the table says, of which the gateway makes refusals.

A case that fails here with a new vLLM needs a look at what the gateway makes of the new answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from engines.vllm_args import engine_environment
from fleet.types import BaseModel
from tests.e2e.serving import DEMO, ONE_THREAD, READY_WITHIN_S, wait_until
from tests.e2e.wrong_requests import CASES, CUT_OFF, Case

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo's base model behind vLLM's own server, without adapters; its address."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    model = BaseModel("support", str(DEMO / "base"))
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model.source),
        *("--served-model-name", model.name, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "512"),
    ]
    env = os.environ | engine_environment([model], on_cpu=True) | ONE_THREAD
    with log.open("wb") as output, subprocess.Popen(command, env=env, stdout=output, stderr=output) as server:
        try:
            wait_until(lambda: is_up(server, port, log), "plain vLLM", within_s=READY_WITHIN_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def is_up(server: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert server.poll() is None, log.read_text()[-4000:]
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False


def answer_of(url: str, case: Case, stream: bool) -> str:
    """Send a case; returns what came of it in the table's words, or else what came."""
    try:
        answer = httpx.post(url + case.route, json=case.body(stream), timeout=120)
    except httpx.RemoteProtocolError:
        return CUT_OFF
    if answer.status_code != 200 or not stream:
        return str(answer.status_code)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    errors = [event["error"] for event in events if event.get("error")]
    return f"200, then {errors[0]['code']}" if errors else "200"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plain_vllm_answers_as_the_table_says(vllm: str, case: Case) -> None:
    assert (answer_of(vllm, case, stream=False), answer_of(vllm, case, stream=True)) == (
        case.whole,
        case.streamed,
    )
