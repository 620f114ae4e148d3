"""A real Prometheus beside the real service: what it records of a flooded model; a trace to the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
import yaml

from demo.answers import QUESTIONS
from tests.e2e.conftest import two_slots
from tests.e2e.serving import ROOT, Service, serving, wait_until
from tests.e2e.traffic import Ask, send, session
from tests.unit.routing.observing.tracing.collector import Collector, collecting

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus (Debian) is not installed"),
]
FOLDER = ROOT / "deploy" / "observability"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FLOODED = ("acme", "support")
QUIET = (("globex", "support"), ("initech", "support"))
FLOOD = 64  # at once: many times what the engine runs
LOAD_S = 25.0


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Its API's answer. Raises httpx's errors."""
        response = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        response.raise_for_status()
        return response.json()["data"]

    def query(self, expression: str) -> dict[tuple[str, str], float]:
        """(tenant, model) -> value now."""
        found = self.get("query", query=expression)["result"]
        return {
            (row["metric"].get("tenant", ""), row["metric"].get("model", "")): float(row["value"][1])
            for row in found
            if row["value"][1] != "NaN"
        }

    def is_up(self) -> bool:
        """Whether every target answers."""
        with contextlib.suppress(httpx.HTTPError):
            targets = self.get("targets")["activeTargets"]
            return len(targets) == 3 and all(target["health"] == "up" for target in targets)
        return False


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Service]:
    """The demo fleet, two slots, traced."""
    folder = tmp_path_factory.mktemp("observed")
    file = two_slots(folder)
    fleet = yaml.safe_load(file.read_text())
    fleet["gateway"]["tracing"] = {"endpoint": collector.url}
    fleet["gateway"]["scheduler"] = {
        "locality_bonus_tokens": 100.0
    }  # the default is 40 of these small requests
    fleet["base_models"]["tiny-llama"]["max_num_seqs"] = 4
    file.write_text(yaml.safe_dump(fleet))
    with serving("service:Gateway", folder, "--arg", f"fleet={file}") as service:
        yield service


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with our configuration, but for addresses, the key, and its pace."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(FOLDER / "rules", folder / "rules")
    gateway = service.url.removeprefix("http://")
    text = (FOLDER / "prometheus.yml").read_text().replace("localhost:3000", gateway)
    config = yaml.safe_load(text)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    key = folder / "key"
    key.write_text("operator-demo-key")
    for job in config["scrape_configs"]:
        job["authorization"]["credentials_file"] = str(key)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        *("prometheus", "--config.file=prometheus.yml", f"--web.listen-address={address}"),
        *("--storage.tsdb.path=data", "--enable-feature=exemplar-storage"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"}
        )
    one = Prometheus(f"http://{address}")
    try:
        wait_until(one.is_up, "Prometheus and its targets", within_s=60)
        yield one
    finally:
        process.terminate()
        with contextlib.suppress(psutil.Error):
            process.wait(20)
        if process.poll() is None:
            process.kill()


async def load(url: str) -> None:
    """Flood one model with streams for a while; ask the others one thing after the other."""

    async def keep_asking(client: Any, name: str, tenant: str, model: str, pause_s: float) -> None:
        number = 0
        while time.monotonic() < ends:
            number += 1
            question = QUESTIONS[number % len(QUESTIONS)]
            await send(client, url, Ask(f"{name}-{number}", tenant, model, question, stream=True, tokens=24))
            await asyncio.sleep(pause_s)

    async with session() as client:
        for tenant, model in (FLOODED, *QUIET):  # loads are no part of it
            await send(client, url, Ask(f"first-{tenant}", tenant, model, QUESTIONS[0], tokens=24))
        ends = time.monotonic() + LOAD_S
        flood = (keep_asking(client, f"flood-{i}", *FLOODED, 0.0) for i in range(FLOOD))
        quiet = (keep_asking(client, f"quiet-{tenant}", tenant, model, 0.5) for tenant, model in QUIET)
        await asyncio.gather(*flood, *quiet)


@pytest.fixture(scope="module")
def loaded(service: Service, prometheus: Prometheus) -> Prometheus:
    """Prometheus, after one model was flooded."""
    asyncio.run(load(service.url))
    time.sleep(2.5)  # scraped, and evaluated
    return prometheus


def test_the_flooded_model_has_the_largest_recorded_p99(loaded: Prometheus) -> None:
    p99 = loaded.query("tenantry:first_token_seconds:p99_5m")
    assert set(p99) >= {FLOODED, *QUIET}
    assert max(p99, key=p99.__getitem__) == FLOODED, p99
    slowest = loaded.query("topk(1, tenantry:first_token_seconds:p99_5m)")
    assert list(slowest) == [FLOODED]


def test_it_waits_in_the_queue_and_not_in_the_engine(loaded: Prometheus) -> None:
    queue, first = (
        loaded.query("tenantry:queue_seconds:p99_5m"),
        loaded.query("tenantry:first_token_seconds:p99_5m"),
    )
    assert queue[FLOODED] > 0.5 * first[FLOODED]
    assert loaded.query("sum(increase(tenantry_waits_total[5m])) > 0")


def test_prometheus_counts_what_the_gateway_logged(service: Service, loaded: Prometheus) -> None:
    by_model: dict[tuple[str, str], int] = {}
    for record in service.records():
        by_model[record["tenant"], record["model"]] = by_model.get((record["tenant"], record["model"]), 0) + 1
    assert loaded.query("sum by (tenant, model) (tenantry_requests_total)") == by_model


def test_every_rule_is_loaded_and_evaluates(loaded: Prometheus) -> None:
    groups = loaded.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    files = [yaml.safe_load(file.read_text()) for file in sorted((FOLDER / "rules").iterdir())]
    written = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    names = [rule.get("record") or rule["alert"] for rule in written]
    assert names and sorted(rule["name"] for rule in rules) == sorted(names)
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert not firing & {"TenantryGatewayGone", "TenantryReplicaDown", "TenantryAdapterLoadsFail"}


def test_engines_pages_are_scraped_each_with_its_replica(loaded: Prometheus) -> None:
    rows = loaded.get("query", query="sum by (replica) (tenantry_adapter_load_seconds_count)")["result"]
    assert {row["metric"]["replica"] for row in rows} == {"shared-0", "umbrella-0"}
    assert loaded.get("query", query="vllm:kv_cache_usage_perc")["result"]


def test_every_query_of_the_dashboards_is_answered(loaded: Prometheus) -> None:
    for file in sorted((FOLDER / "dashboards").iterdir()):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m")
                query = query.replace("$tenant", "acme").replace("$model", "support")
                loaded.get("query", query=query)  # raises for one that Prometheus refuses


def test_traced_requests_are_exemplars_in_prometheus(loaded: Prometheus, collector: Collector) -> None:
    now = time.time()
    name = "tenantry_time_to_first_token_seconds_bucket"
    found = loaded.get("query_exemplars", query=name, start=str(now - 300), end=str(now))
    ids = {exemplar["labels"]["trace_id"] for each in found for exemplar in each["exemplars"]}
    assert ids
    wait_until(lambda: ids <= {span.trace_id for span in collector.spans}, "their spans", within_s=20)


def test_a_trace_goes_from_the_client_through_the_gateway_into_vllm(
    service: Service, collector: Collector
) -> None:
    client = service.client("acme", default_headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
    messages: Any = [{"role": "user", "content": QUESTIONS[0]}]
    client.chat.completions.create(model="support", messages=messages, max_tokens=8)
    wait_until(lambda: len(collector.in_trace(TRACE)) >= 7, "seven spans", within_s=20)
    spans = collector.in_trace(TRACE)
    assert spans["chat support"].parent_id == SPAN
    assert spans["llm_request"].parent_id == spans["upstream"].span_id
    assert spans["llm_request"].service == "tenantry-engine"
    assert spans["llm_request"].attributes["gen_ai.usage.completion_tokens"] == 8
    assert spans["chat support"].attributes["gen_ai.usage.output_tokens"] == 8
    assert next(r for r in reversed(service.records()) if r["trace_id"])["trace_id"] == TRACE
