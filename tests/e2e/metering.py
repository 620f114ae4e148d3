"""What did clients use by their own count, and what does the ledger say of it, request by request?

Every request has an id of its own. What an answer in one piece says of its usage is taken as it is. A stream
without `include_usage` says nothing, so each of its kind is asked once in one piece first: the demo models
answer greedily, and the same question costs the same again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from demo.answers import QUESTIONS
from tests.e2e.serving import READY_WITHIN_S, Service, key_of, wait_until
from tests.e2e.traffic import CLIENT_TIMEOUT_S, KEEP_ALIVE_S, MODELS

LOSS_S = 1.75  # docs/usage.md: what ended so shortly before a kill may be lost
SLACK_S = 0.5  # between the gateway's end of a request and this client's
ENDLESS_TOKENS = 300  # of an answer that its client leaves
# Tokens an engine may have made, and sent, that a client which leaves has not read: what lies in sockets.
# On a small machine, where a process gets no CPU for a second or two, it is more for some.
UNREAD_TOKENS, OFTEN = 100, 0.8
NOT_READY = "adapter_unavailable"  # told before a model is known, so that it has no record
SEED = 7

Usage = tuple[int, int]  # prompt, completion
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """One kind of request."""

    name: str
    share: float
    stream: bool = False
    says_usage: bool = True
    says_running_usage: bool = False
    leaves: bool = False
    is_chat: bool = True
    fields: dict[str, Any] = field(default_factory=dict)

    def body(self, model: str, question: str) -> dict[str, Any]:
        """What is sent."""
        asked = (
            {"messages": [{"role": "user", "content": question}]} if self.is_chat else {"prompt": question}
        )
        body = {"model": model, **asked, "temperature": 0, "max_tokens": 12, **self.fields}
        if self.stream:
            body["stream"] = True
        if self.stream and (self.says_usage or self.says_running_usage):
            running = {"continuous_usage_stats": True} if self.says_running_usage else {}
            body["stream_options"] = {"include_usage": True, **running}
        return body


_ENDLESS = {"max_tokens": ENDLESS_TOKENS, "ignore_eos": True}
_TWO = {"n": 2, "temperature": 0.7, "max_tokens": 6, "ignore_eos": True}
KINDS = (
    Kind("chat", 0.25),
    Kind("completion", 0.12, is_chat=False),
    Kind("stream", 0.15, stream=True),
    Kind("silent stream", 0.15, stream=True, says_usage=False),
    Kind("silent completion stream", 0.08, stream=True, says_usage=False, is_chat=False),
    Kind("two choices", 0.04, fields=_TWO),
    Kind("silent stream of two", 0.04, stream=True, says_usage=False, fields=_TWO),
    Kind("left stream", 0.06, stream=True, says_running_usage=True, leaves=True, fields=_ENDLESS),
    Kind("left silent stream", 0.04, stream=True, says_usage=False, leaves=True, fields=_ENDLESS),
    Kind("rejected", 0.04, is_chat=False, fields={"prompt": ["over the cap"] * 3, "n": 128}),
    Kind("refused by the engine", 0.03, fields={"max_tokens": 10_000}),
)


@dataclass
class Told:
    """What one client saw of one request."""

    id: str
    tenant: str
    model: str
    kind: Kind
    question: str
    ended_s: float = 0.0  # Unix time
    status: int = 0
    usage: Usage | None = None  # as the answer says, or is known to be
    events: int = 0  # with text
    whole: bool = False  # the answer came to its end
    lost: bool = False  # the connection broke
    code: str | None = None  # of a refusal

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What the ledger may call it."""
        if self.status >= 500:
            return ("rejected", "expired", "failed")
        if self.kind.name == "rejected":
            return ("rejected",)
        # Where a process was stalled, all of an answer may be on its way before its client can leave.
        return ("cancelled", "completed") if self.kind.leaves else ("completed",)


class Clients:
    """Clients that send mixed requests, and remember what they saw."""

    def __init__(
        self, service: Service, name: str = "metered", *, kinds: Sequence[Kind] = KINDS, clients: int = 12
    ) -> None:
        self._kinds = kinds
        self._service = service
        self._name = name
        self._clients = clients
        self._chance = random.Random(SEED)
        self._numbers = itertools.count()
        self._known: dict[tuple[str, str, str, str], Usage] = {}
        self.told: list[Told] = []

    def run(self, requests: int, *, at_half: Callable[[], None] | None = None) -> None:
        """Send so many requests, several at once; `at_half` is called when half of them have been sent."""
        asyncio.run(self._run(requests, at_half))

    async def _run(self, requests: int, at_half: Callable[[], None] | None) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await self._learn(session)
            plan = iter([self._next() for _ in range(requests)])
            half = asyncio.Event()
            sent = itertools.count(1)

            async def client() -> None:
                for told in plan:
                    if next(sent) == requests // 2:
                        half.set()
                    await self._send(session, told)

            async def meddle() -> None:
                await half.wait()
                if at_half is not None:
                    await asyncio.to_thread(at_half)

            await asyncio.gather(meddle(), *(client() for _ in range(self._clients)))

    async def _learn(self, session: aiohttp.ClientSession) -> None:
        """Ask in one piece what is later asked in streams that do not say what they used."""
        for kind in self._kinds:
            if kind.says_usage or kind.leaves:
                continue
            for (tenant, model), question in itertools.product(MODELS, QUESTIONS[:3]):
                asked = replace(kind, stream=False, says_usage=True)
                told = Told(self._id(), tenant, model, asked, question)
                await self._send(session, told)
                assert told.usage is not None, f"{told.status} for {kind.name}"
                self._known[tenant, model, question, kind.name] = told.usage

    def _next(self) -> Told:
        kind = self._chance.choices(self._kinds, [kind.share for kind in self._kinds])[0]
        tenant, model = self._chance.choice(list(MODELS))
        question = self._chance.choice(QUESTIONS[:3])
        return Told(self._id(), tenant, model, kind, question)

    def _id(self) -> str:
        return f"{self._name}-{next(self._numbers)}"

    async def _send(self, session: aiohttp.ClientSession, told: Told) -> None:
        """Send it and take what comes. Never raises but when cancelled."""
        self.told.append(told)
        path = "chat/completions" if told.kind.is_chat else "completions"
        headers = {"authorization": f"Bearer {key_of(told.tenant)}", "x-request-id": told.id}
        body = told.kind.body(told.model, told.question)
        try:
            async with session.post(f"{self._service.url}/v1/{path}", json=body, headers=headers) as response:
                told.status = response.status
                if response.status == 200 and told.kind.stream:
                    await self._read_stream(response, told, self._chance.randint(1, 8))
                else:
                    answer = json.loads(await response.read())
                    told.usage, told.code = _usage(answer), answer.get("error", {}).get("code")
                    told.whole = True
        except (aiohttp.ClientError, ConnectionError, TimeoutError, ValueError):
            told.lost = True
        if told.whole and told.usage is None:
            asked = told.tenant, told.model, told.question, told.kind.name
            told.usage = self._known.get(asked, (0, 0)) if told.status == 200 else (0, 0)
        told.ended_s = time.time()
        if told.lost or told.code == NOT_READY:
            await asyncio.sleep(0.5)  # nobody is there

    async def _read_stream(self, response: aiohttp.ClientResponse, told: Told, leave_after: int) -> None:
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                told.whole = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                told.lost = True
                return
            assert told.kind.says_running_usage or not event["choices"] or "usage" not in event, event
            told.usage = _usage(event) or told.usage
            told.events += any(choice.get("delta", {}).get("content") for choice in event["choices"])
            if told.kind.leaves and told.events >= leave_after:
                response.close()
                return
        told.lost = not told.whole


def _usage(answer: dict[str, Any]) -> Usage | None:
    usage = answer.get("usage")
    return (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


# -- the ledger --------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """What the ledger has, read from its tables by the test alone."""

    records: dict[str, dict[str, Any]]  # by x-request-id
    total: dict[str, Any]  # the answer of the admin API

    @classmethod
    def of(cls, service: Service, folder: Path) -> Ledger:
        """Read it once nothing runs and all is written."""
        answer = service.get(
            "/admin/v1/usage?group_by=tenant,outcome",
            headers={"authorization": f"Bearer {key_of('operator')}"},
        )
        assert answer.status_code == 200, answer.text
        with sqlite3.connect(f"file:{folder}/state/state.db?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM usage_records")]
        connection.close()
        records = {row["request_id"]: row for row in rows}
        assert len(records) == len(rows), "a request is there twice"
        return cls(records, answer.json())


@dataclass
class Comparison:
    """Where the clients and the ledger differ."""

    requests: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    missing: list[Told] = field(default_factory=list)  # answered, and not in the ledger
    wrong: list[str] = field(default_factory=list)  # told differently than can be explained
    tokens_seen: int = 0  # prompt and completion, by the clients' count, of what the ledger has
    tokens_kept: int = 0  # of the same requests, by the ledger's
    left_tokens: tuple[int, int] = (0, 0)  # completion tokens of streams that were left: seen, kept
    unread: list[int] = field(default_factory=list)  # of each of them: tokens that were made and not seen
    not_ready: int = 0  # refused while the gateway had just started, before their model was known
    lost_kept: int = 0  # requests whose client saw no end, and which the ledger has


def compare(told: list[Told], ledger: Ledger) -> Comparison:
    """Hold each request against its record."""
    found = Comparison(requests=len(told), kinds=Counter(one.kind.name for one in told))
    for one in told:
        record = ledger.records.get(one.id)
        if record is None:
            if one.code == NOT_READY:
                found.not_ready += 1
            elif not one.lost:
                found.missing.append(one)
        elif one.lost:
            found.lost_kept += 1
        else:
            _compare(one, record, found)
    unknown = ledger.records.keys() - {one.id for one in told}
    found.wrong += [f"{name} is nobody's" for name in unknown]
    return found


def _compare(one: Told, record: dict[str, Any], found: Comparison) -> None:
    kept = record["prompt_tokens"], record["completion_tokens"]
    if (record["tenant"], record["model"]) != (one.tenant, one.model) or record[
        "outcome"
    ] not in one.outcomes:
        found.wrong.append(f"{one.id} ({one.kind.name}): {record['outcome']}, not {one.outcomes}")
    if not one.kind.leaves or one.status != 200:
        if kept != (one.usage or (0, 0)) or record["estimated"]:
            found.wrong.append(f"{one.id} ({one.kind.name}): {kept}, not {one.usage}")
        found.tokens_seen += sum(one.usage or (0, 0))
        found.tokens_kept += sum(kept)
        return
    prompt, completion = one.usage or (kept[0], one.events)
    seen, had = found.left_tokens
    found.left_tokens = seen + completion, had + kept[1]
    found.unread.append(kept[1] - completion)
    least = ENDLESS_TOKENS if record["outcome"] == "completed" else completion
    if record["estimated"] or kept[0] != prompt or not least <= kept[1] <= ENDLESS_TOKENS:
        found.wrong.append(f"{one.id} ({one.kind.name}): {kept}, and the client saw {(prompt, completion)}")


def check(comparison: Comparison, ledger: Ledger, *, killed_s: float | None = None) -> None:
    """Everything is as it must be, and what is missing ended within the documented time before the kill."""
    assert comparison.wrong == []
    assert sum(unread <= UNREAD_TOKENS for unread in comparison.unread) >= OFTEN * len(comparison.unread)
    assert comparison.tokens_kept == comparison.tokens_seen
    for one in comparison.missing:
        assert killed_s is not None, f"{one.id} ({one.kind.name}) is missing"
        before_s = killed_s - one.ended_s
        assert -SLACK_S <= before_s <= LOSS_S + SLACK_S, f"{one.id} ended {before_s:.2f} s before the kill"
    total, records = ledger.total["total"], ledger.records.values()
    assert total["requests"] == len(ledger.records)
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        assert total[name] == sum(record[name] for record in records), (
            f"{name} of the days and of the records"
        )
    for name in ("slot_s", "engine_s", "run_s", "queue_s"):
        assert abs(total[name] - sum(record[name] for record in records)) < 0.01


def run_with_a_kill(service: Service, folder: Path, requests: int) -> None:
    """Send so many requests, kill the gateway in their middle, and hold the ledger against the clients."""
    killed_s: list[float] = []

    def kill() -> None:
        gateway = service.worker("gateway")
        assert gateway is not None
        killed_s.append(time.time())
        gateway.kill()
        wait_until(lambda: (w := service.worker("gateway")) and w.pid != gateway.pid, "a worker", within_s=60)
        wait_until(service.is_ready, "the gateway after its kill", within_s=READY_WITHIN_S)

    clients, began_s = Clients(service), time.monotonic()
    clients.run(requests // 2, at_half=kill)
    clients.run(requests - requests // 2)
    took_s = time.monotonic() - began_s
    wait_until(service.at_rest, "rest", within_s=60)
    ledger = Ledger.of(service, folder)
    found = compare(clients.told, ledger)
    log.info("%d requests in %.0f s: %s", found.requests, took_s, dict(found.kinds))
    log.info(
        "the ledger has %d; missing after the kill %d, refused until it was ready %d, kept though "
        "their client saw no end %d",
        len(ledger.records),
        len(found.missing),
        found.not_ready,
        found.lost_kept,
    )
    log.info("tokens by the clients %d, by the ledger %d", found.tokens_seen, found.tokens_kept)
    log.info("of streams that were left: clients saw %d tokens, the ledger has %d", *found.left_tokens)
    check(found, ledger, killed_s=killed_s[0])
    slots, engines = 2, 1
    total = ledger.total["total"]
    assert 0 < total["slot_s"] <= slots * took_s
    assert 0 < total["engine_s"] <= engines * took_s
