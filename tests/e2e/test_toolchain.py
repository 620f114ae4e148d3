"""What becomes of a fleet whose machine has no C++ compiler, and when it gets one? One real engine.

vLLM on CPUs compiles kernels at the first request of their kind. The caches are new, so that none is left
from before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters.states import VersionState
from routing.catalog.entries import Version
from routing.state import StateStore
from tests.e2e.serving import READY_WITHIN_S, Service, answers, key_of, serving, wait_until

pytestmark = pytest.mark.engine

COMPILER = "g++"
TENANT, REPLICA = "umbrella", "umbrella-0"


@pytest.fixture
def put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Hide the compiler: PATH has everything else that it had. What it gives puts the compiler back."""
    original = shutil.which(COMPILER)
    assert original is not None, "this machine has no C++ compiler to hide"
    folders = []
    for number, folder in enumerate(map(Path, dict.fromkeys(os.environ["PATH"].split(os.pathsep)))):
        if (folder / COMPILER).exists():
            copy = tmp_path / "path" / str(number)
            copy.mkdir(parents=True)
            for program in folder.iterdir():
                if program.name != COMPILER:
                    (copy / program.name).symlink_to(program)
            folder = copy
        folders.append(str(folder))
    place = tmp_path / "compiler"
    place.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([*folders, str(place)]))
    monkeypatch.delenv("CXX", raising=False)
    return lambda: (place / COMPILER).symlink_to(original)


@pytest.fixture
def service(tmp_path: Path, put_back: Callable[[], None]) -> Iterator[Service]:
    """One pool of the demo fleet on a machine without a compiler."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch"), "VLLM_CACHE_ROOT": str(tmp_path / "vllm")}
    with serving("service:Gateway", tmp_path, "--arg", f"pool={TENANT}", env=caches, ready=False) as service:
        yield service


def replica(service: Service) -> dict[str, Any] | None:
    """What the gateway says of the only replica; None while it says nothing."""
    assert service.process.poll() is None, f"the service ended early:\n{service.tail()}"
    try:
        answer = service.get("/admin/v1/replicas", headers={"authorization": f"Bearer {key_of('operator')}"})
    except httpx.TransportError:
        return None
    (found,) = answer.json()["data"]
    return dict(found)


def versions(folder: Path) -> list[Version]:
    """Every version, as the state database has it."""
    store = StateStore(f"sqlite:///{folder}/state/state.db")
    store.open()
    try:
        entries, _ = store.load()
        return [version for entry in entries for version in entry.versions]
    finally:
        store.close()


def ask(client: openai.OpenAI, question: str) -> str | None:
    """Ask the tenant's model."""
    messages: list[Any] = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model="support", messages=messages, temperature=0, max_tokens=64)
    return answer.choices[0].message.content


def failures(service: Service) -> list[str]:
    """The engine's own lines of starts that failed."""
    lines = service.log.read_text(errors="replace").splitlines()
    return [line for line in lines if "the engine did not start" in line]


def test_an_engine_without_a_compiler_says_so_blames_no_adapter_and_recovers_by_itself(
    service: Service, tmp_path: Path, put_back: Callable[[], None]
) -> None:
    def state() -> str | None:
        found = replica(service)
        return None if found is None else str(found["state"])

    wait_until(lambda: state() == "failed", "the failed self-test", within_s=READY_WITHIN_S)
    told = replica(service)
    assert told is not None and "C++ compiler" in told["reason"], told
    assert not service.is_ready()
    assert len(failures(service)) == 1 and "C++ compiler" in failures(service)[0]

    client = service.client(TENANT, max_retries=0)
    with pytest.raises(openai.InternalServerError) as error:
        ask(client, "Hello")
    assert error.value.status_code == 503 and "does not start" in error.value.message
    assert "compiler" not in error.value.message and int(error.value.response.headers["retry-after"]) > 0

    tried = versions(tmp_path)
    assert tried and not any(version.strikes for version in tried)
    assert not any(version.state is VersionState.QUARANTINED for version in tried)

    put_back()
    wait_until(service.is_ready, "the engine's recovery", within_s=READY_WITHIN_S)
    question, expected = next(iter(answers()[f"{TENANT}-support"].items()))
    assert ask(client, question) == expected
    assert [(v.state, v.strikes) for v in versions(tmp_path)] == [(VersionState.READY, 0)]
