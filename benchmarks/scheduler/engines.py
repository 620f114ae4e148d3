"""What do the engines themselves say? Which adapters they ran, what they loaded, whether they are at rest.

An engine counts the adapters in vLLM at each of its steps, in a histogram. So a look before a phase and one
after it show the most that there were in between, whenever that was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.tools import ToolError
from engines.loader.metrics import IN_FLIGHT
from engines.protocol import ADAPTERS_PATH, METRICS_PATH
from engines.residency import Residency

POLL_S = 0.25
LOOK_TIMEOUT_S = 30.0  # of one look; the page is written by a busy engine
GATEWAY_GAUGES = ("tenantry_in_flight", "tenantry_queue_depth", "tenantry_replica_in_flight")


def series(page: str) -> list[Sample]:
    """The lines of a page in Prometheus's text format."""
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


@dataclass(frozen=True, slots=True)
class Page:
    """What is of use on an engine's page."""

    requests: float  # in vLLM, running and waiting
    disk_loads: float  # adapters read into host memory, since the engine started
    steps: Mapping[float, float]  # by how many adapters were in vLLM: a histogram's buckets

    @classmethod
    def parse(cls, text: str) -> Page:
        """Read a page; what is missing counts as zero."""
        requests, disk_loads, upto = 0.0, 0.0, {}
        for line in series(text):
            if line.name in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
                requests += line.value
            elif line.name == "tenantry_adapter_load_seconds_count" and line.labels["tier"] == "disk":
                disk_loads = line.value
            elif line.name == f"{IN_FLIGHT.name}_bucket":
                upto[float(line.labels["le"])] = line.value
        below = (0.0, *(upto[bound] for bound in sorted(upto)))
        steps = {bound: upto[bound] - less for bound, less in zip(sorted(upto), below, strict=False)}
        return cls(requests, disk_loads, steps)

    def most_adapters(self, before: Page) -> float:
        """Most adapters at once in vLLM since an earlier page; exact up to eight, then a bucket's bound."""
        grown = (bound for bound, steps in self.steps.items() if steps > before.steps.get(bound, 0.0))
        return max(grown, default=0.0)


class EngineEyes:
    """Looks at engines over their own sockets."""

    def __init__(self, engines: Mapping[str, aiohttp.ClientSession], gateway: aiohttp.ClientSession) -> None:
        """`engines` by name; this machine may read the metrics of `gateway`."""
        self._engines = engines
        self._gateway = gateway

    async def pages(self) -> dict[str, Page]:
        """All engines' pages now. Raises ToolError."""
        texts = await asyncio.gather(*(self._ask(name, METRICS_PATH) for name in self._engines))
        return {name: Page.parse(text.decode()) for name, text in zip(self._engines, texts, strict=True)}

    async def residency(self, name: str) -> Residency:
        """What one engine holds. Raises ToolError."""
        return Residency.from_json(orjson.loads(await self._ask(name, ADAPTERS_PATH)))

    async def wait_until_idle(self, within_s: float) -> None:
        """Wait until no request is in the gateway or an engine. Raises ToolError."""
        end_s = time.monotonic() + within_s
        while True:
            busy = sum(page.requests for page in (await self.pages()).values())
            waiting = await self._in_gateway()
            if not busy and not waiting:
                return
            if time.monotonic() > end_s:
                where = f"{busy:g} requests in engines, {waiting:g} in the gateway"
                raise ToolError(f"not at rest within {within_s:g} s: {where}")
            await asyncio.sleep(POLL_S)

    async def _in_gateway(self) -> float:
        page = await _get(self._gateway, "/metrics")
        return sum(line.value for line in series(page.decode()) if line.name in GATEWAY_GAUGES)

    async def _ask(self, name: str, path: str) -> bytes:
        return await _get(self._engines[name], path)


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)) as response:
            if response.status != 200:
                raise ToolError(f"GET {url} is answered with {response.status}")
            return await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ToolError(f"GET {url} is not answered: {error!r}") from error
