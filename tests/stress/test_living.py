"""A fleet changes all the time while it is called: nothing fails that should not, no engine starts again.

TENANTRY_LIVING_TENANTS sets how many tenants are admitted, TENANTRY_LIVING_PER_S how many requests come.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from demo.answers import QUESTIONS
from fleet.key_hash import hash_key
from tests.e2e.operators import Operator
from tests.e2e.serving import DEMO, ONE_THREAD, ROOT, Service, answers, key_of, serving, wait_until
from tests.e2e.traffic import MODELS

pytestmark = pytest.mark.engine
log = logging.getLogger("tests.living")
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
logging.getLogger("httpx2").setLevel(logging.WARNING)

TENANTS = int(os.environ.get("TENANTRY_LIVING_TENANTS", "50"))
PER_S = float(os.environ.get("TENANTRY_LIVING_PER_S", "50"))
CHANGED, LEAVING, APPLIED = 10, 5, 10
STAYS, COMES_AND_GOES = "shared-0", "shared-1"
TOKENS = 8
TIMEOUT_S = 60.0
SOURCES = (
    "acme-support",
    "globex-support",
    "initech-support",
)  # demo adapters that tenants take as their own


@dataclass
class Traffic:
    """The declared tenants call at a steady rate, streamed and whole, by the official client."""

    url: str
    sent: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def run(self, stop: threading.Event) -> None:
        """Go on until told to stop, then wait for what is under way."""
        chance, names = random.Random(1), [key for key in MODELS if key[0] != "umbrella"]
        clients = {
            tenant: openai.AsyncOpenAI(
                base_url=f"{self.url}/v1", api_key=key_of(tenant), timeout=TIMEOUT_S, max_retries=0
            )
            for tenant, _ in names
        }
        loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        start_s = loop.time()
        while not stop.is_set():
            await asyncio.sleep(max(0.0, start_s + self.sent / PER_S - loop.time()))
            tenant, model = chance.choice(names)
            stream = self.sent % 2 == 1
            task = asyncio.create_task(
                self._ask(clients[tenant], tenant, model, chance.choice(QUESTIONS), stream=stream)
            )
            running.add(task)
            task.add_done_callback(running.discard)
            self.sent += 1
        await asyncio.gather(*running)
        for client in clients.values():
            await client.close()

    async def _ask(
        self, client: openai.AsyncOpenAI, tenant: str, model: str, question: str, *, stream: bool
    ) -> None:
        asked: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": TOKENS,
        }
        try:
            if stream:
                events = await client.chat.completions.create(**asked, stream=True)
                text = "".join([event.choices[0].delta.content or "" async for event in events])
            else:
                answer = await client.chat.completions.create(**asked)
                text = answer.choices[0].message.content or ""
        except openai.OpenAIError as error:
            self.failed.append(f"{tenant}/{model}: {error!r}")
            return
        if not text or not answers()[MODELS[tenant, model]][question].startswith(text):
            self.wrong.append(f"{tenant}/{model} said {text!r} to {question!r}")


@dataclass
class Day:
    """What an operator does, by the command."""

    service: Service
    operator: Operator
    folder: Path
    fleet: Path
    keys: dict[str, str] = field(default_factory=dict)  # of the tenants that were admitted

    def admit(self, number: int) -> None:
        """Admit a tenant with a key, an alias and an adapter of its own, and have it call both."""
        name, source = f"tenant-{number}", SOURCES[number % len(SOURCES)]
        made = self.operator.run(
            "tenants", "add", name, "--like", "acme", "--alias", "plain=tiny-llama", "--key"
        )
        self.keys[name] = made["key"]["key"]
        self.operator.run("adapters", "add", "own", str(DEMO / "adapters" / source), "--tenant", name)
        self.operator.run("aliases", "set", "latest", "own", "--tenant", name)
        for model in ("own", "latest"):
            question = QUESTIONS[number % len(QUESTIONS)]
            assert answers()[source][question].startswith(self.ask(name, model, question))
        assert self.ask(name, "plain", "Hello")

    def ask(self, name: str, model: str, question: str) -> str:
        """Call a model as a tenant that was admitted. Raises the client's errors."""
        client = openai.OpenAI(base_url=f"{self.service.url}/v1", api_key=self.keys[name], timeout=TIMEOUT_S)
        with client:
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                temperature=0,
                max_tokens=TOKENS,
            )
        return answer.choices[0].message.content or ""

    def change(self, number: int) -> None:
        """Change a tenant's caps and band; the rate counts from its next request on."""
        name = f"tenant-{number}"
        self.operator.run(
            *("tenants", "set", name, "--requests-per-minute", "1", "--band", "low", "--weight", "2")
        )
        question = QUESTIONS[0]
        self.ask(name, "own", question)
        client = openai.OpenAI(
            base_url=f"{self.service.url}/v1", api_key=self.keys[name], timeout=TIMEOUT_S, max_retries=0
        )
        with client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(
                model="own", messages=[{"role": "user", "content": question}], max_tokens=1
            )
        self.operator.run("tenants", "set", name, "--no-cap", "requests_per_minute")
        assert self.ask(name, "own", question)

    def let_go(self, number: int) -> None:
        """Suspend a tenant, let it come back, and remove it: its key says what holds each time."""
        name = f"tenant-{number}"
        self.operator.run("tenants", "suspend", name)
        with pytest.raises(openai.PermissionDeniedError, match="suspended"):
            self.ask(name, "own", QUESTIONS[0])
        self.operator.run("tenants", "resume", name)
        assert self.ask(name, "own", QUESTIONS[0])
        self.operator.run("tenants", "remove", name)
        with pytest.raises(openai.AuthenticationError):
            self.ask(name, "own", QUESTIONS[0])

    def apply_and_roll_back(self, number: int) -> None:
        """Take a declared key out and give another alias, then put all of it back."""
        document = yaml.safe_load(self.fleet.read_text())
        document["tenants"]["globex"]["models"]["draft"] = "globex-support"
        document["tenants"]["globex"]["caps"]["requests_per_minute"] = 100_000 + number
        spare = document["tenants"]["acme"]["api_keys"].pop()
        assert document["tenants"]["acme"]["api_keys"], spare
        other = self.folder / "other.yaml"
        other.write_text(yaml.safe_dump(document))
        self.operator.run("apply", str(other))
        assert self._models("globex") >= {"support", "draft"}
        with pytest.raises(openai.AuthenticationError):
            self._models("spare")
        self.operator.run("apply", str(self.fleet))
        assert "draft" not in self._models("globex")
        assert self._models("spare")

    def change_replicas(self) -> None:
        """Let a replica of the pool leave, then join again; it is given its adapters and then requests."""
        document = yaml.safe_load(self.fleet.read_text())
        document["pools"]["shared"]["replicas"] = 1
        fewer = self.folder / "fewer.yaml"
        fewer.write_text(yaml.safe_dump(document))
        self.operator.run("apply", str(fewer))
        wait_until(lambda: self.service.engine_core(COMES_AND_GOES) is None, "its engine ends", within_s=120)
        answered = self._answered()
        self.operator.run("apply", str(self.fleet))
        wait_until(lambda: self._answered() > answered, "the replica that joined answers", within_s=300)

    def _answered(self) -> float:
        return self.service.metric("tenantry_replica_requests_total", replica=COMES_AND_GOES)

    def _models(self, who: str) -> set[str]:
        with openai.OpenAI(
            base_url=f"{self.service.url}/v1", api_key=key_of(who), timeout=TIMEOUT_S
        ) as client:
            return {model.id for model in client.models.list()}


def fleet_with_a_spare_key(folder: Path) -> Path:
    """Write the demo fleet's shared pool with two replicas, absolute paths and a second key of acme."""
    text = (ROOT / "fleet.yaml").read_text().replace("source: .cache/demo", f"source: {DEMO}")
    document = yaml.safe_load(text)
    for section, name in (("tenants", "umbrella"), ("pools", "umbrella"), ("adapters", "umbrella-support")):
        del document[section][name]
    document["tenants"]["acme"]["api_keys"].append({"sha256": hash_key(key_of("spare"))})
    document["pools"]["shared"]["replicas"] = 2
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_fleet_changes_all_day_while_it_is_called(tmp_path: Path) -> None:
    fleet = fleet_with_a_spare_key(tmp_path)
    with serving("service:Gateway", tmp_path, "--arg", f"fleet={fleet}", env=ONE_THREAD) as service:
        service.give_cores([STAYS, COMES_AND_GOES])
        core, other = service.engine_core(STAYS), service.engine_core(COMES_AND_GOES)
        traffic, stop = Traffic(service.url), threading.Event()
        day = Day(service, Operator(service.url), tmp_path, fleet)
        with ThreadPoolExecutor(1) as threads:
            calls = threads.submit(lambda: asyncio.run(traffic.run(stop)))
            try:
                for number in range(TENANTS):
                    day.admit(number)
                    log.info("%d tenants admitted, %d requests sent", number + 1, traffic.sent)
                for number in range(CHANGED):
                    day.change(number)
                for number in range(CHANGED, CHANGED + LEAVING):
                    day.let_go(number)
                for number in range(APPLIED):
                    day.apply_and_roll_back(number)
                assert service.engine_core(COMES_AND_GOES) == other is not None, "it was started again"
                day.change_replicas()
            finally:
                stop.set()
            calls.result(2 * TIMEOUT_S)
        log.info("%d requests: %d failed, %d wrong", traffic.sent, len(traffic.failed), len(traffic.wrong))
        assert not traffic.failed, Counter(traffic.failed).most_common(5)
        assert not traffic.wrong, traffic.wrong[:5]
        assert service.engine_core(STAYS) == core is not None, "an engine was started again"
        wait_until(service.at_rest, "every counter at zero", within_s=60)
        left = {tenant["name"] for tenant in day.operator.run("tenants", "list")}
        gone = {f"tenant-{number}" for number in range(CHANGED, CHANGED + LEAVING)}
        assert left == {"acme", "globex", "initech"} | (set(day.keys) - gone)
