"""An adapter's whole life on the real service, under load, as operators and tenants see it. In this order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil
import pytest

from demo.answers import QUESTIONS
from tests.e2e.operators import Operator
from tests.e2e.serving import DEMO, ROOT, Service, answers, key_of, serving, wait_until

pytestmark = pytest.mark.engine

QUESTION = QUESTIONS[0]
OLD, NEW = "globex-support", "initech-support"  # demo adapters whose files are registered as two versions
RATE = 50.0  # requests per second of everybody else, where the machine keeps up
AT_ONCE = 90  # aiohttp has 100 connections: what waited for one would be sent after the adapter has changed
OTHERS = {("acme", "support"): "acme-support", ("globex", "support"): "globex-support"}
WORDS = 4  # tokens asked for under load: enough to tell adapters apart


@dataclass
class Load:
    """Requests of other tenants at a fixed rate, and of the adapter under test, each answer checked."""

    service: Service
    watched: set[str] = field(default_factory=set)  # answers that the adapter under test may give
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # answers of another adapter, or of none
    failed: list[str] = field(default_factory=list)
    seen: list[tuple[float, str]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)  # by model, of which no answer has come yet

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    async def _run(self) -> None:
        chance, next_s, count = random.Random(1), time.monotonic(), 0
        running: set[asyncio.Task[None]] = set()
        # Not the openai client: at this rate it would take the cores that the engine needs.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            while not self._stop.is_set():
                if len(running) >= AT_ONCE:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    continue
                (tenant, model), name = chance.choice(list(OTHERS.items()))
                expected = {answers()[name][QUESTION]}
                if self.watched and count % 5 == 0:
                    tenant, model, expected = "acme", "billing", self.watched
                running.add(task := asyncio.create_task(self._ask(session, tenant, model, expected)))
                task.add_done_callback(running.discard)
                count += 1
                next_s += 1 / RATE
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            await asyncio.gather(*running)

    async def _ask(self, session: aiohttp.ClientSession, tenant: str, model: str, expected: set[str]) -> None:
        self.asked[model] += 1
        try:
            await self._check(session, tenant, model, expected)
        finally:
            self.asked[model] -= 1

    async def _check(
        self, session: aiohttp.ClientSession, tenant: str, model: str, expected: set[str]
    ) -> None:
        messages = [{"role": "user", "content": QUESTION}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": WORDS}
        headers = {"authorization": f"Bearer {key_of(tenant)}"}
        url = f"{self.service.url}/v1/chat/completions"
        try:
            async with session.post(url, json=body, headers=headers) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.failed.append(f"{model}: {error!r}")
            return
        if response.status != 200:
            self.failed.append(f"{model}: {answer}")
            return
        text = str(answer["choices"][0]["message"]["content"])
        self.counts[model] += 1
        if model == "billing":
            self.seen.append((time.monotonic(), text))
        if not text or not any(whole.startswith(text) for whole in expected):
            self.wrong.append(f"{model}: {text!r}")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder that outlives a service."""
    return tmp_path_factory.mktemp("state")


@contextlib.contextmanager
def shared_pool(folder: Path, state: Path) -> Iterator[Service]:
    """The demo's shared pool over a state folder."""
    arguments = ("--arg", "fleet=fleet.yaml", "--arg", "pool=shared")
    with serving("service:Gateway", folder, *arguments, env={"TENANTRY_STATE": str(state)}) as service:
        yield service


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Iterator[Service]:
    """One service for the tests of an adapter's life."""
    with shared_pool(tmp_path_factory.mktemp("serve"), state) as service:
        yield service


def ask(service: Service, model: str = "billing", tenant: str = "acme") -> str:
    """Ask one question, greedily, and take the whole answer."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    answer = service.client(tenant).chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=64
    )
    return str(answer.choices[0].message.content)


def test_an_adapter_lives_from_upload_to_retirement_while_others_are_served(house: Service) -> None:
    operator = Operator(house.url)
    old, new = answers()[OLD][QUESTION], answers()[NEW][QUESTION]
    with Load(house) as load:
        began = time.monotonic()
        operator.run("adapters", "add", "billing", str(DEMO / "adapters" / OLD), "--tenant", "acme")
        assert ask(house) == old
        assert time.monotonic() - began < 60, "seconds, on two cores that also serve the load"
        load.watched = {old}
        wait_until(lambda: len(load.seen) > 20, "answers of version 1", within_s=60)
        load.watched = {old, new}
        operator.run("adapters", "add", "billing", str(DEMO / "adapters" / NEW), "--tenant", "acme")
        assert ask(house) == new
        switched = time.monotonic()
        wait_until(lambda: load.seen[-1][0] > switched + 3, "answers of version 2", within_s=60)
        stale = [text for when, text in load.seen if when > switched + 2 and not new.startswith(text)]
        assert not stale, "no answer of the old version once its last request has ended"
        operator.run("adapters", "rollback", "billing", "--tenant", "acme")
        assert ask(house) == old
        load.watched = set()
        wait_until(lambda: not load.asked["billing"], "answers to what was asked before", within_s=60)
        resident = operator.resident()
        assert any(name.startswith("acme/billing@") for name in resident)
        operator.run("adapters", "retire", "billing", "--tenant", "acme")
        with pytest.raises(openai.NotFoundError):
            ask(house)
        wait_until(
            lambda: not any("billing" in name for name in operator.resident()),
            "the engines to let go of the retired adapter",
            within_s=30,
        )
    assert not load.wrong, load.wrong[:5]
    assert not load.failed, load.failed[:5]
    assert load.counts["support"] > 100 and load.counts["billing"] > 20
    wait_until(house.at_rest, "counters at zero", within_s=30)


def test_a_broken_upload_is_refused_with_its_reason_and_harms_nobody(house: Service, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in (DEMO / "adapters" / OLD).iterdir():
        if path.name.startswith("adapter_"):
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    operator = Operator(house.url)
    operator.run("adapters", "add", "broken", str(folder), "--tenant", "acme", check=False)
    shown = operator.run("adapters", "show", "broken", "--tenant", "acme")
    assert [v["state"] for v in shown["versions"]] == ["quarantined"]
    assert "DoRA" in shown["versions"][0]["reason"]
    assert ask(house, "support") == answers()["acme-support"][QUESTION]


def test_a_tenants_key_manages_its_own_adapters_and_sees_no_others(house: Service) -> None:
    env = {**os.environ, "TENANTRY_URL": house.url, "TENANTRY_ADMIN_KEY": "operator-demo-key"}
    command = [
        sys.executable,
        "-m",
        "tenantry",
        "keys",
        "create",
        "--role",
        "adapters",
        "--tenant",
        "acme",
        "--json",
    ]
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True)
    tenant = Operator(house.url, json.loads(made.stdout)["key"])
    tenant.run("adapters", "add", "mine", str(DEMO / "adapters" / OLD))
    assert ask(house, "mine") == answers()[OLD][QUESTION]
    Operator(house.url).run("adapters", "add", "theirs", str(DEMO / "adapters" / NEW), "--tenant", "globex")
    listed = {adapter["name"] for adapter in tenant.run("adapters", "list")}
    assert "mine" in listed and "theirs" not in listed
    assert ask(house, "theirs", "globex") == answers()[NEW][QUESTION]
    with pytest.raises(openai.NotFoundError):
        ask(house, "theirs", "acme")


def test_an_engine_killed_under_load_comes_back_with_every_adapter(house: Service) -> None:
    operator = Operator(house.url)
    with Load(house) as load:
        wait_until(lambda: load.counts["support"] > 20, "load", within_s=60)
        for core in house.engine_cores():
            core.kill()
        wait_until(lambda: not house.is_ready(), "the loss to be noticed", within_s=30)
        wait_until(house.is_ready, "the engine to be back", within_s=300)
        served = load.counts["support"]
        wait_until(lambda: load.counts["support"] > served + 20, "load again", within_s=60)
    assert not load.wrong, load.wrong[:5]
    assert ask(house, "mine") == answers()[OLD][QUESTION]
    assert ask(house, "theirs", "globex") == answers()[NEW][QUESTION]
    assert {adapter["name"] for adapter in operator.run("adapters", "list")} >= {"mine", "theirs"}


def test_after_a_killed_gateway_every_adapter_is_served_as_declared_and_registered(
    house: Service, state: Path, tmp_path: Path
) -> None:
    with Load(house) as load:
        wait_until(lambda: load.counts["support"] > 20, "load", within_s=60)
        for process in house.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert not load.wrong, load.wrong[:5]
    house.process.wait(30)
    with shared_pool(tmp_path, state) as service:
        assert ask(service, "mine") == answers()[OLD][QUESTION]
        assert ask(service, "theirs", "globex") == answers()[NEW][QUESTION]
        for (tenant, model), name in OTHERS.items():
            assert ask(service, model, tenant) == answers()[name][QUESTION]
        wait_until(service.at_rest, "counters at zero", within_s=30)
