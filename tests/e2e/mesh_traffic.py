"""A mesh of whole models, and official clients that ask them at random, streamed and whole, for some time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import yaml

from demo.answers import BASE_MODEL, QUESTIONS
from tests.e2e.serving import DEMO, ONE_THREAD, Service, answers, key_of, serving, wait_until

log = logging.getLogger("tests.turning")
WAITS_S = 600.0  # a cold start takes 20 s on a quiet machine, and minutes on a loaded one
SERVED: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 512,
    "kv_cache_gib": 0.1,
    "vllm_args": ["--enforce-eager"],
}
WHOLE = {"support": "acme-support", "sales": "acme-sales", "qwen": "globex-support", "gpt": "initech-support"}
# Two of one shape with adapters, of which one answers by itself too, and two whole models of other shapes.
ADAPTED = {"llama-a": ("acme-support", "acme-sales"), "llama-b": ("umbrella-support",)}


@contextlib.contextmanager
def meshed(
    folder: Path, models: Mapping[str, str] = WHOLE, *, adapters: bool = False
) -> Iterator[tuple[Service, Mapping[str, str]]]:
    """Serve some whole models of which one is awake; and what the tenant's names mean."""
    if adapters:
        others = {name: WHOLE[name] for name in ("qwen", "gpt")}
        sources = dict.fromkeys(ADAPTED, DEMO / "base") | {n: DEMO / "whole" / of for n, of in others.items()}
        declared = {of: base for base, names in ADAPTED.items() for of in names}
        means = {of: of for of in declared} | others | {"llama-b": BASE_MODEL}
    else:
        sources, declared, means = {n: DEMO / "whole" / of for n, of in models.items()}, {}, dict(models)
    slots = {"max_loras": 2, "max_lora_rank": 8}
    fleet = {
        "base_models": {
            name: {"source": str(source), **SERVED, **(slots if name in ADAPTED else {})}
            for name, source in sources.items()
        },
        "adapters": {
            name: {"base_model": base, "source": str(DEMO / "adapters" / name)}
            for name, base in declared.items()
        },
        "tenants": {
            "acme": {
                "api_keys": [{"sha256": hashlib.sha256(key_of("acme").encode()).hexdigest()}],
                "models": {name: name for name in means},
                "caps": {"queue_timeout_s": WAITS_S},
            }
        },
        "pools": {
            "mesh": {
                "strategy": "model-mesh",
                "base_models": list(sources),
                "tenants": ["acme"],
                "awake": 1,
                "residency": {"preload": [next(iter(sources))]},
            }
        },
        "gateway": {"metrics_access": "loopback"},
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet))
    with serving("service:Gateway", folder, "--arg", f"fleet={path}", env=dict(ONE_THREAD)) as service:
        yield service, means


@dataclass
class MeshTraffic:
    """What clients of one tenant were answered.

    A client asks one model `talk` questions, one after the other, then chooses another at random. Every
    answer that is not word for word that model's is wrong.
    """

    service: Service
    models: Mapping[str, str]  # the tenant's name for a model, and the demo model whose answers it gives
    talk: int = 8
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, clients: int, for_s: float, *, seed: int = 1) -> None:
        """Ask until the time is over; what was asked is waited for."""
        until_s = time.monotonic() + for_s
        chances = [random.Random(f"{seed} {number}") for number in range(clients)]
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda chance: self._client(chance, until_s), chances))

    @property
    def total(self) -> int:
        """Right answers."""
        return sum(self.answered.values())

    def _client(self, chance: random.Random, until_s: float) -> None:
        client = self.service.client("acme").with_options(timeout=WAITS_S, max_retries=0)
        while time.monotonic() < until_s:
            model = chance.choice(list(self.models))
            for _ in range(self.talk):
                if time.monotonic() < until_s:
                    self._ask(client, model, chance.choice(QUESTIONS), stream=chance.random() < 0.5)

    def _ask(self, client: openai.OpenAI, model: str, question: str, *, stream: bool) -> None:
        asked: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 64,
        }
        began_s = time.monotonic()
        try:
            if stream:
                events = client.chat.completions.create(**asked, stream=True)
                text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
            else:
                answer = client.chat.completions.create(**asked)
                text = answer.choices[0].message.content or ""
        except openai.OpenAIError as error:
            with self._lock:
                self.failed.append(f"{model}: {error!r}")
            return
        took_s, right = time.monotonic() - began_s, answers()[self.models[model]][question]
        with self._lock:
            self.longest_s = max(self.longest_s, took_s)
            if text == right:
                self.answered[model] += 1
            else:
                self.wrong.append(f"{model} said {text!r} to {question!r}")


def judged(service: Service, traffic: MeshTraffic, *, beside: int = 0) -> None:
    """Nothing was wrong, nobody was refused, and nothing is left; `beside` were answered before."""
    wait_until(service.at_rest, "rest", within_s=60)
    limit_s = service.metric("tenantry_model_starvation_limit_seconds")
    switches = service.metric("tenantry_model_switches_total", outcome="awake")
    switch_s = service.metric("tenantry_model_switch_seconds_total") / max(1.0, switches)
    log.info(
        "%d answers %s, %d switches of %.2f s on average, longest wait %.1f s (limit now %.1f s)",
        traffic.total, dict(traffic.answered), switches, switch_s, traffic.longest_s, limit_s,
    )  # fmt: skip
    for line in service.log.read_text(errors="replace").splitlines():
        if " failed " in line and "tenantry.turns" in line:
            log.info("%s", line[:500])
    assert traffic.wrong == [], traffic.wrong[:5]
    assert traffic.failed == [], (len(traffic.failed), traffic.failed[:5])
    completed = service.metric("tenantry_requests_total", outcome="completed")
    assert traffic.total + beside == completed
    assert set(traffic.answered) == set(traffic.models), "everyone's turn has come"
