"""Wrong requests and a hostile client at the real service; and what the ledger and vLLM count of it all.

`make hostile` sends many more, and holds the neighbours' answers per second against those beside right
requests at the same rate. `python -m tests.hostile.bodies SEED NUMBER demo` shows one request again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from demo.answers import QUESTIONS
from engines.protocol import Kind
from routing.openai.endpoints import ENDPOINTS
from tests.e2e.hostility import HOSTILE, MOST_TOKENS, fleet_in, judge_of, world_of
from tests.e2e.serving import ONE_THREAD, Service, answers, key_of, serving, wait_until
from tests.e2e.wrong_requests import CASES, Case
from tests.hostile.audit import Counted, counted_by_vllm, differences, rows_of, tokens
from tests.hostile.bodies import CHAT, COMPLETION, EMBEDDING, FAMILIES, RESPONSE, VALID, attack, harmless
from tests.hostile.client import send
from tests.hostile.request import Attack, World
from tests.hostile.siege import Neighbour, Siege

pytestmark = pytest.mark.engine

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
BODIES = int(os.environ.get("HOSTILE_BODIES", "43"))  # of each family: some three hundred in all
LEAST_RATIO = float(os.environ.get("HOSTILE_LEAST_RATIO", "0"))
SLICES = 6  # of either kind, in turn
PER_S = 40.0  # hostile requests, or right ones; the engine would take more
CLIENT_TIMEOUT_S = 60.0
UNREAD_TOKENS = 100  # as in metering: what lies in sockets when a client leaves
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scene:
    """The demo's shared pool, and the ledger on disk."""

    service: Service
    database: Path

    def counted(self) -> Counted:
        """What the one engine has counted since its start."""
        return counted_by_vllm(self.service.get("/metrics/shared-0").text)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The ledger's rows by x-request-id, once all is written."""
        wait_until(self.service.at_rest, "rest", within_s=60)
        answer = self.service.get(
            "/admin/v1/usage", headers={"authorization": f"Bearer {key_of('operator')}"}
        )
        assert answer.status_code == 200, answer.text
        rows = rows_of(self.database)
        assert answer.json()["total"]["requests"] == len(rows)
        return {row["request_id"]: row for row in rows}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look at the metrics
    folder = tmp_path_factory.mktemp("hostile")
    arguments = ("--arg", f"fleet={fleet_in(folder)}", "--arg", "pool=shared")
    with serving("service:Gateway", folder, *arguments, env=ONE_THREAD) as service:
        yield Scene(service, folder / "state" / "state.db")


@pytest.fixture
def service(scene: Scene) -> Service:
    return scene.service


# -- the ledger, way by way --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way to ask, and to be done with the answer."""

    name: str
    route: str
    fields: dict[str, Any] = field(default_factory=dict)
    leaves_after_bytes: int | None = None
    waits: bool = True
    choices: int = 1  # the engine counts a prompt for each


LONG: dict[str, Any] = {"max_tokens": 300, "ignore_eos": True}
STREAM: dict[str, Any] = {"stream": True}
SAYS: dict[str, Any] = {**STREAM, "stream_options": {"include_usage": True}}
WAYS = (
    *(Way(f"whole {route}", route) for route in (CHAT, COMPLETION, RESPONSE, EMBEDDING)),
    *(Way(f"stream {route}", route, STREAM) for route in (CHAT, COMPLETION, RESPONSE)),
    *(Way(f"stream with usage {route}", route, SAYS) for route in (CHAT, COMPLETION)),
    *(Way(f"left stream {route}", route, LONG | STREAM, 1500) for route in (CHAT, COMPLETION)),
    Way("left response", RESPONSE, {"max_output_tokens": 300, "ignore_eos": True, **STREAM}, 3000),
    *(Way(f"left whole {route}", route, LONG, waits=False) for route in (CHAT, COMPLETION)),
    *(Way(f"two choices {route}", route, {"n": 2}, choices=2) for route in (CHAT, COMPLETION)),
    *(Way(f"stream of two {route}", route, {"n": 2, **STREAM}, choices=2) for route in (CHAT, COMPLETION)),
    *(
        Way(f"stopped {route}", route, {"stop": ["a", "e", "i", "o"], **STREAM})
        for route in (CHAT, COMPLETION)
    ),
    Way("two prompts", COMPLETION, {"prompt": ["hello", "hello you"]}),
    Way("token ids", COMPLETION, {"prompt": [5, 6, 7]}),
    Way("batch", Kind.CHAT_BATCH, {"messages": [[{"role": "user", "content": "hello"}]] * 2}),
    *(Way(f"only {kind}", kind) for kind in Kind if not ENDPOINTS[kind].runs),
    *(Way(f"whole {kind}", kind) for kind in (Kind.POOLING, Kind.SCORE, Kind.RERANK, Kind.MESSAGES)),
    Way("stream of messages", Kind.MESSAGES, STREAM),
    Way("left stream of messages", Kind.MESSAGES, {"max_tokens": 300, **STREAM}, 1500),
    Way("format", CHAT, {"response_format": {"type": "json_object"}, "max_tokens": 12}),
    Way("format of a stream", CHAT, {"structured_outputs": {"choice": ["yes", "no"]}, **STREAM}),
    Way("refused by the gateway", CHAT, {"n": 1000}),
    Way("refused by the engine", CHAT, {"temperature": -1}),
    Way("refused in a stream", CHAT, {"logprobs": True, "top_logprobs": 50, **STREAM}),
    Way("refused regex", COMPLETION, {"structured_outputs": {"regex": "[a-"}, **STREAM}),
)


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_the_ledger_has_what_the_engine_counted(scene: Scene, way: Way) -> None:
    name = f"audit-{WAYS.index(way)}"
    headers = [("host", "localhost"), ("authorization", f"Bearer {key_of('acme')}"), ("x-request-id", name)]
    headers.append(("content-type", "application/json"))
    body = json.dumps({"model": "support", "temperature": 0, **VALID[Kind(way.route)], **way.fields}).encode()
    asked = Attack(0, "POST", way.route, headers, body)
    asked.leaves_after_bytes, asked.waits = way.leaves_after_bytes, way.waits
    before = scene.counted()
    answer = asyncio.run(send(scene.service.port, asked, timeout_s=CLIENT_TIMEOUT_S))
    row = scene.rows().get(name)
    if row is None:  # refused before it was anybody's turn: no engine has heard of it
        assert answer.status == 400 and scene.counted() == before
        return
    kept = tokens([row])
    leaves = not way.waits or way.leaves_after_bytes is not None

    def agrees() -> bool:
        grown = scene.counted() - before
        prompt = kept.prompt * way.choices
        if not leaves:
            return grown == Counted(prompt, kept.completion) and not row["estimated"]
        known = row["estimated"] or grown.prompt == prompt
        return known and kept.completion <= grown.completion <= kept.completion + UNREAD_TOKENS * 3

    try:
        wait_until(agrees, "the engine's word", within_s=5)
    finally:
        log.info(
            "%s: %s %s, the engine %s", way.name, answer.status, row["outcome"], scene.counted() - before
        )
        log.info("    ledger %s, estimated %s", kept, row["estimated"])


# -- wrong requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_request_is_a_400(service: Service, case: Case, stream: bool) -> None:
    headers = {"authorization": f"Bearer {key_of('acme')}"}
    answer = httpx.post(service.url + case.route, json=case.body(stream), headers=headers, timeout=120)
    log.info("%s stream=%s: %s %s", case, stream, answer.status_code, answer.text[:200])
    assert answer.status_code == 400, answer.text[:500]
    assert answer.json()["error"]["message"]


def test_nobody_was_blamed_and_everybody_is_served(service: Service) -> None:
    assert service.metric("tenantry_replica_breaker_state", state="open") == 0
    for tenant in ("acme", "globex"):
        answer = service.client(tenant).chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            temperature=0,
            max_tokens=64,
        )
        assert answer.choices[0].message.content == answers()[f"{tenant}-support"][QUESTIONS[0]]


def test_streams_that_the_official_client_reads_to_the_end_are_completed(service: Service) -> None:
    client: openai.OpenAI = service.client("acme")
    ids = []
    for number in range(30):
        with client.chat.completions.with_streaming_response.create(
            model="support",
            messages=[{"role": "user", "content": f"{number}"}],
            stream=True,
            max_tokens=4,
        ) as response:
            ids.append(response.headers["x-request-id"])
            for _ in response.parse():
                pass
    wait_until(lambda: len(of(service, ids)) == len(ids), "their records", within_s=10)
    assert {record["outcome"] for record in of(service, ids)} == {"completed"}
    assert {record["status"] for record in of(service, ids)} == {200}


def of(service: Service, ids: list[str]) -> list[dict[str, Any]]:
    return [record for record in service.records() if record["request_id"] in ids]


# -- the hostile client ------------------------------------------------------------------------------------


def neighbours() -> list[Neighbour]:
    said = answers()
    return [
        Neighbour(tenant, key_of(tenant), model, {q: said[name][q] for q in QUESTIONS})
        for tenant, model, name in (
            ("acme", "support", "acme-support"),
            ("globex", "support", "globex-support"),
        )
    ]


def test_a_hostile_client_harms_nobody_and_learns_nothing(scene: Scene) -> None:
    service = scene.service
    known, before = scene.rows(), scene.counted()
    (core,) = service.engine_cores()
    world = world_of(service)
    siege = Siege(scene.service.port, judge_of(scene.database.parent), neighbours(), CLIENT_TIMEOUT_S)
    ratio = asyncio.run(_slices(scene, siege, world))
    _report(siege, ratio)
    if report := siege.report():
        pytest.fail(report, pytrace=False)
    assert service.engine_cores() == [core], "another engine"
    assert service.metric("tenantry_replica_breaker_state", state="open") == 0
    assert "met an error" not in service.log.read_text(errors="replace")
    _audit(scene, siege, known, before)
    assert ratio >= LEAST_RATIO


async def _slices(scene: Scene, siege: Siege, world: World) -> float:
    """Hostile requests, then as many right ones for as many tokens, and again.

    Returns the ratio of what the neighbours got meanwhile.
    """
    bodies = BODIES * len(FAMILIES)
    hostile_rates, right_rates, known = [], [], scene.rows().keys()
    for number in range(SLICES):
        numbers = range(number * bodies // SLICES, (number + 1) * bodies // SLICES)
        hostile_rates.append(await siege.run((attack(SEED, n, world) for n in numbers), per_s=PER_S))
        rows = scene.rows()
        cost = sum(rows[name]["completion_tokens"] for name in rows.keys() - known if _is_hostile(rows[name]))
        each = max(1, round(cost / len(numbers)))
        log.info("hostile requests took %d tokens each", each)
        right_rates.append(await siege.run((harmless(n, world, each) for n in numbers), per_s=PER_S))
        known = scene.rows().keys()
    log.info("neighbours' answers/s beside right requests: %s", [round(rate, 1) for rate in right_rates])
    log.info("neighbours' answers/s beside hostile ones: %s", [round(rate, 1) for rate in hostile_rates])
    return statistics.median(hostile_rates) / statistics.median(right_rates)


def _is_hostile(row: Mapping[str, Any]) -> bool:
    return bool(row["tenant"] == HOSTILE)


def _report(siege: Siege, ratio: float) -> None:
    statuses = Counter((seen.status, seen.code) for seen in siege.seen)
    log.info("%d requests: %s", len(siege.seen), dict(statuses.most_common(25)))
    log.info("neighbours: %s; ratio %.3f", dict(siege.served), ratio)


def _audit(scene: Scene, siege: Siege, known: dict[str, Any], before: Counted) -> None:
    """Neighbours' requests are all there, each hostile one at most once, and tokens agree with vLLM's."""
    rows = {name: row for name, row in scene.rows().items() if name not in known}
    for tenant, served in siege.served.items():
        own = [row for row in rows.values() if row["tenant"] == tenant]
        assert Counter(row["outcome"] for row in own) == {"completed": served}
    assert {seen.status for seen in siege.seen if not seen.attack.how} == {200}, "the right ones"
    answered = [seen.attack.id for seen in siege.seen if seen.status == 200 and seen.model and seen.has_id]
    assert not [name for name in answered if name not in rows]
    counted = scene.counted() - before
    # Choices after the first have the same prompt, which the engine counts again; refusals may come late.
    besides = Counted(MOST_TOKENS, MOST_TOKENS) * siege.extra_choices
    found = differences(rows.values(), counted, unread=Counted(MOST_TOKENS, MOST_TOKENS), besides=besides)
    log.info("the engine counted %s, the ledger has %s", counted, tokens(rows.values()))
    assert not found
